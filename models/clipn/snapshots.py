"""The state of a training on disk, so that a stopped one goes on as if it had never stopped.

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
"""In the order of training."""
_SEAL_NAME = "training"
"""Not the identity, which is in the content: another training's state is to be called that, and not damaged."""


@dataclass(slots=True, kw_only=True)
class Stage:
    """What changes during one stage of a training, and so what has to be kept."""

    name: str
    """One of STAGES."""
    steps: int
    """Steps of the whole stage."""
    clipn: Clipn
    optimiser: torch.optim.Optimizer
    generator: torch.Generator
    """On the device of the weights."""
    features_MD: torch.Tensor | None = None
    """Image features that the stage computes once before its first step; None before that, or where it has none."""


class Snapshots(Protocol):
    """Where a training asks for an earlier state and offers its own."""

    def restore(self, stage: Stage) -> int:
        """Put the kept state into `stage`; the steps already done: 0 if there is none, all if a later stage began."""
        ...

    def offer(self, stage: Stage, step: int) -> None:
        """The state after `step` steps may be kept now. May raise KeyboardInterrupt, after keeping it."""
        ...


class NoSnapshots:
    """Keeps nothing: for short trainings."""

    def restore(self, stage: Stage) -> int:
        """Nothing done yet."""
        del stage
        return 0

    def offer(self, stage: Stage, step: int) -> None:
        """Let it pass."""


class FileSnapshots:
    """Keeps the newest state in one file: every so often, at the end of a stage, and when the user wants to stop."""

    def __init__(self, path: Path, *, identity: str, every_seconds: float, wants_stop: Callable[[], bool]) -> None:
        """Open the file if it is there.

        `identity` identifies all that decides the weights. Raises ValueError for a file of another training, or none
        that can be read.
        """
        self._path = path
        self._identity = identity
        self._every = every_seconds
        self._wants_stop = wants_stop
        self._last = time.monotonic()
        self._kept: dict[str, Any] | None = self._read() if path.is_file() else None

    @property
    def found(self) -> str | None:
        """Where the kept state stands, in words; None where there is none."""
        return None if self._kept is None else f"stage {self._kept['stage']}, step {self._kept['step']}"

    def restore(self, stage: Stage) -> int:
        """As `Snapshots.restore`; on a CPU what follows is the same to the bit as without the stop."""
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
                "go on there, or remove it to begin anew"
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
        """Delete the file: the training has ended."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        """The kept state, on the CPU."""
        try:
            kept = load_weights(self._path, name=_SEAL_NAME)
        except (Damaged, Newer) as error:
            raise ValueError(
                f"{self._path}: this state of a training cannot be read; remove it to begin anew"
            ) from error
        if not isinstance(kept, dict) or kept.get("identity") != self._identity:
            raise ValueError(
                f"{self._path}: this is the state of a training with other settings or images; repeat that command to "
                "continue it, remove the file to begin anew, or choose another output"
            )
        return kept
