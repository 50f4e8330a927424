"""The trials of run folders, read from their ledgers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.reporting.statistics import CellKey, Condition
from orchestrator.config import make_trial
from orchestrator.ledger import Ledger, TrajectoryState
from orchestrator.plan import PlannedTrial
from orchestrator.records import RoundRecord
from strategies.registry import STRATEGIES

MOST_NAMED = 5
"""Conflicting trials that are named one by one."""


def trials_of_ledgers(folders: Sequence[Path]) -> tuple[list[PlannedTrial], list[str]]:
    """The trials that the ledgers of run folders hold, each once, and lines on what does not agree.

    A trial (by fingerprint) that several folders have is taken from the one with most rounds. Where their common rounds
    differ, the first folder's is taken and a line names it. Trials that never began are in no ledger. Raises ValueError
    for a folder without a ledger, for one without a trial, and for a state file that cannot be read.
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
                    f"{first}'s count"
                )
            elif len(planned.records) > len(known.records):
                chosen[planned.fingerprint] = (folder, planned)
    more = len(conflicts) - MOST_NAMED
    lines = conflicts[:MOST_NAMED] + ([f"and {more} more trials whose records differ"] if more > 0 else [])
    return in_order([planned for _, planned in chosen.values()]), lines


def in_order(planned: Sequence[PlannedTrial]) -> list[PlannedTrial]:
    """By data set, ratios, strategy (as the registry has them) and seed: equal trials give equal reports."""
    places = {name: place for place, name in enumerate(STRATEGIES)}

    def key(each: PlannedTrial) -> tuple[str, float, float, int, str, int, str]:
        trial = each.trial
        place = places.get(trial.strategy, len(places))
        condition = (trial.dataset, float(trial.mismatch_ratio), float(trial.ood_ratio))
        return (*condition, place, trial.strategy, trial.seed, each.fingerprint)

    return sorted(planned, key=key)


def with_missing_seeds(planned: Sequence[PlannedTrial], rows: Sequence[str]) -> tuple[list[PlannedTrial], list[str]]:
    """The trials and their rows' names, with a trial without rounds for each seed that only other rows of a condition
    have: those are what a reader would miss."""
    seeds: dict[Condition, set[int]] = {}
    cells: dict[CellKey, dict[int, PlannedTrial]] = {}
    for each, row in zip(planned, rows, strict=True):
        trial = each.trial
        key = CellKey(trial.dataset, float(trial.mismatch_ratio), float(trial.ood_ratio), row)
        seeds.setdefault(key.condition, set()).add(trial.seed)
        cells.setdefault(key, {})[trial.seed] = each
    whole, names = [], []
    for key, by_seed in cells.items():
        some = next(iter(by_seed.values()))
        for seed in sorted(seeds[key.condition]):
            whole.append(by_seed.get(seed) or _missing(some, key.strategy, seed))
            names.append(key.strategy)
    return whole, names


def _missing(some: PlannedTrial, row: str, seed: int) -> PlannedTrial:
    trial = some.trial.model_copy(update={"seed": seed})
    return replace(some, trial=trial, fingerprint=f"not begun: {row}, {trial.label}", records=(), error=None)


def _trials_of(folder: Path) -> list[PlannedTrial]:
    ledger = Ledger(folder / "ledger")
    if not ledger.folder.is_dir():
        raise ValueError(f"{folder} has no ledger; give the output folder of a grid (--output-dir of its command)")
    planned = [_as_planned(folder, state) for state in ledger.states()]
    if not planned:
        raise ValueError(f"{folder} has no trial in its ledger yet")
    return planned


def _as_planned(folder: Path, state: TrajectoryState) -> PlannedTrial:
    try:
        trial = make_trial(**state.trial)
    except ValueError as error:
        raise ValueError(
            f"{folder / 'ledger' / state.fingerprint}.json: its settings are not this version's ({error})"
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
    """The first common round whose numbers differ."""
    for one, other in zip(first, second, strict=False):
        if one.numbers() != other.numbers():
            return one.round
    return None
