"""What a trajectory is judged by. Shapes: R rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.ledger.records import RoundRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSummary:
    """What a finished trial comes down to. Shares are in [0, 1]."""

    aubc: float
    aubc_paper: float
    last_accuracy: float
    mean_precision: float | None
    """Mean of Eq. 9 over the queries; None for a trial of one round, which has none."""


def summarise(records: Sequence[RoundRecord]) -> TrialSummary:
    """The summary of a trial's records, all of them, in order."""
    accuracies = [record.accuracy for record in records]
    precisions = [record.precision for record in records if record.precision is not None]
    return TrialSummary(
        aubc=aubc(accuracies),
        aubc_paper=aubc_paper(accuracies),
        last_accuracy=accuracies[-1],
        mean_precision=sum(precisions) / len(precisions) if precisions else None,
    )


def aubc(accuracies_R: Sequence[float]) -> float:
    """Area under the budget curve with unit width, in the unit of the accuracies: constant accuracy a gives a.

    The trapezoid sum over the rounds divided by R - 1 (P3). One round gives its accuracy.
    """
    if len(accuracies_R) == 1:
        return accuracies_R[0]
    return _trapezoid_sum(accuracies_R) / (len(accuracies_R) - 1)


def aubc_paper(accuracies_R: Sequence[float]) -> float:
    """The paper's rule: the same trapezoid sum divided by R, so that 10 perfect rounds give 0.9 (P3)."""
    return _trapezoid_sum(accuracies_R) / len(accuracies_R)


def query_precision(num_id: int, num_queried: int) -> float:
    """Share of ID images among those queried (Eq. 9)."""
    return num_id / num_queried


def cumulative_precision(first: RoundRecord, record: RoundRecord) -> float | None:
    """Share of ID images among all queried up to a round, of a trial whose round 0 is `first` (P4); None in round 0."""
    num_id, num_ood = record.num_id - first.num_id, record.num_ood - first.num_ood
    return query_precision(num_id, num_id + num_ood) if num_id + num_ood else None


def _trapezoid_sum(values: Sequence[float]) -> float:
    return sum((left + right) / 2 for left, right in pairwise(values))
