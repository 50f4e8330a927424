"""What the last launch of a command was asked to run: kept in the output folder for those who watch it from outside."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data.storage import write_text_atomically
from orchestrator.output import OutputFolder
from orchestrator.plan import PlannedTrial

VERSION = 1
"""Of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchedTrial:
    """A trial of a launch."""

    fingerprint: str
    label: str
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A launch: which command, when, and its trials."""

    command: str
    """Name of the command: table4."""
    time_ms: int
    """When it was given, milliseconds since 1970."""
    trials: tuple[LaunchedTrial, ...]


def note_launch(output: OutputFolder, command: str, planned: Sequence[PlannedTrial]) -> None:
    """Keep what `command` is about to run, in place of its earlier launch; the folder is locked by the caller."""
    trials = {
        p.fingerprint: LaunchedTrial(fingerprint=p.fingerprint, label=p.trial.label, rounds=p.trial.rounds)
        for p in planned
    }
    launch = Launch(command=command, time_ms=time.time_ns() // 1_000_000, trials=tuple(trials.values()))
    write_text_atomically(_path(output.path, command), json.dumps({"version": VERSION, **asdict(launch)}) + "\n")


def last_launch(output: OutputFolder, command: str) -> Launch | None:
    """What `command` was last asked to run in this folder; None where it never was.

    Raises ValueError for a file that is damaged, or another version's.
    """
    path = _path(output.path, command)
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        if content.pop("version") != VERSION:
            raise ValueError("it is of another version")
        trials = tuple(LaunchedTrial(**trial) for trial in content.pop("trials"))
        return Launch(**content, trials=trials)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); the next run of {command}.py writes it anew") from None


def _path(folder: Path, command: str) -> Path:
    return folder / f"launch-{command}.json"
