"""Snapshots of a training on disk, so that a stopped training continues as if it had never stopped.

Shapes: M cached image features, D embedding.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from data.sealed import Damaged, Newer
from models.clipn.model import Clipn
from models.sealed_weights import load_weights, save_weights

STAGES = ("clip", "no_tower")
"""Names of the stages in the order of training."""
_SEAL_NAME = "training"
"""Name that the file's seal covers."""
# Not the identity, which is in the content: the state of another training must be reported as such, not as damaged.


@dataclass(slots=True, kw_only=True)
class Stage:
    """State that changes during one stage of a training and therefore has to be kept."""

    name: str
    """Name of the stage, one of STAGES."""
    steps: int
    """Number of steps of the whole stage."""
    clipn: Clipn
    optimiser: torch.optim.Optimizer
    generator: torch.Generator
    """Generator on the device of the weights."""
    features_MD: torch.Tensor | None = None
    """Image features that the stage computes once before its first step; None before that, or if it needs none."""


class Snapshots(Protocol):
    """Store that a training restores an earlier state from and offers its present state to."""

    def restore(self, stage: Stage) -> int:
        """Put the kept state into `stage`. Returns the steps already done: 0 without a state, all in a later stage."""
        ...

    def offer(self, stage: Stage, step: int) -> None:
        """Keep the state after `step` steps if it is time to. May raise KeyboardInterrupt, after keeping it."""
        ...


class NoSnapshots:
    """Snapshots of short trainings, which keep nothing."""

    def restore(self, stage: Stage) -> int:
        """Return 0 steps done and leave the stage as it is."""
        del stage
        return 0

    def offer(self, stage: Stage, step: int) -> None:
        """Ignore the state."""


class FileSnapshots:
    """Snapshots in one file, which holds the newest state: after an interval, at the end of a stage, or at a stop."""

    def __init__(self, path: Path, *, identity: str, every_seconds: float, wants_stop: Callable[[], bool]) -> None:
        """Open the file if it is there.

        `identity` identifies all that decides the weights. Raises ValueError for a file of another training, and for
        one that cannot be read.
        """
        self._path = path
        self._identity = identity
        self._every = every_seconds
        self._wants_stop = wants_stop
        self._last = time.monotonic()
        self._kept: dict[str, Any] | None = self._read() if path.is_file() else None

    @property
    def found(self) -> str | None:
        """Stage and step of the kept state, in words; None if there is no state."""
        return None if self._kept is None else f"stage {self._kept['stage']}, step {self._kept['step']}"

    def restore(self, stage: Stage) -> int:
        """Put the kept state into `stage`. Returns the steps already done.

        On a CPU the rest of the training is the same to the bit as without the stop.
        """
        if self._kept is None or STAGES.index(self._kept["stage"]) < STAGES.index(stage.name):
            return 0
        if self._kept["stage"] != stage.name:
            return stage.steps
        kept, self._kept = self._kept, None
        stage.clipn.load_state_dict(kept["clipn"])
        stage.optimiser.load_state_dict(kept["optimiser"])
        if len(kept["generator"]) != len(stage.generator.get_state()):
            raise ValueError(
                f"{self._path}: this state was made on another kind of device (CPU or GPU), which draws other numbers; "
                "continue on that kind, or remove the file to start again"
            )
        stage.generator.set_state(kept["generator"])
        if kept["features"] is not None:
            stage.features_MD = kept["features"].to(stage.clipn.device)
        return int(kept["step"])

    def offer(self, stage: Stage, step: int) -> None:
        """Write the state if it is time to; raise KeyboardInterrupt if the user wants to stop."""
        stops = self._wants_stop()
        if stops or step == stage.steps or time.monotonic() - self._last >= self._every:
            state = {
                "identity": self._identity,
                "stage": stage.name,
                "step": step,
                "clipn": stage.clipn.state_dict(),
                "optimiser": stage.optimiser.state_dict(),
                "generator": stage.generator.get_state(),
                "features": stage.features_MD,
            }
            save_weights(self._path, state, name=_SEAL_NAME)
            self._last = time.monotonic()
        if stops:
            raise KeyboardInterrupt

    def remove(self) -> None:
        """Delete the file after the end of the training."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        """The kept state, on the CPU."""
        try:
            kept = load_weights(self._path, name=_SEAL_NAME)
        except (Damaged, Newer) as error:
            raise ValueError(
                f"{self._path}: this state of a training cannot be read; remove it to start again"
            ) from error
        if not isinstance(kept, dict) or kept.get("identity") != self._identity:
            raise ValueError(
                f"{self._path}: this is the state of a training with other settings or images; repeat that command to "
                "continue it, remove the file to start again, or choose another output"
            )
        return kept
