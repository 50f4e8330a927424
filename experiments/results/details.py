"""The details of single trials in a report: how to run one again, why it failed, and where it ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.plan import PlannedTrial


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialDetails:
    """The facts about a trial that are not in its row of the frames."""

    command: str | None = None
    """The command that runs it again; None if its settings are not known."""
    error: str | None = None
    """The reason of its failure; None if it did not fail."""
    environments: tuple[Mapping[str, Any], ...] = ()
    """Hardware and versions, each once, in the order of the rounds (`RoundRecord.environment`)."""
    last_time_ms: int | None = None
    """Time of its last finished round, milliseconds since 1970."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """All its settings, nested, as the ledger keeps them."""


Details = Mapping[str, TrialDetails]
"""Fingerprint -> details."""


def details_of(planned: Sequence[PlannedTrial]) -> dict[str, TrialDetails]:
    """The details of planned trials, from their settings and records."""
    from experiments.results.reproduce import trial_command

    return {
        p.fingerprint: TrialDetails(
            command=trial_command(p.trial),
            error=None if p.is_finished else p.error,
            environments=_distinct([record.environment for record in p.records]),
            last_time_ms=p.records[-1].time_ms if p.records else None,
            settings=p.trial.model_dump(mode="json"),
        )
        for p in planned
    }


def _distinct(environments: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    kept: list[Mapping[str, Any]] = []
    for environment in environments:
        if environment not in kept:
            kept.append(environment)
    return tuple(kept)
