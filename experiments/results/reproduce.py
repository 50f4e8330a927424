"""The command line that runs one trial again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from data.splits.named import write_names
from experiments.presets import PRESETS
from models.classifier.recipe import RECIPES
from orchestrator.settings.grid import GridConfig, Nested, load_preset, merge, parse_overrides, read_yaml
from orchestrator.settings.trial import TrialConfig, flat

AXES = ("dataset", "mismatch_ratio", "id_classes", "ood_ratio", "strategy", "seed")
FLAGS = {"rounds": "--rounds", "budget": "--budget", "data_root": "--data-root", "on_bad_image": "--on-bad-image"}
"""Settings for which trial.py has a flag; the others go through --set."""


def trial_command(trial: TrialConfig) -> str:
    """The `python experiments/trial.py ...` that runs `trial` in this process, as a shell reads it.

    It names the axes, the nearest preset, and every setting that the trial reads and that differs from the preset: the
    trial of that line has the same fingerprint. Raises ValueError for a trial that no preset leads to.
    """
    values = {name: getattr(trial, name) for name in AXES}
    if trial.id_classes is not None:
        values["id_classes"] = write_names(trial.id_classes)
    axes = [
        word
        for name, value in values.items()
        if value is not None
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    words = _setting_words(trial.dataset, json.dumps(_wanted(trial), sort_keys=True))
    return shlex.join(["python", "experiments/trial.py", *axes, *words])


def _wanted(trial: TrialConfig) -> Nested:
    """The settings of a trial without its axes: those that its numbers depend on, and those of trial.py's flags."""
    read = {path: value for path, value in trial.settings_read().items() if path not in AXES}
    return read | trial.model_dump(mode="json", include=set(FLAGS))


# Cached: the trials of a grid differ in little but their axes.
@lru_cache(maxsize=256)
def _setting_words(dataset: str, settings_text: str) -> tuple[str, ...]:
    """The words of --preset and of the settings that differ from it, as few as possible."""
    settings = json.loads(settings_text)
    best: tuple[str, ...] | None = None
    for words, reached in _candidates(dataset, settings):
        # Tried only if it would be shorter: reading the settings of all candidates took a fifth of a report's time.
        if best is not None and len(words) >= len(best):
            continue
        settings_reached = reached()
        if settings_reached is not None and not any(_differences(settings_reached, settings)):
            best = words
        if len(words) == 2:  # nothing differs
            break
    if best is None:
        raise ValueError(f"no preset leads to these settings: {settings_text}")
    return best


def _candidates(
    dataset: str, settings: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, ...], Callable[[], Nested | None]]]:
    """Words that may lead to `settings`, from each preset with its own recipe, each named recipe, and no recipe.

    With each, a function that gives the settings they lead to. Presets made for the data set come first.
    """
    for preset in _presets_for(dataset):
        # A detection trial is refused for a strategy without purity step.
        strategy = "vlpure" if "detection.labels" in settings else "random"
        for recipe in (None, *RECIPES, "null"):  # null: no recipe, so that steps and passes can both be given
            start = () if recipe is None else (f"recipe.name={recipe}",)
            base = _base(dataset, preset, strategy, start)
            if base is None:
                continue
            flags, assignments = _differences(base, settings)
            sets = [word for assignment in (*start, *assignments) for word in ("--set", assignment)]
            given = [word for name, value in flags.items() for word in (FLAGS[name], str(value))]
            grid = _narrowed(dataset, preset, strategy)
            yield ("--preset", preset, *given, *sets), partial(_reached, grid, (*start, *assignments), flags)


def _reached(grid: GridConfig, assignments: Sequence[str], flags: Mapping[str, Any]) -> Nested | None:
    """The settings that the assignments and flags lead to; None if they are refused."""
    return _settings(grid, merge(parse_overrides(assignments), flags))


@lru_cache(maxsize=64)
def _presets_for(dataset: str) -> tuple[str, ...]:
    """The presets by name, those made for the data set first."""
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    return tuple(sorted(names, key=lambda name: dataset not in load_preset(PRESETS, name, {}, {}).datasets))


@lru_cache(maxsize=512)
def _base(dataset: str, preset: str, strategy: str, start: tuple[str, ...]) -> Nested | None:
    """The settings of a preset with those assignments; only to be read."""
    return _settings(_narrowed(dataset, preset, strategy), parse_overrides(list(start)))


@lru_cache(maxsize=64)
def _narrowed(dataset: str, preset: str, strategy: str) -> GridConfig:
    """A preset with a single trial of that strategy; its ratios and seed are arbitrary."""
    axes = {
        "datasets": (dataset,), "mismatch_ratios": (0.5,), "ood_ratios": (0.5,), "strategies": (strategy,),
        "seeds": (0,),
    }  # fmt: skip
    return load_preset(PRESETS, preset, axes, {})


def _settings(grid: GridConfig, overrides: Nested) -> Nested | None:
    """The settings that trial.py makes from a preset and overrides; None if it refuses them."""
    try:
        (trial,) = grid.trials(overrides)
    except ValueError:
        return None
    return flat(trial.model_dump(mode="json", exclude=set(AXES)))


def _differences(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The changes that turn `base` into `wanted`: those by flag, and those by --set."""
    flags: dict[str, Any] = {}
    assignments = []
    for path, value in wanted.items():
        if base.get(path, ...) == value:  # a section that is null in the base is one leaf
            continue
        if path in FLAGS and value is not None:
            flags[path] = value
        else:
            assignments.append(f"{path}={_yaml(value)}")
    return flags, assignments


def _yaml(value: Any) -> str:
    """A value as --set reads it back: texts without quotes if YAML takes them for texts."""
    return value if isinstance(value, str) and _is_text(value) else json.dumps(value)


@lru_cache(maxsize=1024)
def _is_text(value: str) -> bool:
    """Whether YAML takes the characters for a text without quotes."""
    try:
        return bool(read_yaml(f"value: {value}", origin="")["value"] == value)
    except ValueError:
        return False
