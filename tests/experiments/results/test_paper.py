"""Ours next to the paper's: rank agreement against SciPy, pairs in another order by hand, rules never mixed."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from experiments.results.statistics import CellKey, Condition
from experiments.tables.beside_paper import find_swaps, paper_section, spearman

HARD = Condition("cifar10", 0.4, 0.6)
OURS = {"a": (0.50, 0.52), "b": (0.60, 0.63), "c": (0.55, 0.54), "d": (0.70, 0.70)}
PAPER = {"a": 0.62, "b": 0.61, "c": 0.63, "e": 0.9}


def frame(ours: dict[str, tuple[float, ...]], **changes: Any) -> pd.DataFrame:
    """Trials of one condition: strategy -> aubc_paper of each seed; `aubc` is something else."""
    return pd.DataFrame(
        [
            {**HARD._asdict(), "arm": name, "seed": seed, "status": "finished", "aubc_paper": value, "aubc": 0.123}
            | changes
            for name, values in ours.items()
            for seed, value in enumerate(values)
        ]
    )


def paper(values: dict[str, float]) -> dict[CellKey, float]:
    """The paper's values of the condition."""
    return {CellKey(*HARD, name): value for name, value in values.items()}


def test_spearman_is_scipys() -> None:
    ours, theirs = [0.51, 0.615, 0.545, 0.7, 0.3], [0.62, 0.61, 0.63, 0.61, 0.2]
    assert spearman(ours, theirs) == pytest.approx(stats.spearmanr(ours, theirs).statistic, rel=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), [([1, 2], [2, 1]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [4, 4, 4])])
def test_spearman_of_too_little_is_not_known(ours: list[float], theirs: list[float]) -> None:
    assert math.isnan(spearman(ours, theirs))


def test_pairs_in_another_order_by_hand() -> None:
    # the paper: c > a > b; ours: b (0.615) > c (0.545) > a (0.51): b with c and b with a are swapped
    first, second = find_swaps(frame(OURS), "aubc_paper", paper(PAPER))
    assert (first.above, first.below) == ("c", "b")
    assert (first.paper, first.ours) == pytest.approx((0.02, 0.545 - 0.615))
    assert first.p_t == pytest.approx(stats.ttest_rel([0.55, 0.54], [0.60, 0.63]).pvalue)
    assert (second.above, second.below, round(second.paper, 6)) == ("a", "b", 0.01)


def test_ties_are_no_swap() -> None:
    assert find_swaps(frame({"a": (0.5, 0.5), "b": (0.5, 0.5)}), "aubc_paper", paper({"a": 0.1, "b": 0.2})) == []
    assert find_swaps(frame({"a": (0.5, 0.5), "b": (0.6, 0.6)}), "aubc_paper", paper({"a": 0.2, "b": 0.2})) == []


def test_the_section_has_both_rules_apart() -> None:
    section = paper_section(frame(OURS), {"aubc_paper": paper(PAPER)})
    assert section is not None
    beside, agreement, swaps = section.tables
    assert beside.title == "cifar10: AUBC divided by n, ours next to the paper's"
    assert beside.rows[0].cells[0].text == "51.00 ± 12.71; paper 62.00, -11.00"  # of aubc_paper, not of aubc
    assert beside.rows[3].cells[0].text == "70.00 ± 0.00 (not in the paper)"
    assert [cell.text for cell in agreement.rows[0].cells] == ["-0.50", "3 of 4", "b", "e"]
    # t = -0.07 / (0.04 / 2) = -3.5 with one degree of freedom: p = 2 / pi * atan(1 / 3.5)
    assert [cell.text for cell in swaps.rows[0].cells] == ["c above b", "+2.00", "-7.00", "0.177"]


def test_the_papers_figures_are_never_held_against_our_own_rule() -> None:
    with pytest.raises(ValueError, match="the paper has no aubc; it has aubc_paper and last_accuracy"):
        paper_section(frame(OURS), {"aubc": paper(PAPER)})


def test_without_a_common_condition_there_is_no_section() -> None:
    assert paper_section(frame(OURS, ood_ratio=0.5), {"aubc_paper": paper(PAPER)}) is None
    assert paper_section(frame(OURS), {}) is None


def test_what_is_not_finished_is_not_compared() -> None:
    section = paper_section(frame(OURS, status="unfinished"), {"aubc_paper": paper(PAPER)})
    assert section is not None
    assert section.tables[0].rows[0].cells[0].text == "missing (0 of 2 seeds); paper 62.00"
    assert [cell.text for cell in section.tables[1].rows[0].cells] == ["needs three strategies", "0 of 4", "-", "e"]
    assert len(section.tables) == 2
