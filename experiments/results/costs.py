"""The costs of strategies: wasted labels, labels needed to come near the ID-only accuracy, and time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.results.details import Details
from experiments.results.statistics import CellKey, Estimate, cell_key, estimate, estimate_cells

if TYPE_CHECKING:
    import pandas as pd

SHARES_TO_REACH = (0.90, 0.95, 0.99)
ID_ONLY = "id-only"
"""The arm whose pool has no OOD image; its last accuracy is that of a perfect purity step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsNeeded:
    """The labels that the seeds of a cell needed to reach a goal."""

    median: float
    """Labels bought, the initial set included, when the accuracy first reaches the goal; a seed that never does counts
    as infinite. NaN without a seed."""
    num_reached: int
    num_seeds: int
    """Finished seeds whose ID-only run is finished too."""
    most: int
    """Labels that a seed has bought at the end, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSpent:
    """The time of the finished rounds of a data set and strategy."""

    seconds_a_query: Estimate
    """Estimate over trials, from the mean of each trial's queries."""
    seconds_a_training: Estimate
    hours: float
    """Hours of all rounds together."""
    gpu_hours: float
    """Hours times the share of a GPU that each trial had; NaN if a record does not state it."""


def id_only_accuracies(trials: pd.DataFrame) -> dict[tuple[str, float, int], float]:
    """(data set, mismatch ratio, seed) -> last accuracy of the finished ID-only trial."""
    rows = trials[(trials["arm"] == ID_ONLY) & (trials["status"] == "finished")]
    return {
        (str(dataset), float(mismatch_ratio), int(seed)): float(accuracy)
        for dataset, mismatch_ratio, seed, accuracy in rows[
            ["dataset", "mismatch_ratio", "seed", "last_accuracy"]
        ].itertuples(index=False)
    }


def labels_needed(trials: pd.DataFrame, rounds: pd.DataFrame, share: float) -> dict[CellKey, LabelsNeeded]:
    """For each cell with OOD images: the labels needed to reach `share` of the ID-only accuracy, seed by seed.

    Only finished trials whose ID-only trial (`id_only_accuracies`) is finished count. Nothing is interpolated between
    rounds.
    """
    goals = id_only_accuracies(trials)
    finished = set(trials.loc[trials["status"] == "finished", "fingerprint"])
    needed: dict[CellKey, list[float]] = {}
    most: dict[CellKey, int] = {}
    chosen = rounds[rounds["fingerprint"].isin(finished) & (rounds["ood_ratio"] > 0)]
    for group, rows in chosen.groupby([*CellKey._fields, "seed"], sort=False):
        assert isinstance(group, tuple)
        key, seed = cell_key(group[:-1]), int(str(group[-1]))
        goal = goals.get((key.dataset, key.mismatch_ratio, seed))
        if goal is None:
            continue
        labels = rows["num_id"] + rows["num_ood"]
        reached = labels[rows["accuracy"] >= share * goal]
        needed.setdefault(key, []).append(float(reached.min()) if len(reached) else math.inf)
        most[key] = max(most.get(key, 0), int(labels.max()))
    return {
        key: LabelsNeeded(
            median=_median(values),
            num_reached=sum(map(math.isfinite, values)),
            num_seeds=len(values),
            most=most[key],
        )
        for key, values in needed.items()
    }


def time_spent(rounds: pd.DataFrame, details: Details) -> dict[tuple[str, str], TimeSpent]:
    """(data set, strategy) -> time of all finished rounds, in finished trials and in others."""
    spent = {}
    for group, rows in rounds.groupby(["dataset", "arm"], sort=False):
        assert isinstance(group, tuple)
        by_trial = rows.groupby("fingerprint", sort=False)
        seconds = by_trial[["seconds_train", "seconds_evaluate", "seconds_query"]].sum().sum(axis=1)
        queries = rows[rows["round"] > 0].groupby("fingerprint", sort=False)["seconds_query"].mean()
        shares = {fingerprint: _gpu_share(details, str(fingerprint)) for fingerprint in seconds.index}
        spent[str(group[0]), str(group[1])] = TimeSpent(
            seconds_a_query=estimate(queries.tolist()),
            seconds_a_training=estimate(by_trial["seconds_train"].mean().tolist()),
            hours=float(seconds.sum()) / 3600,
            gpu_hours=sum(seconds[fingerprint] * share for fingerprint, share in shares.items()) / 3600,
        )
    return spent


def _gpu_share(details: Details, fingerprint: str) -> float:
    """The share of a GPU that a trial had; NaN if its records do not state it."""
    environments = details[fingerprint].environments if fingerprint in details else ()
    shares = [float(environment["gpus"]) for environment in environments if "gpus" in environment]
    return shares[-1] if len(shares) == len(environments) and shares else math.nan


def _median(values: list[float]) -> float:
    """Median of numbers, some of which may be infinite: infinite unless the middle two are finite."""
    return statistics.median(values) if values else math.nan


def wasted_labels(trials: pd.DataFrame) -> Mapping[CellKey, Estimate]:
    """OOD images among all labels of a trial, the initial set included, for each cell with OOD images."""
    return estimate_cells(trials[trials["ood_ratio"] > 0], "num_wasted")
