"""Names for the rows of a report made of records alone, which know settings, not always what a table called them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from models.classifier.recipes import named_recipe
from orchestrator.plan import PlannedTrial
from orchestrator.settings.trial import TrialConfig, flat
from orchestrator.tracking.content import as_text

Nested = Mapping[str, Any]
AXES = ("dataset", "mismatch_ratio", "ood_ratio", "strategy", "seed")
MOST_DIFFERENCES = 3
"""Settings that a name lists."""


def row_names(planned: Sequence[PlannedTrial], arms: Mapping[str, Nested]) -> list[str]:
    """A name for each trial: of the arm that it was planned for, else of one that states its settings, else the
    strategy's.

    Of several that state them the one that states most. Trials of one data set and name whose settings differ all the
    same get what differs from the most frequent settings behind the name: `vlpure (purity.fixed_scale=5.0)`.
    """
    trials = [each.trial for each in planned]
    names = [each.arm or _arm_name(each.trial, arms) for each in planned]
    variants = [
        json.dumps({path: value for path, value in trial.settings_read().items() if path not in AXES})
        for trial in trials
    ]
    counts: dict[tuple[str, str], Counter[str]] = {}
    for trial, name, variant in zip(trials, names, variants, strict=True):
        counts.setdefault((trial.dataset, name), Counter())[variant] += 1
    full_names = []
    for trial, name, variant in zip(trials, names, variants, strict=True):
        usual = counts[trial.dataset, name].most_common(1)[0][0]
        differing = "" if variant == usual else f" ({_difference(json.loads(usual), json.loads(variant))})"
        full_names.append(name + differing)
    return full_names


def _arm_name(trial: TrialConfig, arms: Mapping[str, Nested]) -> str:
    settings = flat(trial.model_dump(mode="json"))
    stated = {name: _stated(arm) for name, arm in arms.items()}
    fitting = [
        name
        for name, leaves in stated.items()
        if leaves["strategy"] == trial.strategy and all(settings.get(path) == value for path, value in leaves.items())
    ]
    return max(fitting, key=lambda name: len(stated[name]), default=trial.strategy)


def _stated(arm: Nested) -> Nested:
    """What an arm says, its recipe's name replaced by what the recipe says; lists, as in JSON."""
    expanded = {**arm, "recipe": named_recipe(arm["recipe"])} if "recipe" in arm else arm
    return {path: list(value) if isinstance(value, tuple) else value for path, value in flat(expanded).items()}


def _difference(usual: Nested, settings: Nested) -> str:
    """What differs, as `--set` would say it."""
    differing = [f"{path}={as_text(value)}" for path, value in settings.items() if usual.get(path, ...) != value]
    more = len(differing) - MOST_DIFFERENCES
    return ", ".join(differing[:MOST_DIFFERENCES] + ([f"and {more} more"] if more > 0 else []))
