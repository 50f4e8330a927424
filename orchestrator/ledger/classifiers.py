"""Storage of trained classifiers on disk, so that nothing is trained twice.

It holds the classifier of the last finished round of each unfinished trial, and for each condition and seed that of
round 0, from which all strategies start. A convenience, not the truth: what is lost is trained again, with the same
result.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from data.console import RunStopped, to_stderr
from data.files import file_lock
from data.sealed import Damaged, Newer
from models.sealed_weights import load_weights, save_weights

if TYPE_CHECKING:
    from torch import Tensor  # the driver, which only removes files, needs no torch

StateDict = dict[str, "Tensor"]


class ClassifiersUnwritable(RunStopped):
    """The disk takes no more classifiers. The message names the place and what to do."""


class ClassifierStore:
    """The files of one trial in a folder that trials share; `folder=None` keeps nothing.

    Raises ClassifiersUnwritable if the disk is full, read-only or gone; what was kept before is whole.
    """

    def __init__(self, folder: Path | None, fingerprint: str) -> None:
        self._folder = folder
        self._path = folder / f"{fingerprint}.pt" if folder else None

    def save(self, round_number: int, weights: StateDict) -> None:
        """Keep the weights of `round_number` in place of any earlier ones."""
        if self._path is not None:
            _save(self._path, round_number, weights)

    def load(self, round_number: int) -> StateDict | None:
        """The weights of `round_number`, on the CPU, or None if they are not kept."""
        return _load(self._path, round_number) if self._path is not None else None

    def first(self, identity: str, train: Callable[[], StateDict]) -> StateDict:
        """Weights of round 0 under that identity, on the CPU: those that another process kept, or from `train`.

        While one process trains them, others that need the same weights wait.
        """
        if self._folder is None:
            return train()
        path = _first_folder(self._folder) / f"{identity}.pt"
        with file_lock(path.with_suffix(".lock")):
            weights = _load(path, 0)
            if weights is None:
                weights = train()
                _save(path, 0, weights)
        return weights

    def clear(self) -> None:
        """Remove the classifier of a finished trial."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            for left in self._path.parent.glob(f".{self._path.name}.*"):  # of a process of this trial that was killed
                left.unlink()


def forget_finished(folder: Path, fingerprints: Iterable[str]) -> None:
    """Remove the classifiers of these trials, which are finished."""
    # A trial removes its own, unless its process is stopped between its last record and that.
    for fingerprint in fingerprints:
        ClassifierStore(folder, fingerprint).clear()


def forget_first(folder: Path) -> None:
    """Remove the shared classifiers of round 0: no trial of the folder is left to start."""
    shutil.rmtree(_first_folder(folder), ignore_errors=True)


def _first_folder(folder: Path) -> Path:
    return folder / "round0"


def _save(path: Path, round_number: int, weights: StateDict) -> None:
    try:
        save_weights(path, {"round": round_number, "weights": weights}, name=path.name)
    except OSError as error:
        raise ClassifiersUnwritable(
            f"{path.parent} cannot be written ({error.strerror or error}): free space or mend the disk; every round "
            "recorded so far is kept, and the same command goes on from there"
        ) from error


def _load(path: Path, round_number: int) -> StateDict | None:
    try:
        kept = load_weights(path, name=path.name)
        weights: StateDict = kept["weights"]
        return weights if kept["round"] == round_number else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (Damaged, Newer) as error:
        to_stderr(f"{path} is damaged ({error}); its classifier is trained again")
        return None
