"""The values of Table 9: each detector's AUROC as labels are bought, and where one crosses another, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.results.statistics import CellKey, Condition, Estimate, cell_key, estimate, sorted_conditions

if TYPE_CHECKING:
    import pandas as pd

FEWEST_AXIS = 1
"""Number added to the labels before their logarithm is taken, so that a stage without labels has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """The number of labels from which on one detector stays ahead of another, in a condition."""

    condition: Condition
    labels: Estimate
    """Natural logarithm of the labels plus `FEWEST_AXIS`, over the seeds that have a crossing; planned: all seeds."""
    num_always: int
    """Seeds in which it is ahead at every stage."""
    num_never: int
    """Seeds in which it is not ahead at the last stage."""

    def text(self) -> str:
        """The labels with their 95 % interval, and the seeds without a crossing."""
        value = self.labels
        parts = []
        if value.num_seeds:
            middle, half = value.mean, value.half_width
            interval = "" if math.isnan(half) else f" ({_labels(middle - half)} to {_labels(middle + half)})"
            parts.append(f"{_labels(middle)}{interval}")
        parts += [f"ahead from the start in {self.num_always}"] if self.num_always else []
        parts += [f"never ahead for good in {self.num_never}"] if self.num_never else []
        return f"{', '.join(parts) or 'not known'} of {value.num_planned} seeds"


def _labels(logarithm: float) -> str:
    return f"{max(0.0, math.exp(logarithm) - FEWEST_AXIS):.3g}"


def stage_estimates(stages: pd.DataFrame, metric: str) -> dict[tuple[CellKey, int], Estimate]:
    """The mean of `metric` over seeds, at each number of labels of each cell of the frame of stages.

    A seed that has not reached a stage is missing there.
    """
    estimates = {}
    for cell, rows in stages.groupby(list(CellKey._fields), sort=False):
        num_planned = rows["seed"].nunique()
        for labels, of_stage in rows.groupby("labels"):
            estimates[cell_key(cell), int(str(labels))] = estimate(of_stage[metric], num_planned=num_planned)
    return estimates


def crossings(stages: pd.DataFrame, *, ahead: str, of: str) -> list[Crossing]:
    """The number of labels from which on the row `ahead` has a higher AUROC than the row `of`, per condition.

    In a seed it crosses between the last stage at which it is not ahead and the next; the point between them is where
    the two straight lines through the AUROCs meet, over the logarithm of labels plus one. Conditions without both rows
    are omitted.
    """
    found = []
    for condition in sorted_conditions(cell for cell, _ in stage_estimates(stages, "auroc")):
        rows = stages[(stages[list(Condition._fields)] == list(condition)).all(axis=1)]
        table = rows.pivot_table(index=["seed", "labels"], columns="arm", values="auroc")
        if ahead not in table or of not in table:
            continue
        points, always, never = [], 0, 0
        seeds = sorted(set(rows["seed"]))
        for seed in seeds:
            pairs = table.xs(seed, level="seed")[[ahead, of]].dropna()
            lead = (pairs[ahead] - pairs[of]).tolist()
            places = [math.log(float(str(labels)) + FEWEST_AXIS) for labels in pairs.index]
            place = crossing_place(places, lead)
            points += [place] if place is not None else []
            always += bool(lead) and all(each > 0 for each in lead)
            never += bool(lead) and lead[-1] <= 0
        found.append(
            Crossing(
                condition=condition,
                labels=estimate(points, num_planned=len(seeds)),
                num_always=always,
                num_never=never,
            )
        )
    return found


def crossing_place(places: Sequence[float], lead: Sequence[float]) -> float | None:
    """The place, between `places`, from which on `lead` stays above 0; None if it always was above, or ends below."""
    behind = [number for number, each in enumerate(lead) if each <= 0]
    if not behind or behind[-1] == len(lead) - 1:
        return None
    last = behind[-1]
    share = -lead[last] / (lead[last + 1] - lead[last])
    return places[last] + share * (places[last + 1] - places[last])
