"""Records: what one round produced, as it is kept in the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """All that is known of one round of a trial. Enough, with its predecessors, to go on from there."""

    round: int
    """0 for the training on the initial labels."""
    accuracy: float
    """On the test images of the ID classes, in [0, 1], after this round's training."""
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
    """Of the three index sets, to check a pool rebuilt from the records."""
    seconds: Mapping[str, float]
    """Wall seconds a phase: query, train, evaluate."""
    peak_memory_mib: int
    """Most memory of the process so far."""
    environment: Mapping[str, str | int | float]
    """Hardware and versions, and under `gpus` the share of a GPU that the trial had."""
    time_ms: int
    """When the round was finished, milliseconds since 1970; fixed here, so that mirrors can repeat it."""
    memory: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """What the strategy learnt from the answers to that query and needs for the next (`LearningStrategy.learn`)."""

    service: Mapping[str, float] = field(default_factory=dict)
    """What the purity request of that query took (`RequestFigures`); empty without one."""

    def numbers(self) -> dict[str, Any]:
        """What must be equal when a round is repeated: everything but time, machine and service."""
        everything = asdict(self)
        for name in ("seconds", "peak_memory_mib", "environment", "time_ms", "service"):
            del everything[name]
        return everything

    @property
    def logit_scale(self) -> float | None:
        """The logit scale of the purity step of the query that led here; None without one."""
        return self.diagnostics.get("logit_scale")
