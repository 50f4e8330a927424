"""What a round costs, as measured by the rounds that a ledger holds."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial

Basis = Literal["measured", "other trials"]
"""Rounds of the same data set, strategy and recipe; or of the same recipe with another strategy or data set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds a round, of one trial after another."""

    seconds: float
    basis: Basis


class RoundCosts:
    """Means over the rounds that were added; round 0, which queries nothing and is shared, apart from the others."""

    def __init__(self) -> None:
        self._sums: defaultdict[tuple[str, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.devices: set[str] = set()
        """What the rounds were measured on."""

    def add(self, settings: Mapping[str, Any], records: Iterable[RoundRecord]) -> None:
        """Count some rounds of a trial, whose settings are as the ledger keeps them."""
        keys = _keys(settings)
        for record in records:
            seconds = sum(record.seconds.values())
            if seconds <= 0:
                continue  # a round that cost nothing was not computed
            self.devices.add(_device(record.environment))
            for key in keys:
                count = self._sums[(*key, _kind(record.round))]
                count[0] += seconds
                count[1] += 1

    def of_round(self, settings: Mapping[str, Any], round_number: int) -> Cost | None:
        """What a round of a trial is likely to take; None where nothing like it was measured."""
        for key, basis in zip(_keys(settings), ("measured", "other trials", "other trials"), strict=True):
            total, number = self._sums.get((*key, _kind(round_number)), (0.0, 0.0))
            if number:
                return Cost(seconds=total / number, basis=basis)  # type: ignore[arg-type]
        return None

    def left(self, planned: PlannedTrial) -> list[Cost | None]:
        """What each round that a trial has not finished is likely to take."""
        settings = planned.trial.model_dump(mode="json")
        first, later = (self.of_round(settings, number) for number in (0, 1))
        return [later if number else first for number in range(len(planned.records), planned.trial.rounds)]


def _kind(round_number: int) -> str:
    return "later" if round_number else "first"


def _keys(settings: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """From the trials most like this one to those that share its recipe only."""
    recipe = json.dumps(settings.get("recipe"), sort_keys=True)
    dataset, strategy = str(settings.get("dataset")), str(settings.get("strategy"))
    return (dataset, strategy, recipe), (dataset, recipe), (recipe,)


def _device(environment: Mapping[str, str | int | float]) -> str:
    return f"{environment.get('device', 'an unknown device')}, {environment.get('threads', '?')} thread(s)"
