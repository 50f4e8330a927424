"""Trials and times in words, for people who read a ledger."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from orchestrator.settings.trial import TrialConfig


def describe_trial(settings: Mapping[str, Any]) -> str:
    """Short line for a trial as the ledger keeps it, even if this version does not know its settings."""
    names = ("dataset", "mismatch_ratio", "ood_ratio", "strategy", "seed")
    known = {name: settings[name] for name in (*names, "id_classes", "num_id_classes") if name in settings}
    try:
        return TrialConfig.model_construct(**known).label
    except (AttributeError, TypeError, ValueError):
        return " ".join(str(settings.get(name, "?")) for name in names)


def clock(time_ms: int) -> str:
    """Time of a record on the wall clock of this machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ms / 1000))
