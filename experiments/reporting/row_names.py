"""Names for the rows of a report made of records alone, which know settings, not always what a table called them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from models.recipes import named_recipe
from orchestrator.config import TrialConfig
from orchestrator.plan import PlannedTrial
from strategies.registry import find_strategy

Nested = Mapping[str, Any]
AXES = ("dataset", "mismatch_ratio", "ood_ratio", "strategy", "seed")
OF_NO_NUMBER = ("rounds", "data_root", "on_bad_image")
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
    variants = [json.dumps(dict(_settings_read(trial))) for trial in trials]
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
    settings = trial.model_dump(mode="json")
    stated = {name: dict(_leaves(_expanded(arm))) for name, arm in arms.items()}
    fitting = [
        name
        for name, leaves in stated.items()
        if leaves["strategy"] == trial.strategy and all(_at(settings, path) == value for path, value in leaves.items())
    ]
    return max(fitting, key=lambda name: len(stated[name]), default=trial.strategy)


def _expanded(arm: Nested) -> Nested:
    """An arm's settings with its recipe's name replaced by what the recipe says."""
    return {**arm, "recipe": named_recipe(arm["recipe"])} if "recipe" in arm else arm


def _settings_read(trial: TrialConfig) -> Iterator[tuple[str, Any]]:
    """The settings that change the trial's numbers, beside its axes."""
    sections = find_strategy(trial.strategy).sections
    for path, value in _leaves(trial.model_dump(mode="json", exclude=set(AXES) | set(OF_NO_NUMBER))):
        section, _, rest = path.partition(".")
        if section == "options" and rest.partition(".")[0] not in sections:
            continue
        if (section == "purity" and not trial.uses_purity) or (section == "clipn" and not trial.uses_clipn):
            continue
        yield path, value


def _difference(usual: Nested, settings: Nested) -> str:
    """What differs, as `--set` would say it."""
    differing = [f"{path}={_text(value)}" for path, value in settings.items() if usual.get(path, ...) != value]
    more = len(differing) - MOST_DIFFERENCES
    return ", ".join(differing[:MOST_DIFFERENCES] + ([f"and {more} more"] if more > 0 else []))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _leaves(settings: Nested, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(value) if isinstance(value, tuple) else value


def _at(settings: Nested, path: str) -> Any:
    value: Any = settings
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
