"""The tables of all strategies side by side, on hand-made trials."""

from __future__ import annotations

import pandas as pd

from experiments.results.frames import TRIAL_COLUMNS
from experiments.tables.openset import openset_tables


def frame() -> pd.DataFrame:
    """Three strategies with seeds 0 and 1; `late` has none of seed 1."""
    rows = [
        ("random", 0, "finished", 0.60, 0.61, 0.4, 1500, 10.0),
        ("random", 1, "finished", 0.50, 0.51, 0.4, 1480, 12.0),
        ("vlpure", 0, "finished", 0.62, 0.60, 0.8, 700, 20.0),
        ("vlpure", 1, "finished", 0.52, 0.50, 0.8, 680, 22.0),
        ("late", 0, "finished", 0.61, 0.70, 0.5, 1200, 99.0),
    ]
    return pd.DataFrame(
        [
            {"dataset": "photos", "mismatch_ratio": 0.4, "ood_ratio": 0.6, "arm": arm, "seed": seed, "status": status}
            | {"aubc": aubc, "last_accuracy": last, "mean_precision": precision, "num_wasted": wasted, "seconds": time}
            for arm, seed, status, aubc, last, precision, wasted, time in rows
        ],
        columns=list(TRIAL_COLUMNS),
    )


def test_figures_stand_best_first_and_a_missing_seed_wins_no_mark() -> None:
    figures = openset_tables(frame())[0]
    assert figures.title == "photos 40 % / 60 %: all strategies"
    assert figures.columns == ("AUBC", "last accuracy", "mean precision", "wasted labels", "seconds per trial")
    assert [row.label for row in figures.rows] == ["vlpure", "late", "random"]
    assert [cell.text for cell in figures.rows[1].cells] == [
        "61.00 ± ? (1 of 2 seeds)",
        "70.00 ± ? (1 of 2 seeds)",
        "50.00 ± ? (1 of 2 seeds)",
        "1200 ± ? (1 of 2 seeds)",
        "99 ± ? (1 of 2 seeds)",
    ]
    assert [cell.text for cell in figures.rows[0].cells] == [
        "57.00 ± 63.53", "55.00 ± 63.53", "80.00 ± 0.00", "690 ± 127", "21 ± 13",
    ]  # fmt: skip
    assert [row.cells[0].mark for row in figures.rows] == ["best", "", "second"]


def test_differences_are_paired_and_those_that_are_separable_marked() -> None:
    _, from_vlpure, from_random = openset_tables(frame())
    assert from_vlpure.title == "photos 40 % / 60 %: differences from vlpure, paired by seed"
    assert {row.label: [cell.text for cell in row.cells] for row in from_vlpure.rows} == {
        "late": [
            "-1.00 ± ? (1 of 2 seeds)", "+10.00 ± ? (1 of 2 seeds)", "-30.00 ± ? (1 of 2 seeds)",
            "+500 ± ? (1 of 2 seeds)",
        ],
        "random": ["-2.00 ± 0.00 §", "+1.00 ± 0.00 §", "-40.00 ± 0.00 §", "+800 ± 0 §"],
    }  # fmt: skip
    assert [row.label for row in from_random.rows] == ["vlpure", "late"]
    assert [cell.text for cell in from_random.rows[0].cells] == [
        "+2.00 ± 0.00 §", "-1.00 ± 0.00 §", "+40.00 ± 0.00 §", "-800 ± 0 §",
    ]  # fmt: skip
