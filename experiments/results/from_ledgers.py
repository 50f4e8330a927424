"""The trials of run folders, read from their ledgers alone, and the names of the rows that they form.

A ledger knows the settings of a trial, but not always what a table called it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from experiments.results.statistics import CellKey, Condition, condition_of
from models.classifier.recipe import named_recipe
from orchestrator.launch import last_launch, launched_commands
from orchestrator.ledger.ledger import Ledger, TrajectoryState
from orchestrator.ledger.output import OutputFolder
from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial
from orchestrator.settings.reading import read_trial
from orchestrator.settings.trial import TrialConfig, flat
from orchestrator.tracking.content import as_text
from strategies.purity.contract import recorded
from strategies.registry import STRATEGIES

MOST_NAMED = 5
"""Most conflicting trials that are named one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTrials:
    """The trials that were found in records."""

    planned: list[PlannedTrial]
    """Each trial once, or once for each row of a table that it is known to have been run for."""
    lines: list[str]
    """Warnings: records that do not agree, or are not known."""
    by_command: Mapping[str, frozenset[tuple[str, str]]] = field(default_factory=dict)
    """Command (table7) -> fingerprint and row of the trials of its last launch."""


def trials_of_ledgers(folders: Sequence[Path]) -> FoundTrials:
    """Read the trials from the ledgers of run folders.

    A trial (by fingerprint) that several folders have is taken from the one with most rounds. If their common rounds
    differ, the first folder's is taken and a line names it. Trials that never started are in no ledger. Raises
    ValueError for a folder without a ledger, for one without a trial, and for a state file that cannot be read.
    """
    chosen: dict[str, tuple[Path, PlannedTrial]] = {}
    conflicts = []
    for folder in folders:
        for planned in _trials_of(folder):
            first, known = chosen.setdefault(planned.fingerprint, (folder, planned))
            if known is planned:
                continue
            differing = _first_difference(known.records, planned.records)
            if differing is not None:
                conflicts.append(
                    f"{planned.trial.label}: round {differing} in {folder} has other numbers than in {first}; "
                    f"those of {first} are used"
                )
            elif len(planned.records) > len(known.records):
                chosen[planned.fingerprint] = (folder, planned)
    more = len(conflicts) - MOST_NAMED
    lines = conflicts[:MOST_NAMED] + ([f"and {more} more trials whose records differ"] if more > 0 else [])
    by_command: dict[str, frozenset[tuple[str, str]]] = {}
    for folder in folders:
        try:
            launched = _launched(folder)
        except ValueError as error:
            lines.append(f"{error}; its tables and the names of their rows are guessed from the settings")
            continue
        for command, trials in launched.items():
            by_command[command] = by_command.get(command, frozenset()) | trials
    rows: dict[str, set[str]] = {}
    for fingerprint, row in (trial for command in by_command.values() for trial in command):
        rows.setdefault(fingerprint, set()).add(row)
    by_row = [replace(each, arm=row) for _, each in chosen.values() for row in rows.get(each.fingerprint, ("",))]
    return FoundTrials(planned=in_order(by_row), lines=lines, by_command=by_command)


def _launched(folder: Path) -> dict[str, frozenset[tuple[str, str]]]:
    """Command -> fingerprint and row of the trials of its last launch in a folder, as far as they were kept."""
    output = OutputFolder(path=folder, grid_id=None)
    launched = {}
    for command in launched_commands(output):
        launch = last_launch(output, command)
        assert launch is not None, "a launch file went away"
        launched[command] = frozenset((trial.fingerprint, row) for trial in launch.trials for row in trial.rows)
    return launched


def in_order(planned: Sequence[PlannedTrial]) -> list[PlannedTrial]:
    """Sort trials by data set, ratios, strategy (in the registry's order), row and seed."""
    places = {name: place for place, name in enumerate(STRATEGIES)}

    def key(each: PlannedTrial) -> tuple[str, float, float, int, str, str, int, str]:
        trial = each.trial
        place = places.get(trial.strategy, len(places))
        return (*condition_of(trial), place, trial.strategy, each.row, trial.seed, each.fingerprint)

    # Sorted, so that equal trials give equal reports in whatever order the folders are named.
    return sorted(planned, key=key)


def with_missing_seeds(planned: Sequence[PlannedTrial]) -> list[PlannedTrial]:
    """The trials, and one without rounds for each seed that only other rows of the condition have.

    `planned` have the names of their rows.
    """
    seeds: dict[Condition, set[int]] = {}
    cells: dict[CellKey, dict[int, PlannedTrial]] = {}
    for each in planned:
        key = cell_of(each)
        seeds.setdefault(key.condition, set()).add(each.trial.seed)
        cells.setdefault(key, {})[each.trial.seed] = each
    return [
        by_seed.get(seed) or _missing(next(iter(by_seed.values())), seed)
        for key, by_seed in cells.items()
        for seed in sorted(seeds[key.condition])
    ]


def cell_of(planned: PlannedTrial) -> CellKey:
    """The cell of a trial in tables."""
    return CellKey(*condition_of(planned.trial), planned.row)


def _missing(some: PlannedTrial, seed: int) -> PlannedTrial:
    trial = some.trial.model_copy(update={"seed": seed})
    return replace(some, trial=trial, fingerprint=f"not started: {some.row}, {trial.label}", records=(), error=None)


def _trials_of(folder: Path) -> list[PlannedTrial]:
    ledger = Ledger(folder / "ledger")
    if not ledger.folder.is_dir():
        raise ValueError(f"{folder} has no ledger; name the output folder of a grid (--output-dir of its command)")
    planned = [_as_planned(folder, state) for state in ledger.states()]
    if not planned:
        raise ValueError(f"{folder} has no trial in its ledger yet")
    return planned


def _as_planned(folder: Path, state: TrajectoryState) -> PlannedTrial:
    try:
        trial = read_trial(**recorded(state.trial))
    except ValueError as error:
        raise ValueError(
            f"{folder / 'ledger' / state.fingerprint}.json: its settings do not fit this version ({error})"
        ) from None
    # A trial that was given more rounds later keeps the settings of its first.
    rounds = max(trial.rounds, len(state.records))
    return PlannedTrial(
        trial=trial.model_copy(update={"rounds": rounds}),
        fingerprint=state.fingerprint,
        data_fingerprint="",
        records=state.records,
        error=state.error,
    )


def _first_difference(first: Sequence[RoundRecord], second: Sequence[RoundRecord]) -> int | None:
    """The first common round whose numbers differ; None if all agree."""
    for one, other in zip(first, second, strict=False):
        if one.numbers() != other.numbers():
            return one.round
    return None


Nested = Mapping[str, Any]
AXES = ("dataset", "mismatch_ratio", "id_classes", "ood_ratio", "strategy", "seed")
MOST_DIFFERENCES = 3
"""Most settings that a name lists."""


def row_names(planned: Sequence[PlannedTrial], arms: Mapping[str, Nested]) -> list[str]:
    """A name for each trial: its planned arm, else an arm that states its settings, else its strategy.

    Of several arms, the one that states most is taken. If trials of one data set and name still differ in settings,
    the differences from the most frequent settings are added to the name: `vlpure (purity.fixed_scale=5.0)`.
    """
    trials = [each.trial for each in planned]
    names = [each.arm or _arm_name(each.trial, arms) for each in planned]
    variants = [
        json.dumps({path: value for path, value in trial.settings_read().items() if path not in AXES})
        for trial in trials
    ]
    counts: dict[tuple[str, str], Counter[str]] = {}
    for trial, name, variant in zip(trials, names, variants, strict=True):
        counts.setdefault((condition_of(trial).dataset, name), Counter())[variant] += 1
    full_names = []
    for trial, name, variant in zip(trials, names, variants, strict=True):
        usual = counts[condition_of(trial).dataset, name].most_common(1)[0][0]
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
    """The settings that an arm states, with its recipe's name replaced by the recipe's settings; lists, as in JSON."""
    expanded = {**arm, "recipe": named_recipe(arm["recipe"])} if "recipe" in arm else arm
    return {path: list(value) if isinstance(value, tuple) else value for path, value in flat(expanded).items()}


def _difference(usual: Nested, settings: Nested) -> str:
    """The differing settings, as `--set` takes them."""
    differing = [f"{path}={as_text(value)}" for path, value in settings.items() if usual.get(path, ...) != value]
    more = len(differing) - MOST_DIFFERENCES
    return ", ".join(differing[:MOST_DIFFERENCES] + ([f"and {more} more"] if more > 0 else []))
