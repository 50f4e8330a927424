"""Steps of SGD on a classifier, and their repetition: kernel by kernel, or compiled, recorded and replayed.

Shapes: N images, B batch.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from models.classifier.inputs import Batches
from models.classifier.recipe import Recipe
from models.classifier.sgd import Sgd
from models.graphs import CompiledForward, Record, Replays, Way


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[object]:
    """The context manager for a recipe's arithmetic."""
    if recipe.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


class Objective(Protocol):
    """The loss that a training minimises, and the changes that it makes between passes."""

    def prepare(self, network: nn.Module, done: float) -> None:
        """Change the network or the objective before each pass (or before each step, if there are no passes).

        `done` is the share of the training that is finished, in [0, 1).
        """
        ...

    def phase(self) -> Hashable | None:
        """Name of the present computation of `loss`: equal phases launch equal kernels on the same tensors.

        None if no two steps do, or if `loss` has to wait for the device: then no step is recorded.
        """
        ...

    def loss(self, network: nn.Module, images_B3HW: Tensor, labels_B: Tensor, picked_B: Tensor) -> Tensor:
        """The loss () of normalised images; `picked_B` are their positions among the training images."""
        ...

    def other_parameters(self, network: nn.Module) -> Iterable[nn.Parameter]:
        """Parameters of the network that learn at a constant rate with Nesterov's momentum; mostly none."""
        ...


class Step:
    """One step of SGD on a batch that it gathers and augments. Nothing is read back from the device."""

    def __init__(
        self,
        network: nn.Module,
        batches: Batches,
        labels_N: Tensor,
        *,
        objective: Objective,
        optimiser: Sgd,
        recipe: Recipe,
    ) -> None:
        """Everything lies on the device of `labels_N`."""
        self._network, self._batches, self._labels_N = network, batches, labels_N
        self._objective, self._optimiser, self._recipe = objective, optimiser, recipe

    def __call__(self, picked_B: Tensor) -> None:
        """Take one step on the images at those positions."""
        batch = self._batches.augment(picked_B)
        with autocast(self._recipe, self._labels_N.device):
            loss = self._objective.loss(self._network, batch, self._labels_N[picked_B], picked_B)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()


class RepeatedSteps:
    """Steps that are recorded once for each phase and batch size, and replayed from then on."""

    def __init__(
        self,
        step: Step,
        network: nn.Module,
        objective: Objective,
        *,
        record: Record | None,
        forward: CompiledForward,
        batch_size: int,
    ) -> None:
        """Batches of `batch_size` use the compiled `forward`; the smaller last ones of passes are too rare for it."""
        self._step, self._network, self._objective = step, network, objective
        self._replays, self._forward, self._batch_size = Replays(record), forward, batch_size

    def __call__(self, picked_B: Tensor) -> None:
        """Take one step on the images at those positions; a recorded step has the numbers of `Step`."""
        phase = self._objective.phase()
        kind = None if phase is None else (phase, len(picked_B))
        self._replays(kind, self._whole if len(picked_B) == self._batch_size else self._step, picked_B)

    def _whole(self, picked_B: Tensor) -> None:
        self._forward.run(self._network, lambda: self._step(picked_B), self._objective.phase())

    @property
    def way(self) -> Way:
        """The way in which most steps were taken."""
        if not self._replays.has_recorded:
            return "plain"
        return "compiled and recorded" if self._forward.is_used else "recorded"
