"""Wasted labels, labels needed and time, by hand."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from experiments.results.costs import LabelsNeeded, labels_needed, time_spent, wasted_labels
from experiments.results.details import TrialDetails
from experiments.results.statistics import CellKey
from experiments.tables.cost_tables import cost_lines, cost_tables

CONF, VLPURE = CellKey("digits", 0.2, 0.6, "conf"), CellKey("digits", 0.2, 0.6, "vlpure")


def trial(strategy: str, seed: int, last: float, *, ood_ratio: float = 0.6, status: str = "finished") -> dict[str, Any]:
    """A row of the frame `trials`."""
    return {
        "dataset": "digits",
        "mismatch_ratio": 0.2,
        "ood_ratio": ood_ratio,
        "arm": strategy,
        "seed": seed,
        "status": status,
        "last_accuracy": last,
        "num_wasted": 30 + seed,
        "fingerprint": f"{strategy}{seed}",
    }


def curve(strategy: str, seed: int, accuracies: list[float], *, ood_ratio: float = 0.6) -> list[dict[str, Any]]:
    """Rows of the frame `rounds`: 10 labels a round, 6 of them ID."""
    return [
        {
            "dataset": "digits",
            "mismatch_ratio": 0.2,
            "ood_ratio": ood_ratio,
            "arm": strategy,
            "seed": seed,
            "round": number,
            "accuracy": accuracy,
            "num_id": 6 * (number + 1),
            "num_ood": 4 * (number + 1),
            "seconds_train": 3.0,
            "seconds_evaluate": 0.5,
            "seconds_query": 2.0 * number,
            "fingerprint": f"{strategy}{seed}",
        }
        for number, accuracy in enumerate(accuracies)
    ]


TRIALS = pd.DataFrame(
    [
        trial("id-only", 0, 0.80, ood_ratio=0.0),
        trial("id-only", 1, 0.60, ood_ratio=0.0),
        trial("id-only", 2, 0.70, ood_ratio=0.0, status="unfinished"),
        *(trial("conf", seed, 0.7) for seed in (0, 1, 2)),
        *(trial("vlpure", seed, 0.8) for seed in (0, 1)),
        trial("vlpure", 2, 0.8, status="unfinished"),
    ]
)
ROUNDS = pd.DataFrame(
    [
        *curve("id-only", 0, [0.5, 0.7, 0.80], ood_ratio=0.0),
        *curve("conf", 0, [0.5, 0.71, 0.70]),  # 90 % of 0.80 is 0.72: never
        *curve("conf", 1, [0.5, 0.54, 0.70]),  # 90 % of 0.60 is 0.54: round 1, 20 labels
        *curve("conf", 2, [0.9, 0.90, 0.90]),  # its ID-only trial is not finished
        *curve("vlpure", 0, [0.5, 0.73, 0.70]),  # round 1
        *curve("vlpure", 1, [0.54, 0.5, 0.7]),  # round 0: 90 % of 0.60 is reached
        *curve("vlpure", 2, [0.9, 0.9]),  # not finished itself
    ]
)


def test_labels_needed_by_hand() -> None:
    needed = labels_needed(TRIALS, ROUNDS, 0.9)
    assert needed == {
        CONF: LabelsNeeded(median=math.inf, num_reached=1, num_seeds=2, most=30),
        VLPURE: LabelsNeeded(median=15.0, num_reached=2, num_seeds=2, most=30),
    }


def test_labels_needed_in_words() -> None:
    (table,) = (each for each in cost_tables(TRIALS, ROUNDS, {}) if "90 %" in each.title)
    assert {row.label: [cell.text for cell in row.cells] for row in table.rows} == {
        "conf": ["> 30 (1 of 2 seeds)"],
        "vlpure": ["15"],
    }


def test_without_id_only_it_is_said_that_nothing_is_known() -> None:
    trials = TRIALS[TRIALS["arm"] != "id-only"]
    assert labels_needed(trials, ROUNDS, 0.9) == {}
    assert not [table for table in cost_tables(trials, ROUNDS, {}) if "ID-only" in table.title]
    assert "are not known: no trial without OOD images (id-only) is finished here" in cost_lines(trials)[-1]


def test_wasted_labels_leave_out_reference_runs_and_what_is_not_finished() -> None:
    wasted = wasted_labels(TRIALS)
    assert set(wasted) == {CONF, VLPURE}
    assert wasted[CONF].mean == pytest.approx(31.0)
    assert (wasted[VLPURE].mean, wasted[VLPURE].num_seeds, wasted[VLPURE].num_planned) == (30.5, 2, 3)


def details(*shares: float | None) -> TrialDetails:
    """Details of a trial whose rounds had those shares of a GPU."""
    return TrialDetails(environments=tuple({} if share is None else {"gpus": share} for share in shares))


def test_time_by_hand() -> None:
    known = {"vlpure0": details(0.25), "vlpure1": details(0.5), "vlpure2": details(0.25), "conf0": details(None)}
    spent = time_spent(ROUNDS, known)
    vlpure = spent["digits", "vlpure"]
    # seeds 0 and 1: queries of 2 and 4 s, seed 2: one of 2 s
    assert vlpure.seconds_a_query.mean == pytest.approx((3 + 3 + 2) / 3)
    assert vlpure.seconds_a_training.mean == pytest.approx(3.0)
    whole, part = 3 * 3.5 + 6, 2 * 3.5 + 2
    assert vlpure.hours == pytest.approx((2 * whole + part) / 3600)
    assert vlpure.gpu_hours == pytest.approx((0.25 * whole + 0.5 * whole + 0.25 * part) / 3600)
    assert math.isnan(spent["digits", "conf"].gpu_hours)


def test_a_round_that_does_not_say_its_share_makes_the_sum_unknown() -> None:
    rounds = ROUNDS[ROUNDS["fingerprint"] == "vlpure0"]
    assert math.isnan(time_spent(rounds, {"vlpure0": details(0.25, None)})["digits", "vlpure"].gpu_hours)
    (table,) = (each for each in cost_tables(TRIALS, rounds, {}) if each.title == "digits: time")
    assert [cell.text for cell in table.rows[0].cells] == ["3.00", "3.00", "0.005", "not known"]
