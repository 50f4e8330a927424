"""Records, which hold what one round produced, and the measures that a trajectory of them is judged by.

Shapes: R rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

DATA_NOTES = "data_notes"
"""Key of a record's environment with warnings about the images, if there are any (`data.deceptive`)."""

RECALL = "recall"
"""Key of a record's diagnostics with the share of all ID images that are labelled, of a trial with `initial_share`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """Everything known of one round of a trial; with its predecessors, enough to resume from there."""

    round: int
    """Number of the round; 0 is the training on the initial labels."""
    accuracy: float
    """Accuracy on the test images of the ID classes, in [0, 1], after this round's training."""
    precision: float | None
    """Share of ID images in the query that led here (Eq. 9); None in round 0."""
    num_id: int
    """Labelled ID images that the classifier was trained on."""
    num_ood: int
    """Labelled OOD images so far: labels wasted."""
    queried_idx: list[int]
    """The query that led here, in order of preference; empty in round 0."""
    diagnostics: Mapping[str, float | int | bool | None]
    """The strategy's numbers of that query, and the quality of its purity step measured by the oracle's side."""
    pool_checksum: str
    """SHA-256 of the three index sets, to check a pool rebuilt from the records."""
    seconds: Mapping[str, float]
    """Wall seconds per phase: query, train, evaluate."""
    peak_memory_mib: int
    """Peak memory of the process so far, in MiB."""
    environment: Mapping[str, str | int | float]
    """Hardware and versions, and under `gpus` the share of a GPU that the trial had."""
    time_ms: int
    """Time at which the round was finished, milliseconds since 1970; fixed here, so that mirrors can repeat it."""
    memory: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Numbers that the strategy learnt from the answers and needs for the next query (`LearningStrategy.learn`)."""

    service: Mapping[str, float] = field(default_factory=dict)
    """Figures of the purity request of that query (`RequestFigures`); empty without one."""
    purity: list[float] = field(default_factory=list)
    """ID minus OOD score of each image of `queried_idx`, rounded, for people who look at the images; empty without a
    purity step, and in records of earlier versions."""

    def numbers(self) -> dict[str, Any]:
        """Values that must be equal when a round is repeated: all but time, machine, service and purity."""
        everything = asdict(self)
        # Not purity: records of earlier versions lack it, and are equal all the same.
        for name in ("seconds", "peak_memory_mib", "environment", "time_ms", "service", "purity"):
            del everything[name]
        return everything

    @property
    def logit_scale(self) -> float | None:
        """Logit scale of the purity step of the query that led here; None without one."""
        return self.diagnostics.get("logit_scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSummary:
    """Summary of a finished trial. Shares are in [0, 1]."""

    aubc: float
    aubc_paper: float
    last_accuracy: float
    mean_precision: float | None
    """Mean of Eq. 9 over the queries; None for a trial of one round, which has none."""


def summarise(records: Sequence[RoundRecord]) -> TrialSummary:
    """Summarise all records of a trial, in order."""
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

    The trapezoid sum over the rounds divided by R - 1. One round gives its accuracy.
    """
    if len(accuracies_R) == 1:
        return accuracies_R[0]
    return _trapezoid_sum(accuracies_R) / (len(accuracies_R) - 1)


def aubc_paper(accuracies_R: Sequence[float]) -> float:
    """Area under the budget curve by the paper's rule, the sum divided by R: 10 perfect rounds give 0.9."""
    return _trapezoid_sum(accuracies_R) / len(accuracies_R)


def query_precision(num_id: int, num_queried: int) -> float:
    """Share of ID images among those queried (Eq. 9)."""
    return num_id / num_queried


def cumulative_precision(first: RoundRecord, record: RoundRecord) -> float | None:
    """Share of ID images among all queried up to a round, of a trial whose round 0 is `first`; None in round 0."""
    num_id, num_ood = record.num_id - first.num_id, record.num_ood - first.num_ood
    return query_precision(num_id, num_id + num_ood) if num_id + num_ood else None


def _trapezoid_sum(values: Sequence[float]) -> float:
    return sum((left + right) / 2 for left, right in pairwise(values))
