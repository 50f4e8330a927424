"""Training of any classifier from scratch with SGD, `fit`; the objective is one of its arguments.

Shapes: N images, B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.classifier.inputs import Inputs, Normalise, make_batches
from models.classifier.recipe import Recipe
from models.classifier.sgd import Group, Sgd
from models.classifier.steps import Objective, RepeatedSteps, Step
from models.device import Machine, clear_memory_errors
from models.graphs import CompiledForward, compiled_forward, recorder, worth_compiling

PROGRESS_EVERY = 100
"""Steps between two calls of `progress`."""
StepProgress = Callable[[int, int], None]
"""A function that is called now and then with the number of steps done and the number of steps in total."""


class CrossEntropy:
    """Mean cross entropy of the logits divided by `temperature`."""

    def __init__(self, temperature: float = 1.0) -> None:
        self._temperature = temperature

    def prepare(self, network: nn.Module, done: float) -> None:
        """Change nothing before a pass."""

    def phase(self) -> Hashable | None:
        """One phase for all steps, because every step launches the same kernels."""
        return "cross entropy"

    def loss(self, network: nn.Module, images_B3HW: Tensor, labels_B: Tensor, picked_B: Tensor) -> Tensor:
        """The mean cross entropy () over the batch; the network's first output holds the logits."""
        logits_BK: Tensor = network(images_B3HW)[0].float()
        return F.cross_entropy(logits_BK if self._temperature == 1.0 else logits_BK / self._temperature, labels_B)

    def other_parameters(self, network: nn.Module) -> Iterable[nn.Parameter]:
        """The objective has no parameters of its own."""
        return ()


def fit(
    network: nn.Module,
    inputs: Inputs,
    labels_N: NDArray[np.int64],
    *,
    recipe: Recipe,
    normalise: Normalise,
    batches_seed: int,
    machine: Machine,
    objective: Objective | None = None,
    progress: StepProgress | None = None,
) -> nn.Module:
    """The network, trained by the recipe on the machine's device; the last weights, no selection.

    `inputs` are pixels (N, H, W, 3) or, for a linear head, features (N, D) or images that are cropped in each step.
    Labels are 0..K-1; `objective` is the cross entropy by default. On CUDA steps are recorded and replayed
    (`models.graphs`), unless `plain_steps`: the numbers are the same. Long trainings are compiled as well, unless
    `no_compile`: the numbers then differ by rounding. `machine.ways` gets how the steps were taken. Equal seeds give
    equal weights, to the bit on a CPU with the same number of threads. Raises ValueError without images,
    ArithmeticError if the weights are no longer finite (a learning rate that is too high), and MemoryError if the
    device has too little memory.
    """
    if not len(inputs):
        raise ValueError("no labelled ID image to train on: raise the budget or lower the OOD ratio")
    objective = objective or CrossEntropy()
    device = machine.device
    num_steps, pass_steps = recipe.num_steps(len(inputs)), _pass_steps(recipe, len(inputs))
    generator = torch.Generator(device=device).manual_seed(batches_seed)
    with (
        clear_memory_errors("in training", "lower recipe.batch_size, which changes the numbers"),
        _own_randomness(batches_seed, device),
    ):
        batches = make_batches(inputs, recipe, normalise, generator)
        labels = torch.tensor(labels_N, device=device)  # a copy: labels that a strategy gets are read-only
        network = network.to(device).train()
        compiles = not machine.plain_steps and not machine.no_compile and worth_compiling(device, num_steps)
        with recorder(device, generator, wanted=not machine.plain_steps) as record:
            optimiser = _optimiser(network, recipe, objective, as_tensor=device.type == "cuda" or record is not None)
            step = Step(network, batches, labels, objective=objective, optimiser=optimiser, recipe=recipe)
            run = RepeatedSteps(
                step,
                network,
                objective,
                record=record,
                forward=CompiledForward(compiled_forward if compiles else None),
                batch_size=recipe.batch_size,
            )
            rates = _learning_rates(recipe, num_steps, pass_steps)
            for number, picked in enumerate(batches.positions()):
                if number % pass_steps == 0:
                    objective.prepare(network, number / num_steps)
                # Set through a tensor on a GPU: a recorded step would repeat the rate it was recorded with.
                if number in rates:
                    optimiser.groups[0].set_rate(rates[number])
                run(picked)
                if progress is not None and (number + 1) % PROGRESS_EVERY == 0:
                    progress(number + 1, num_steps)
            network.zero_grad(set_to_none=True)
    machine.ways.add(run.way)
    _check_finite(network, recipe, num_steps)
    return network.eval()


@contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Start torch's global generators, which dropout draws from, at `seed` inside, and restore them afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _pass_steps(recipe: Recipe, num_images: int) -> int:
    """Steps of one pass over the images; 1 if batches are drawn with replacement."""
    return 1 if recipe.epochs is None else recipe.batches_a_pass(num_images)


def _optimiser(network: nn.Module, recipe: Recipe, objective: Objective, *, as_tensor: bool) -> Sgd:
    """SGD over all parameters; those of the objective have a constant rate and Nesterov's momentum.

    `as_tensor`: the changing rate is a tensor on the parameters' device, where recorded steps read it.
    """
    others = list(objective.other_parameters(network))
    own = {id(parameter) for parameter in others}
    params = [parameter for parameter in network.parameters() if id(parameter) not in own]
    rate = torch.tensor(recipe.learning_rate, device=params[0].device) if as_tensor else recipe.learning_rate
    groups = [Group(params=params, rate=rate, nesterov=recipe.nesterov)]
    if others:
        groups.append(Group(params=others, rate=recipe.learning_rate, nesterov=True))
    return Sgd(groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def _learning_rates(recipe: Recipe, num_steps: int, pass_steps: int) -> dict[int, float]:
    """The steps at which the learning rate changes, step 0 included -> the rate from that step on."""
    ends = [int(share * (num_steps // pass_steps)) * pass_steps for share in recipe.milestones]
    return {step: recipe.learning_rate * recipe.decay ** sum(step >= end for end in ends) for step in {0, *ends}}


def _check_finite(network: nn.Module, recipe: Recipe, num_steps: int) -> None:
    if not bool(torch.stack([torch.isfinite(value).all() for value in network.state_dict().values()]).all()):
        raise ArithmeticError(
            f"training diverged: weights are not finite after {num_steps} steps "
            f"at learning rate {recipe.learning_rate}; lower recipe.learning_rate"
        )
