"""Training batches, drawn and augmented on the device.

Shapes: N images, B batch, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from data.imageset import Images
from models.classifier.recipe import Recipe


class Normalise:
    """Function from uint8 pixels to the network's input: ([0, 1] - mean) / std, per channel."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self.scale = 1.0 / (255.0 * torch.tensor(std, device=device))
        self.shift = torch.tensor(mean, device=device) / torch.tensor(std, device=device)

    def __call__(self, pixels_BHW3: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in channels-last layout, without a copy of the layout."""
        return (pixels_BHW3.float() * self.scale - self.shift).permute(0, 3, 1, 2)


class Batches(Protocol):
    """Source of the batches of one training."""

    def positions(self) -> Iterator[Tensor]:
        """Positions (B,) int64 of every batch of a training: with replacement, or pass by pass."""
        ...

    def augment(self, picked_B: Tensor) -> Tensor:
        """The augmented inputs at those positions, in the form that the network takes."""
        ...


class BatchSource(Protocol):
    """A set of N inputs that makes its own batches."""

    def __len__(self) -> int:
        """Number of inputs, N."""
        ...

    def batches(self, recipe: Recipe, generator: torch.Generator) -> Batches:
        """Batches of the inputs, on the generator's device."""
        ...


class FeatureRows:
    """Stored features of images, the input of a linear head in training and prediction."""

    def __init__(
        self,
        rows_NF: NDArray[np.float32],
        *,
        identity: str,
        crops: Callable[[NDArray[np.int64]], BatchSource] | None = None,
    ) -> None:
        """`identity` identifies all that decides the rows' numbers: the images, the weights, the preprocessing.

        `crops` returns random crops of the images at given positions, to train on in place of the rows.
        """
        self._rows_NF = rows_NF
        self.identity = identity
        self.crops = crops

    @property
    def num_features(self) -> int:
        """Number of features per image, F."""
        return int(self._rows_NF.shape[1])

    def __len__(self) -> int:
        """Number of images, N."""
        return len(self._rows_NF)

    def load(self, idx: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows (B, F) float32, in the order of `idx`."""
        return np.asarray(self._rows_NF[idx])


Inputs = NDArray[np.uint8] | NDArray[np.float32] | BatchSource
"""Inputs of a training: pixels (N, H, W, 3), features (N, D), or a source that makes its own batches."""


def training_inputs(images: Images | FeatureRows, idx: NDArray[np.int64]) -> Inputs:
    """The images `idx` in the form for training, which is crops if there are any; for prediction see `images.load`."""
    if isinstance(images, FeatureRows) and images.crops is not None:
        return images.crops(idx)
    return images.load(idx)


def make_batches(inputs: Inputs, recipe: Recipe, normalise: Normalise, generator: torch.Generator) -> Batches:
    """Batches of augmented and normalised pixels, of unchanged features, or of a source that makes its own."""
    if not isinstance(inputs, np.ndarray):
        return inputs.batches(recipe, generator)
    if inputs.ndim == 2:
        return FeatureBatches(inputs.astype(np.float32, copy=False), recipe, generator)
    return PixelBatches(inputs.astype(np.uint8, copy=False), recipe, normalise, generator)


def draw_positions(num_images: int, recipe: Recipe, generator: torch.Generator) -> Iterator[Tensor]:
    """Positions (B,) int64 of every batch of a training."""
    num, device = recipe.batch_size, generator.device
    if recipe.epochs is None:
        for _ in range(recipe.steps):
            yield torch.randint(num_images, (num,), generator=generator, device=device)
        return
    num_batches = recipe.batches_a_pass(num_images)
    for _ in range(recipe.epochs):
        order = torch.randperm(num_images, generator=generator, device=device)
        for number in range(num_batches):
            picked = order[number * num : (number + 1) * num if number + 1 < num_batches else None]
            # A single image is taken twice: batch statistics need two values.
            yield picked if len(picked) > 1 else picked.repeat(2)


class FeatureBatches:
    """Batches of stored features, which lie on the device once."""

    def __init__(self, features_ND: NDArray[np.float32], recipe: Recipe, generator: torch.Generator) -> None:
        self._features_ND = torch.from_numpy(features_ND).to(generator.device)
        self._recipe, self._generator = recipe, generator

    def positions(self) -> Iterator[Tensor]:
        """Positions (B,) int64 of every batch of a training."""
        return draw_positions(len(self._features_ND), self._recipe, self._generator)

    def augment(self, picked_B: Tensor) -> Tensor:
        """Features (B, D) float32 at those positions, unchanged."""
        return self._features_ND[picked_B]


class PixelBatches:
    """Batches of augmented pixels."""

    def __init__(
        self, pixels_NHW3: NDArray[np.uint8], recipe: Recipe, normalise: Normalise, generator: torch.Generator
    ) -> None:
        self._device = generator.device
        self._generator = generator
        self._recipe = recipe
        self._normalise = normalise
        self._size = pixels_NHW3.shape[1:3]
        # On the device once, as uint8 with the black border of the crops, so that a batch is a single gather.
        pad = recipe.crop_padding
        pixels = torch.from_numpy(np.pad(pixels_NHW3, ((0, 0), (pad, pad), (pad, pad), (0, 0))))
        self._padded_NHW3 = pixels.to(self._device)

    def positions(self) -> Iterator[Tensor]:
        """Positions (B,) int64 of every batch of a training."""
        return draw_positions(len(self._padded_NHW3), self._recipe, self._generator)

    def augment(self, picked_B: Tensor) -> Tensor:
        """Augmented and normalised images (B, 3, H, W) at those positions."""
        return self._normalise(self.pixels(picked_B))

    def pixels(self, picked_B: Tensor) -> Tensor:
        """Pixels (B, H, W, 3) uint8 of those images: flipped, cropped and rotated at random, by the recipe."""
        (height, width), recipe, num = self._size, self._recipe, len(picked_B)
        rows = torch.arange(height, device=self._device).expand(num, height)
        cols = torch.arange(width, device=self._device).expand(num, width)
        if recipe.flip:
            mirrored = self._integers(2, num)[:, None].bool()
            cols = torch.where(mirrored, cols.flip(1), cols)
        if recipe.crop_padding:
            rows = rows + self._integers(2 * recipe.crop_padding + 1, num)[:, None]
            cols = cols + self._integers(2 * recipe.crop_padding + 1, num)[:, None]
        pixels_BHW3 = self._padded_NHW3[picked_B[:, None, None], rows[:, :, None], cols[:, None, :]]
        return self._turned(pixels_BHW3) if recipe.rotation else pixels_BHW3

    def _turned(self, pixels_BHW3: Tensor) -> Tensor:
        """The pictures rotated by random angles, with bilinear interpolation and black corners."""
        share = torch.rand(len(pixels_BHW3), generator=self._generator, device=self._device)
        angle = torch.deg2rad(self._recipe.rotation * (2 * share - 1))
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        turn_B23 = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
        images_B3HW = pixels_BHW3.permute(0, 3, 1, 2).float()
        grid = F.affine_grid(turn_B23, list(images_B3HW.shape), align_corners=False)
        turned = F.grid_sample(images_B3HW, grid, align_corners=False)
        return turned.round().to(torch.uint8).permute(0, 2, 3, 1)

    def _integers(self, high: int, num: int) -> Tensor:
        return torch.randint(high, (num,), generator=self._generator, device=self._device)
