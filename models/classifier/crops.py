"""Random resized crops, made on the device, and batches of a frozen encoder's features of them.

The crops are those of torchvision's RandomResizedCrop on PIL images with bicubic resampling: the same boxes with the
same probabilities, and the same pixels, except that a value halfway between two levels may be rounded the other way.

Shapes: N images, B batch, H height and width of an image, S of a crop as the encoder takes it, T tries, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.classifier.inputs import draw_positions
from models.classifier.recipe import Recipe
from models.classifier.steps import autocast

ASPECT = (3 / 4, 4 / 3)
"""Smallest and largest ratio of a box's width to its height."""
TRIES = 10
"""Boxes drawn for a crop until one lies inside the image; if none does, the crop is the whole image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """A frozen network and the form of its input images."""

    network: nn.Module
    prepare: Callable[[NDArray[np.uint8], torch.device], Tensor]
    """Function that turns whole images (B, H, W, 3) into the network's input (B, 3, S, S)."""
    image_size: int
    """Height and width of the network's input in pixels, S."""
    mean: tuple[float, ...]
    """Mean of each channel that is subtracted, for pixels in [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation of each channel that is divided by, for pixels in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CropSource:
    """Images that are cropped again in each step."""

    pixels_NHH3: NDArray[np.uint8]
    tower: Tower

    def __len__(self) -> int:
        """Number of images, N."""
        return len(self.pixels_NHH3)

    def batches(self, recipe: Recipe, generator: torch.Generator) -> CropBatches:
        """Batches of features, computed on the generator's device."""
        return CropBatches(self, recipe, generator)


class CropBatches:
    """Batches of features of random crops. The images lie on the device once, as uint8."""

    def __init__(self, source: CropSource, recipe: Recipe, generator: torch.Generator) -> None:
        assert recipe.smallest_crop is not None
        self._recipe, self._generator, self._tower = recipe, generator, source.tower
        self._smallest_crop = recipe.smallest_crop
        self._pixels_NHH3 = torch.from_numpy(source.pixels_NHH3).to(generator.device)
        self._network = source.tower.network.to(generator.device).eval()
        # Made once, here: a recorded step cannot copy from the host.
        self._mean_311, self._std_311 = (
            torch.tensor(values, device=generator.device).view(3, 1, 1)
            for values in (self._tower.mean, self._tower.std)
        )

    def positions(self) -> Iterator[Tensor]:
        """Positions (B,) int64 of every batch of a training."""
        return draw_positions(len(self._pixels_NHH3), self._recipe, self._generator)

    @torch.no_grad()
    def augment(self, picked_B: Tensor) -> Tensor:
        """Features (B, F) float32 of a new crop of each of those images."""
        pixels_BHH3 = self._pixels_NHH3[picked_B]
        boxes_B4 = random_boxes(len(picked_B), pixels_BHH3.shape[1], self._smallest_crop, self._generator)
        crops_B3SS = resized_crops(pixels_BHH3, boxes_B4, self._tower.image_size)
        with autocast(self._recipe, self._generator.device):
            features_BF: Tensor = self._network(crops_B3SS.div(255).sub(self._mean_311).div(self._std_311))
        return features_BF.float()


def random_boxes(num: int, size: int, smallest: float, generator: torch.Generator) -> Tensor:
    """Boxes (B, 4) int64 in a square of that size: top, left, height and width.

    A box has a share of the area uniform in [smallest, 1] and an aspect ratio log-uniform in `ASPECT`, both rounded to
    pixels, and lies anywhere. Of `TRIES` draws the first that fits is taken, else the whole square.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=generator.device)

    low, high = (math.log(ratio) for ratio in ASPECT)
    area_BT = size * size * (smallest + (1.0 - smallest) * uniform(num, TRIES))
    ratio_BT = (low + (high - low) * uniform(num, TRIES)).exp()
    width_BT, height_BT = (area_BT * ratio_BT).sqrt().round(), (area_BT / ratio_BT).sqrt().round()
    fits_BT = (width_BT <= size) & (height_BT <= size) & (width_BT > 0) & (height_BT > 0)
    order_T = torch.arange(TRIES, 0, -1, device=generator.device)
    first_B1 = (fits_BT * order_T).argmax(dim=1, keepdim=True)
    fits_B = fits_BT.any(dim=1)
    sides_B2 = torch.cat([height_BT.gather(1, first_B1), width_BT.gather(1, first_B1)], dim=1)
    sides_B2 = sides_B2.masked_fill(~fits_B[:, None], size).long()
    room_B2 = size - sides_B2
    corners_B2 = torch.minimum((uniform(num, 2) * (room_B2 + 1)).long(), room_B2)
    return torch.cat([corners_B2, sides_B2], dim=1)


def resized_crops(pixels_BHH3: Tensor, boxes_B4: Tensor, size: int) -> Tensor:
    """The boxes (top, left, height, width) of images (B, H, H, 3) uint8, resized to (B, 3, size, size).

    Whole numbers 0..255 as float32.
    """
    # First across, then down, each rounded to whole levels: this is how PIL resizes, and its pixels are the reference.
    images_B3HH = pixels_BHH3.permute(0, 3, 1, 2).float()
    top_B, left_B, height_B, width_B = boxes_B4.unbind(dim=1)
    across_BSH = resize_weights(left_B, width_B, images_B3HH.shape[3], size)
    down_BSH = resize_weights(top_B, height_B, images_B3HH.shape[2], size)
    wide_B3HS = _rounded(images_B3HH @ across_BSH.transpose(1, 2)[:, None])
    return _rounded(down_BSH[:, None] @ wide_B3HS)


def resize_weights(first_B: Tensor, length_B: Tensor, num: int, size: int) -> Tensor:
    """Weights (B, size, num): row i gives pixel i of a stretch of `length_B` pixels from `first_B` on, resized.

    Keys' cubic (a = -1/2), wider if the stretch is made shorter; pixels outside the stretch have weight 0.
    """
    scale_B11 = (length_B.float() / size)[:, None, None]
    wide_B11 = scale_B11.clamp(min=1.0)
    centre_BS1 = (torch.arange(size, device=first_B.device)[None, :, None] + 0.5) * scale_B11
    place_B1H = torch.arange(num, device=first_B.device)[None, None, :] - first_B[:, None, None]
    inside_B1H = (place_B1H >= 0) & (place_B1H < length_B[:, None, None])
    weights_BSH = cubic((place_B1H + 0.5 - centre_BS1) / wide_B11) * inside_B1H
    return weights_BSH / weights_BSH.sum(dim=2, keepdim=True)


def cubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -1/2."""
    x = distance.abs()
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return near * (x < 1) + far * ((x >= 1) & (x < 2))


def _rounded(values: Tensor) -> Tensor:
    return (values + 0.5).floor().clamp(0, 255)
