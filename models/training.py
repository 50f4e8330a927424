"""fit(): trains any classifier from scratch with SGD, batches drawn and augmented on the device.

Shapes: N images, B batch, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.devices import autocast
from models.recipe import Recipe

PROGRESS_EVERY = 100
"""Steps between two calls of `progress`."""


class Normalise:
    """Turns uint8 pixels into the network's input: ([0, 1] - mean) / std, a channel at a time."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self.scale = 1.0 / (255.0 * torch.tensor(std, device=device))
        self.shift = torch.tensor(mean, device=device) / torch.tensor(std, device=device)

    def __call__(self, pixels_BHW3: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in channels-last layout, without a copy of the layout."""
        return (pixels_BHW3.float() * self.scale - self.shift).permute(0, 3, 1, 2)


class Batches:
    """Draws training batches on the device: uniformly with replacement (P11), flipped and cropped at random.

    The images lie on the device once, as uint8 with their black border, so that a batch is a single gather.
    """

    def __init__(self, pixels_NHW3: NDArray[np.uint8], recipe: Recipe, generator: torch.Generator) -> None:
        self._device = generator.device
        self._generator = generator
        self._recipe = recipe
        self._size = pixels_NHW3.shape[1:3]
        pad = recipe.crop_padding
        pixels = torch.from_numpy(np.pad(pixels_NHW3, ((0, 0), (pad, pad), (pad, pad), (0, 0))))
        self._padded_NHW3 = pixels.to(self._device)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Positions (B,) int64 and pixels (B, H, W, 3) uint8 of one batch."""
        num, (height, width), recipe = self._recipe.batch_size, self._size, self._recipe
        picked = self._integers(self._padded_NHW3.shape[0], num)
        rows = torch.arange(height, device=self._device).expand(num, height)
        cols = torch.arange(width, device=self._device).expand(num, width)
        if recipe.flip:
            mirrored = self._integers(2, num)[:, None].bool()
            cols = torch.where(mirrored, cols.flip(1), cols)
        if recipe.crop_padding:
            rows = rows + self._integers(2 * recipe.crop_padding + 1, num)[:, None]
            cols = cols + self._integers(2 * recipe.crop_padding + 1, num)[:, None]
        return picked, self._padded_NHW3[picked[:, None, None], rows[:, :, None], cols[:, None, :]]

    def _integers(self, high: int, num: int) -> Tensor:
        return torch.randint(high, (num,), generator=self._generator, device=self._device)


def fit(
    network: nn.Module,
    pixels_NHW3: NDArray[np.uint8],
    labels_N: NDArray[np.int64],
    *,
    recipe: Recipe,
    normalise: Normalise,
    batches_seed: int,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> nn.Module:
    """The network, trained for `recipe.steps` steps on `device`; the last weights, no selection (P10, P12).

    Labels are 0..K-1. Equal seeds give equal weights, to the bit on a CPU with the same number of threads. `progress`
    hears the number of steps done, now and then. Raises ValueError without images and ArithmeticError when the
    weights are no longer finite (a learning rate that is too high).
    """
    if not len(pixels_NHW3):
        raise ValueError("no labelled ID image to train on: raise the budget or lower the OOD ratio")
    generator = torch.Generator(device=device).manual_seed(batches_seed)
    batches = Batches(pixels_NHW3, recipe, generator)
    labels = torch.from_numpy(labels_N).to(device)
    network = network.to(device).train()
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    milestones = [int(share * recipe.steps) for share in recipe.milestones]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, gamma=recipe.decay)
    for step in range(recipe.steps):
        picked, pixels = batches.draw()
        with autocast(recipe, device):
            logits = network(normalise(pixels))[0]
        loss = F.cross_entropy(logits.float(), labels[picked])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if progress is not None and (step + 1) % PROGRESS_EVERY == 0:
            progress(step + 1)
    _check_finite(network, recipe)
    return network.eval()


def _check_finite(network: nn.Module, recipe: Recipe) -> None:
    if not all(bool(torch.isfinite(p).all()) for p in network.state_dict().values()):
        raise ArithmeticError(
            f"training diverged: weights are not finite after {recipe.steps} steps "
            f"at learning rate {recipe.learning_rate}; lower recipe.learning_rate"
        )
