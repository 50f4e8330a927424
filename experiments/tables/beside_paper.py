"""Our values next to the paper's: differences, agreement of the order of strategies, and where the order differs.

The paper's AUBC divides by n; it is shown next to `aubc_paper` only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from experiments.results.comparison import collect_scores, paired_t_p
from experiments.results.paper import PaperValues
from experiments.results.statistics import (
    CellKey,
    Condition,
    Estimate,
    estimate,
    estimate_cells,
    sorted_conditions,
    unique,
)
from experiments.tables.table import (
    DIGITS,
    Cell,
    Section,
    Table,
    arms_table,
    condition_name,
    format_estimate,
    format_p,
    percent,
    text_table,
)

if TYPE_CHECKING:
    import pandas as pd

METRIC_NAMES = {"aubc_paper": "AUBC divided by n", "last_accuracy": "last accuracy"}
"""Names of the metrics that the paper has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """Two strategies whose order differs from the paper's, in one condition."""

    condition: Condition
    above: str
    """The better of the two in the paper."""
    below: str
    paper: float
    """Paper's `above` minus `below`, above 0."""
    ours: float
    """Our mean difference of the same, paired by seed where possible, below 0."""
    p_t: float
    """p-value of our difference, by the paired t-test, not adjusted; NaN with fewer than two common seeds."""


def paper_section(trials: pd.DataFrame, paper: PaperValues) -> Section | None:
    """Tables next to the paper's, the rank agreement, and the list of swaps; None without a common cell.

    Raises ValueError for a metric that is not in `METRIC_NAMES`.
    """
    tables: list[Table] = []
    for metric, values in paper.items():
        if metric not in METRIC_NAMES:
            raise ValueError(f"the paper has no {metric}; it has {' and '.join(METRIC_NAMES)}")
        ours = estimate_cells(trials, metric)
        common = sorted_conditions(key for key in ours if any(each.condition == key.condition for each in values))
        if not common:
            continue
        name = METRIC_NAMES[metric]
        for dataset in unique(condition.dataset for condition in common):
            conditions = [each for each in common if each.dataset == dataset]
            tables.append(_beside_table(f"{dataset}: {name}, ours next to the paper's", conditions, ours, values))
        tables.append(_agreement_table(f"Agreement with the paper's order, by {name}", common, ours, values))
        swaps = find_swaps(trials, metric, values)
        if swaps:
            tables.append(_swap_table(f"Pairs in another order than in the paper, by {name}", swaps))
    if not tables:
        return None
    lines = (
        "The paper's AUBC is divided by n and is shown next to ours by the same rule only. Its numbers are of its full "
        "recipe; with another recipe (see the departures) the differences do not test it. The paper's CORESET comes "
        "from code that returns near-random images, ours does not.",
        "Pairs in another order: our difference is the mean over common seeds, p by the paired t-test, not adjusted.",
    )
    return Section(title="Next to the paper", lines=lines, tables=tuple(tables))


def spearman(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN with fewer than three strategies, or if one side ties them all."""
    if len(ours) < 3 or len(set(ours)) == 1 or len(set(theirs)) == 1:
        return math.nan
    from scipy.stats import spearmanr

    return float(spearmanr(ours, theirs).statistic)


def find_swaps(trials: pd.DataFrame, metric: str, paper: Mapping[CellKey, float]) -> list[Swap]:
    """The pairs of strategies whose order differs from the paper's; the largest difference in the paper first.

    Pairs that tie on either side are not swaps. Differences are over the seeds that both have finished.
    """
    swaps = []
    for condition, by_arm in collect_scores(trials, metric).items():
        known = [name for name in by_arm if CellKey(*condition, name) in paper and by_arm[name]]
        for pair in combinations(known, 2):
            gap = paper[CellKey(*condition, pair[0])] - paper[CellKey(*condition, pair[1])]
            above, below = pair if gap > 0 else pair[::-1]
            seeds = sorted(by_arm[above].keys() & by_arm[below].keys())
            differences = [by_arm[above][seed] - by_arm[below][seed] for seed in seeds]
            ours = estimate(differences).mean
            if gap and ours < 0:
                swaps.append(
                    Swap(
                        condition=condition,
                        above=above,
                        below=below,
                        paper=abs(gap),
                        ours=ours,
                        p_t=paired_t_p(differences),
                    )
                )
    return sorted(swaps, key=lambda swap: -swap.paper)


def _beside_table(
    title: str, conditions: Sequence[Condition], ours: Mapping[CellKey, Estimate], paper: Mapping[CellKey, float]
) -> Table:
    arms = unique(key.arm for key in ours if key.condition in conditions)
    return arms_table(
        title, arms, conditions, lambda key: Cell(text=_beside_text(ours.get(key), paper.get(key)), key=key)
    )


def _beside_text(ours: Estimate | None, paper: float | None) -> str:
    if paper is None:
        return f"{format_estimate(ours)} (not in the paper)"
    if ours is None or not ours.num_seeds:
        return f"{format_estimate(ours)}; paper {percent(paper)}"
    return f"{format_estimate(ours)}; paper {percent(paper)}, {100 * (ours.mean - paper):+.{DIGITS}f}"


def _agreement_table(
    title: str, conditions: Sequence[Condition], ours: Mapping[CellKey, Estimate], paper: Mapping[CellKey, float]
) -> Table:
    """A table with a row per condition: Spearman's correlation of the strategies' order, and their number."""
    rows = []
    for condition in conditions:
        keys = [key for key, value in ours.items() if key.condition == condition and key in paper and value.num_seeds]
        rho = spearman([ours[key].mean for key in keys], [paper[key] for key in keys])
        best = max(keys, key=lambda key: ours[key].mean).arm if keys else "-"
        in_paper = [key for key in paper if key.condition == condition]
        texts = (
            _spearman_text(rho, len(keys)),
            f"{len(keys)} of {len(in_paper)}",
            best,
            max(in_paper, key=lambda key: paper[key]).arm,
        )
        rows.append((condition_name(condition), texts))
    columns = ("Spearman", "strategies", "our best", "the paper's best")
    return text_table(title, corner="condition", columns=columns, rows=rows)


def _spearman_text(rho: float, num_strategies: int) -> str:
    if math.isnan(rho):
        return "all tie" if num_strategies >= 3 else "needs three strategies"
    return f"{rho:+.2f}"


def _swap_table(title: str, swaps: Sequence[Swap]) -> Table:
    rows = [
        (
            condition_name(swap.condition),
            (
                f"{swap.above} above {swap.below}",
                f"+{percent(swap.paper)}",
                percent(swap.ours),
                format_p(swap.p_t),
            ),
        )
        for swap in swaps
    ]
    columns = ("in the paper", "the paper's difference", "ours", "p")
    return text_table(title, corner="condition", columns=columns, rows=rows)
