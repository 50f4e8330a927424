"""Keeps the classifier of a trial's last finished round, so that a continued trial trains nothing twice.

A convenience, not the truth: if the file is lost, the classifier is trained again and comes out the same.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from data.storage import write_atomically

StateDict = dict[str, Tensor]


class ClassifierStore:
    """One file for one trial; `folder=None` keeps nothing."""

    def __init__(self, folder: Path | None, fingerprint: str) -> None:
        self._path = folder / f"{fingerprint}.pt" if folder else None

    def save(self, round_number: int, weights: StateDict) -> None:
        """Keep the weights of `round_number` in place of any earlier ones."""
        if self._path is None:
            return
        content = {"round": round_number, "weights": weights}
        write_atomically(self._path, lambda file: torch.save(content, file))

    def load(self, round_number: int) -> StateDict | None:
        """The weights of `round_number`, on the CPU, or None where they are not kept."""
        if self._path is None or not self._path.exists():
            return None
        kept = torch.load(self._path, map_location="cpu", weights_only=True)
        weights: StateDict = kept["weights"]
        return weights if kept["round"] == round_number else None

    def clear(self) -> None:
        """Forget the trial: it is finished."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
