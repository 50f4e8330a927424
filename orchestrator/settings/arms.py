"""Arms: the rows of a table. An arm is a strategy with settings on top, under a name of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.settings.trial import TrialConfig
from strategies.registry import STRATEGIES, find_strategy

FIXED = ("dataset", "mismatch_ratio", "seed")
"""What an arm cannot set: these join it to the other arms of a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmTrial:
    """A trial as an arm's. The trial itself knows nothing of it: equal settings are one trial, in whatever arm."""

    arm: str
    trial: TrialConfig


def check_arm(name: str, settings: Mapping[str, Any]) -> None:
    """Raises ValueError for an arm without strategy, with settings that are not an arm's, or a strategy's name."""
    if not isinstance(settings.get("strategy"), str):
        raise ValueError(f"arms.{name}: an arm needs a strategy, and may have settings of a trial beside it")
    for field in FIXED:
        if field in settings:
            raise ValueError(f"arms.{name}.{field}: an arm cannot set it; it comes from the grid")
    if name in STRATEGIES:
        raise ValueError(f"arms.{name}: a strategy has that name; call the arm otherwise")
    if "," in name:
        raise ValueError(f"arms.{name}: a comma separates names on the command line; leave it out")


def settings_of(name: str, arms: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The settings of the arm of that name; a strategy is an arm by itself.

    Raises ValueError for a name that is neither, with the nearest known one.
    """
    if name in arms:
        return arms[name]
    find_strategy(name, others=arms)
    return {"strategy": name}
