"""fit(): trains any classifier from scratch with SGD; what is minimised is a part of it.

Shapes: N images, B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.batches import Normalise, make_batches
from models.devices import autocast
from models.recipe import Recipe

PROGRESS_EVERY = 100
"""Steps between two calls of `progress`."""
StepProgress = Callable[[int, int], None]
"""Hears, now and then, how many steps of a training are done, and of how many."""


class Objective(Protocol):
    """What a training minimises, and what it changes between passes."""

    def prepare(self, network: nn.Module, done: float) -> None:
        """Called before each step that starts a pass (or each step, where there are no passes).

        `done` is the share of the training behind, in [0, 1).
        """
        ...

    def loss(self, network: nn.Module, images_B3HW: Tensor, labels_B: Tensor, picked_B: Tensor) -> Tensor:
        """The loss () of normalised images; `picked_B` are their positions among the training images."""
        ...

    def other_parameters(self, network: nn.Module) -> Iterable[nn.Parameter]:
        """Parameters of the network that learn at a constant rate with Nesterov's momentum; mostly none."""
        ...


class CrossEntropy:
    """Mean cross entropy of the logits divided by `temperature`."""

    def __init__(self, temperature: float = 1.0) -> None:
        self._temperature = temperature

    def prepare(self, network: nn.Module, done: float) -> None:
        """Nothing."""

    def loss(self, network: nn.Module, images_B3HW: Tensor, labels_B: Tensor, picked_B: Tensor) -> Tensor:
        """The mean over the batch; the network's first output are the logits."""
        logits_BK: Tensor = network(images_B3HW)[0].float()
        return F.cross_entropy(logits_BK if self._temperature == 1.0 else logits_BK / self._temperature, labels_B)

    def other_parameters(self, network: nn.Module) -> Iterable[nn.Parameter]:
        """None."""
        return ()


def fit(
    network: nn.Module,
    inputs: NDArray[np.uint8] | NDArray[np.float32],
    labels_N: NDArray[np.int64],
    *,
    recipe: Recipe,
    normalise: Normalise,
    batches_seed: int,
    device: torch.device,
    objective: Objective | None = None,
    progress: StepProgress | None = None,
) -> nn.Module:
    """The network, trained as the recipe says on `device`; the last weights, no selection (P10, P12).

    `inputs` are pixels (N, H, W, 3) or, for a linear head, features (N, D). Labels are 0..K-1; `objective` is the cross
    entropy by default. Equal seeds give equal weights, to the bit on a CPU with the same number of threads. Raises
    ValueError without images and ArithmeticError when the weights are no longer finite (a learning rate that is too
    high).
    """
    if not len(inputs):
        raise ValueError("no labelled ID image to train on: raise the budget or lower the OOD ratio")
    objective = objective or CrossEntropy()
    batches = make_batches(inputs, recipe, normalise, torch.Generator(device=device).manual_seed(batches_seed))
    labels = torch.from_numpy(labels_N).to(device)
    network = network.to(device).train()
    optimiser, schedule = _optimiser(network, recipe, objective, len(inputs))
    num_steps, pass_steps = recipe.num_steps(len(inputs)), _pass_steps(recipe, len(inputs))
    with _own_randomness(batches_seed, device):
        for step, picked in enumerate(batches.positions()):
            if step % pass_steps == 0:
                objective.prepare(network, step / num_steps)
            batch = batches.augment(picked)
            with autocast(recipe, device):
                loss = objective.loss(network, batch, labels[picked], picked)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            if progress is not None and (step + 1) % PROGRESS_EVERY == 0:
                progress(step + 1, num_steps)
    _check_finite(network, recipe, num_steps)
    return network.eval()


@contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global generators, which dropout draws from, start at `seed` inside and are afterwards as before."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _pass_steps(recipe: Recipe, num_images: int) -> int:
    """Steps of one pass over the images; 1 where batches are drawn with replacement."""
    return 1 if recipe.epochs is None else recipe.batches_a_pass(num_images)


def _optimiser(
    network: nn.Module, recipe: Recipe, objective: Objective, num_images: int
) -> tuple[torch.optim.SGD, torch.optim.lr_scheduler.LambdaLR]:
    """SGD over all parameters, those of the objective's own with a constant rate and Nesterov's momentum."""
    others = list(objective.other_parameters(network))
    own = {id(parameter) for parameter in others}
    groups = [{"params": [p for p in network.parameters() if id(p) not in own], "nesterov": recipe.nesterov}]
    if others:
        groups.append({"params": others, "nesterov": True})
    optimiser = torch.optim.SGD(
        groups, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
    )
    length, pass_steps = recipe.num_steps(num_images), _pass_steps(recipe, num_images)
    ends = [int(share * (length // pass_steps)) * pass_steps for share in recipe.milestones]

    def factor(step: int) -> float:
        return recipe.decay ** sum(step >= end for end in ends)

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, [factor, lambda step: 1.0][: len(groups)])


def _check_finite(network: nn.Module, recipe: Recipe, num_steps: int) -> None:
    if not all(bool(torch.isfinite(p).all()) for p in network.state_dict().values()):
        raise ArithmeticError(
            f"training diverged: weights are not finite after {num_steps} steps "
            f"at learning rate {recipe.learning_rate}; lower recipe.learning_rate"
        )
