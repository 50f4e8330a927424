"""The output folder of a grid: which run made it, which is writing to it, and where its parts lie."""

from __future__ import annotations

import json
import os
import shlex
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data.files import file_lock, lock_holder, user_path, write_text_atomically
from data.sealed import Newer, seal, unseal
from orchestrator.ledger.ledger import FORMAT, Ledger

MARKER = "vlpure.json"
LOCK = ".lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFolder:
    """One grid's results. Made by `open_output`, which checks it."""

    path: Path
    grid_id: str | None
    """Identifies the grid in MLflow, over all its launches; None for a folder that does not exist yet."""

    @property
    def ledger(self) -> Ledger:
        """Ledger with the records."""
        return Ledger(self.path / "ledger")

    @property
    def classifiers(self) -> Path:
        """Folder with the last classifier of each unfinished trial."""
        return self.path / "classifiers"

    @property
    def writer(self) -> int | None:
        """Id of the process that is writing to it on this machine, if one is seen; takes no lock."""
        return lock_holder(self.path / LOCK)

    @contextmanager
    def locked(self) -> Iterator[OutputFolder]:
        """Make the folder if it is missing, and keep other launches out of it while inside.

        An error before there is anything to keep leaves nothing behind. Raises ValueError if another launch is at work,
        or if the folder cannot be written.
        """
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            with file_lock(self.path / LOCK, wait=False):
                try:
                    yield self._marked()
                except BaseException:
                    if self.grid_id is None:
                        _forget_empty(self.path, missing)
                    raise
        except BlockingIOError:
            raise ValueError(
                f"another run is writing to {self.path}; wait for it, or choose another --output-dir"
            ) from None

    def _marked(self) -> OutputFolder:
        if self.grid_id is not None:
            return self
        grid_id = uuid.uuid4().hex
        write_text_atomically(
            self.path / MARKER, json.dumps(seal({"format": FORMAT, "grid_id": grid_id}, MARKER)) + "\n"
        )
        return OutputFolder(path=self.path, grid_id=grid_id)


def _forget_empty(path: Path, made: Sequence[Path]) -> None:
    """Remove an output folder's own files, and the folders that were made for it, if it holds nothing else."""
    if {entry.name for entry in path.iterdir()} <= {MARKER, LOCK}:
        for name in (MARKER, LOCK):
            (path / name).unlink(missing_ok=True)
        for folder in made:
            folder.rmdir()


def open_output(path: Path) -> OutputFolder:
    """Output folder at `path`, which need not exist; nothing is created.

    Raises ValueError for a folder made by another version, for one that holds other things, and for one that cannot
    be written.
    """
    path = user_path(user_path(path).absolute())  # the current folder's name counts too
    _check_writable(path)
    if (path / MARKER).exists():
        for part in (path / "ledger", path / "classifiers"):
            if part.exists() and not part.is_dir():
                raise ValueError(f"{part} is in the way: it is not a folder; move it away")
        return _marked_output(path)
    if path.exists() and any(entry.name != LOCK for entry in path.iterdir()):
        raise ValueError(f"{path} holds other files and no {MARKER}; choose a new or empty --output-dir")
    return OutputFolder(path=path, grid_id=None)


def find_output(path: Path) -> OutputFolder:
    """Output folder at `path`, to be read; it need not be writable.

    Raises ValueError if there is none, and as `open_output`.
    """
    path = user_path(user_path(path).absolute())  # the current folder's name counts too
    if not path.is_dir():
        raise ValueError(f"{path} does not exist, or is not a folder")
    if not (path / MARKER).exists():
        raise ValueError(f"{path} is not an output folder: it has no {MARKER}")
    return _marked_output(path)


def output_to_repair(path: Path) -> OutputFolder:
    """Output folder at `path`, even if its marker is damaged or lost.

    In that case its grid gets a new identity when it is next locked: MLflow shows what comes under a second parent run.
    Raises ValueError as `find_output`, but for such a marker.
    """
    path = user_path(user_path(path).absolute())  # the current folder's name counts too
    has_ledger = (path / "ledger").is_dir()
    if has_ledger and (not (path / MARKER).exists() or _read_marker(path / MARKER) is None):
        _check_writable(path)
        return OutputFolder(path=path, grid_id=None)
    return find_output(path)


def _marked_output(path: Path) -> OutputFolder:
    grid_id = _read_marker(path / MARKER)
    if grid_id is None:
        raise ValueError(
            f"{path / MARKER} is damaged; mend it with python -m orchestrator.ledger {shlex.quote(str(path))} "
            "--repair, or choose a new --output-dir"
        )
    return OutputFolder(path=path, grid_id=grid_id)


def _read_marker(marker: Path) -> str | None:
    """Identity of the grid; None for a damaged marker. Raises ValueError for another version's."""
    try:
        content = json.loads(marker.read_bytes())
        version, grid_id = content["format"], str(content["grid_id"])
        if version == FORMAT:
            unseal(content, MARKER)
    except Newer as error:
        raise ValueError(f"{marker}: {error}; choose a new --output-dir") from None
    except (ValueError, KeyError, TypeError):
        return None
    if version != FORMAT:
        raise ValueError(
            f"{marker.parent} was made by another version of this software (its format is {version}, ours is "
            f"{FORMAT}); choose a new --output-dir"
        )
    return grid_id


def is_this_output(path: Path, grid_id: str) -> bool:
    """Whether the grid's output folder is here, on this machine or on a file system shared with it."""
    try:
        content = json.loads((path / MARKER).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("grid_id") == grid_id


def _check_writable(path: Path) -> None:
    """Raise ValueError unless `path` is, or could become, a folder that this process may write to."""
    existing = path
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise ValueError(f"{existing} is a file, not a folder; choose another --output-dir")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{existing} cannot be written; choose another --output-dir")
