"""The output folder of a grid: who made it, who is writing to it, and where things lie in it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data.storage import file_lock, write_text_atomically
from orchestrator.ledger import FORMAT, Ledger

MARKER = "vlpure.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFolder:
    """One grid's results. Made by `open_output`, which checks it."""

    path: Path
    grid_id: str | None
    """Identifies the grid in MLflow, over all its launches; None for a folder that is not there yet."""

    @property
    def ledger(self) -> Ledger:
        """The records."""
        return Ledger(self.path / "ledger")

    @property
    def classifiers(self) -> Path:
        """The last classifier of each unfinished trial."""
        return self.path / "classifiers"

    @contextmanager
    def locked(self) -> Iterator[OutputFolder]:
        """Make the folder if it is not there, and keep other launches out of it while inside.

        Raises ValueError where another launch is at work, or where the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with file_lock(self.path / ".lock", wait=False):
                yield self._marked()
        except BlockingIOError:
            raise ValueError(
                f"another run is writing to {self.path}; wait for it, or choose another --output-dir"
            ) from None

    def _marked(self) -> OutputFolder:
        if self.grid_id is not None:
            return self
        grid_id = uuid.uuid4().hex
        write_text_atomically(self.path / MARKER, json.dumps({"format": FORMAT, "grid_id": grid_id}) + "\n")
        return OutputFolder(path=self.path, grid_id=grid_id)


def open_output(path: Path) -> OutputFolder:
    """The output folder at `path`, which need not exist; nothing is created.

    Raises ValueError for a folder made by another version, for one that holds other things, and for one that cannot
    be written.
    """
    path = path.expanduser().absolute()
    _check_writable(path)
    marker = path / MARKER
    if not marker.exists():
        if path.exists() and any(entry.name != ".lock" for entry in path.iterdir()):
            raise ValueError(f"{path} holds other files and no {MARKER}; choose a new or empty --output-dir")
        return OutputFolder(path=path, grid_id=None)
    try:
        content = json.loads(marker.read_text())
        version, grid_id = content["format"], str(content["grid_id"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{marker} is damaged; choose a new --output-dir") from None
    if version != FORMAT:
        raise ValueError(
            f"{path} was made by another version of this software (its format is {version}, ours is {FORMAT}); "
            "choose a new --output-dir"
        )
    return OutputFolder(path=path, grid_id=grid_id)


def is_this_output(path: Path, grid_id: str) -> bool:
    """Whether the grid's output folder is here, on this machine or on a file system shared with it."""
    try:
        content = json.loads((path / MARKER).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("grid_id") == grid_id


def _check_writable(path: Path) -> None:
    """Raises ValueError unless `path` is, or could become, a folder that this process may write to."""
    import os

    existing = path
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise ValueError(f"{existing} is a file, not a folder; choose another --output-dir")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{existing} cannot be written; choose another --output-dir")
