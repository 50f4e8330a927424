"""Means and intervals over seeds against hand-worked values and SciPy."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from experiments.results.paper import paper_table4
from experiments.results.statistics import (
    CellKey,
    Condition,
    Estimate,
    estimate,
    estimate_cells,
    rank_marks,
    sorted_conditions,
)
from experiments.tables.table import format_estimate
from tests.experiments.synthetic import read_frame

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "reporting"


def make_estimate(mean: float, *, num_seeds: int = 3, num_planned: int = 3) -> Estimate:
    """An estimate of which only mean and seeds matter."""
    return Estimate(num_seeds=num_seeds, num_planned=num_planned, mean=mean, sd=0.0, half_width=0.0)


def test_three_seeds_by_hand() -> None:
    value = estimate([0.60, 0.62, 0.64])
    # t with 2 degrees of freedom at 97.5 % is 4.302653; 4.302653 * 0.02 / sqrt(3) = 0.0496827
    assert value.mean == pytest.approx(0.62)
    assert value.sd == pytest.approx(0.02)
    assert value.half_width == pytest.approx(0.0496827, abs=1e-7)
    assert (value.num_seeds, value.num_planned, value.is_complete) == (3, 3, True)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_interval_is_scipys(level: float) -> None:
    values = [0.31, 0.42, 0.29, 0.37, 0.40]
    low, high = stats.t.interval(level, df=4, loc=sum(values) / 5, scale=stats.sem(values))
    value = estimate(values, level=level)
    assert (value.mean - value.half_width, value.mean + value.half_width) == pytest.approx((low, high), abs=1e-12)


def test_one_seed_has_a_mean_and_no_interval() -> None:
    value = estimate([0.7], num_planned=3)
    assert value.mean == 0.7
    assert math.isnan(value.sd)
    assert math.isnan(value.half_width)
    assert not value.is_complete


def test_a_missing_seed_is_not_averaged_and_stays_counted() -> None:
    value = estimate([0.5, math.nan, 0.7])
    assert value.mean == pytest.approx(0.6)
    assert (value.num_seeds, value.num_planned) == (2, 3)


def test_no_seed_has_no_mean() -> None:
    value = estimate([math.nan])
    assert math.isnan(value.mean)
    assert (value.num_seeds, value.num_planned) == (0, 1)


def test_only_finished_trials_count() -> None:
    frame = read_frame(GOLDEN / "trials.csv")
    key = CellKey("digits", 0.2, 0.6, "random")
    assert estimate_cells(frame, "aubc")[key].mean == pytest.approx(0.62)
    frame.loc[frame["fingerprint"] == "random-digits-0.2-0.6-2", "status"] = "unfinished"
    value = estimate_cells(frame, "aubc")[key]
    assert value.mean == pytest.approx(0.61)
    assert (value.num_seeds, value.num_planned) == (2, 3)


def test_cells_come_in_order_of_first_appearance() -> None:
    cells = list(estimate_cells(read_frame(GOLDEN / "trials.csv"), "aubc"))
    assert [key.arm for key in cells] == ["random", "conf", "vlpure"] * 2 + ["random", "mine", "vlpure"]
    assert sorted_conditions(cells) == [
        Condition("digits", 0.2, 0.2),
        Condition("digits", 0.2, 0.6),
        Condition("cifar10", 0.2, 0.6),
    ]


def test_what_finished_trials_do_not_have_is_not_missing() -> None:
    frame = read_frame(GOLDEN / "trials.csv")
    of_conf = (frame["dataset"] == "digits") & (frame["ood_ratio"] == 0.6) & (frame["arm"] == "conf")
    frame.loc[of_conf, "mean_precision"] = math.nan  # trials of one round query nothing
    key = CellKey("digits", 0.2, 0.6, "conf")
    assert format_estimate(estimate_cells(frame, "mean_precision")[key]) == "none"
    frame.loc[of_conf, "status"] = "missing"
    assert format_estimate(estimate_cells(frame, "mean_precision")[key]) == "missing (0 of 3 seeds)"


def test_a_trial_listed_twice_is_refused() -> None:
    frame = read_frame(GOLDEN / "trials.csv")
    twice = pd.concat([frame, frame.iloc[[4]]])
    with pytest.raises(ValueError, match=r"trial listed twice: dataset digits, .* arm conf, seed 1"):
        estimate_cells(twice, "aubc")


@pytest.mark.parametrize(
    ("means", "marks"),
    [
        ([0.5, 0.7, 0.6], ["", "best", "second"]),
        ([0.7, 0.7, 0.6, 0.5], ["best", "best", "second", ""]),
        ([0.7, 0.6, 0.6], ["best", "second", "second"]),
        ([0.70001, 0.70004, 0.6], ["best", "best", "second"]),  # equal to a reader: 70.00
        ([0.7001, 0.7002], ["second", "best"]),
        ([0.7], [""]),
        ([], []),
    ],
)
def test_best_and_second(means: list[float], marks: list[str]) -> None:
    assert rank_marks([make_estimate(mean) for mean in means], digits=4) == marks


def test_incomplete_and_missing_cells_do_not_compete() -> None:
    cells = [
        make_estimate(0.9, num_seeds=2),
        make_estimate(0.5),
        None,
        make_estimate(0.4),
        make_estimate(math.nan, num_seeds=0),
    ]
    assert rank_marks(cells, digits=4) == ["", "best", "", "second", ""]
    assert rank_marks(cells[:3], digits=4) == ["", "", ""]


def test_the_papers_table_is_whole() -> None:
    paper = paper_table4()
    assert len(paper) == 3 * 3 * 4 * 8
    assert paper[CellKey("cifar10", 0.2, 0.1, "random")] == pytest.approx(0.874)
    assert paper[CellKey("cifar10", 0.4, 0.6, "vlpure")] == pytest.approx(0.8195)
    assert all(0 < value < 0.9 for value in paper.values())  # divided by n: ten perfect rounds give 0.9
