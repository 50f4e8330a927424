"""Table 10: final accuracy, mean precision, and the recall after the last query; the curves have it too."""

from __future__ import annotations

from dataclasses import replace

from experiments.plots.curves import draw_curves
from experiments.results.frames import rounds_frame, trials_frame
from experiments.tables.table import render_text
from experiments.tables.table10 import table10_tables
from orchestrator.plan import PlannedTrial
from tests.factories import make_planned, make_record


def _planned(seed: int, strategy: str, recalls: list[float]) -> PlannedTrial:
    records = tuple(make_record(number, diagnostics={"recall": recall}) for number, recall in enumerate(recalls))
    planned = make_planned(seed, strategy=strategy, ood_ratio="all", initial_share=0.1)
    return replace(planned, records=records)


def test_tables_of_two_strategies() -> None:
    planned = [
        _planned(0, "random", [0.1, 0.2, 0.3]),
        _planned(1, "random", [0.1, 0.2, 0.5]),
        _planned(0, "conf", [0.1, 0.3, 0.6]),
        _planned(1, "conf", [0.1, 0.9]),  # unfinished: it has no recall after the last query
    ]
    accuracy, precision, recall = table10_tables(trials_frame(planned), rounds_frame(planned))
    assert accuracy.title == "digits: accuracy after the last round"
    assert precision.title == "digits: mean precision of the queries"
    assert recall.columns == ("20 % / all",)
    assert [(row.label, row.cells[0].text) for row in recall.rows] == [
        ("random", "40.00 ± 127.06"), ("conf", "60.00 ± ? (1 of 2 seeds)"),
    ]  # fmt: skip
    assert "70.00" in render_text(accuracy)


def test_trials_without_a_share_at_the_start_have_no_recall() -> None:
    planned = [make_planned(0, num_records=3)]
    rounds = rounds_frame(planned)
    assert "recall" not in rounds
    assert len(table10_tables(trials_frame(planned), rounds)) == 2


def test_curves_have_a_row_for_recall() -> None:
    def labels(planned: list[PlannedTrial]) -> list[str]:
        axes = [axes for part in draw_curves(rounds_frame(planned)).subfigs for axes in part.axes]
        return [axis.get_ylabel() for axis in axes]

    both = ["precision of the query", "test accuracy"]
    assert labels([make_planned(0, num_records=3)]) == both
    assert labels([_planned(0, "random", [0.1, 0.2, 0.3])]) == [*both, "ID images labelled"]
