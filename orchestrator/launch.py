"""The trials of each command's last launch, kept in the output folder.

The file is read by commands that watch the run from outside, and by reports made of records only: records
know a trial's settings, not the row of a table that it was run for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data.files import write_text_atomically
from data.sealed import read_sealed_json, seal
from orchestrator.ledger.output import OutputFolder
from orchestrator.plan import PlannedTrial, distinct

VERSION = 1
"""Version of the launch file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchedTrial:
    """A trial of a launch."""

    fingerprint: str
    label: str
    rounds: int
    rows: tuple[str, ...] = ()
    """The arms or strategies that it was planned for; empty in files older than this field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A launch: which command, when, and its trials."""

    command: str
    """Name of the command, such as table4."""
    time_ms: int
    """Time of the launch, milliseconds since 1970."""
    trials: tuple[LaunchedTrial, ...]


def note_launch(output: OutputFolder, command: str, planned: Sequence[PlannedTrial]) -> None:
    """Keep what `command` is about to run, in place of its earlier launch; the folder is locked by the caller."""
    rows: dict[str, list[str]] = {}
    for p in planned:
        rows.setdefault(p.fingerprint, []).append(p.row)
    trials = tuple(
        LaunchedTrial(
            fingerprint=p.fingerprint, label=p.trial.label, rounds=p.trial.rounds, rows=tuple(rows[p.fingerprint])
        )
        for p in distinct(planned)
    )
    launch = Launch(command=command, time_ms=time.time_ns() // 1_000_000, trials=trials)
    path = _path(output.path, command)
    write_text_atomically(path, json.dumps(seal({"version": VERSION, **asdict(launch)}, path.name)) + "\n")


def last_launch(output: OutputFolder, command: str) -> Launch | None:
    """Last launch of `command` in this folder; None if there was none.

    Raises ValueError for a file that is damaged, or another version's.
    """
    path = _path(output.path, command)
    if not path.exists():
        return None
    try:
        content, _ = read_sealed_json(path, path.name)
        if content.pop("version") != VERSION:
            raise ValueError("it is of another version")
        trials = tuple(LaunchedTrial(**{**each, "rows": tuple(each.get("rows", ()))}) for each in content.pop("trials"))
        return Launch(**content, trials=trials)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); the next run of {command}.py writes it again") from None


def launched_commands(output: OutputFolder) -> list[str]:
    """Names of the commands that were launched in this folder, sorted."""
    return sorted(path.stem.removeprefix("launch-") for path in output.path.glob("launch-*.json"))


def _path(folder: Path, command: str) -> Path:
    return folder / f"launch-{command}.json"
