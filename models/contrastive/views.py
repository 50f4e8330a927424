"""Random views of images for contrastive learning, made in batches on the device. Pixels are in [0, 1].

Shapes: B images, H and W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

# Luma and two chroma axes (NTSC): in their plane hue is an angle and saturation a length.
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """Random generator of views (Chen et al. 2020, with MQNet's and CCAL's strengths)."""

    crop: tuple[float, float]
    """Smallest and largest share of the area that a crop keeps."""
    flip: bool
    colour: bool
    """Jitter of brightness, contrast and saturation by 0.4 and of hue by 0.1 (probability 0.8), grey (0.2)."""

    def draw(self, images_B3HW: Tensor, generator: torch.Generator) -> Tensor:
        """A view (B, 3, H, W) of each image, in [0, 1]."""
        views = _cropped(images_B3HW, self.crop, self.flip, generator)
        return _coloured(views, generator) if self.colour else views


def _uniform(low: float, high: float, num: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(num, generator=generator, device=generator.device)


def _cropped(images_B3HW: Tensor, crop: tuple[float, float], flip: bool, generator: torch.Generator) -> Tensor:
    """Random parts of the images, stretched to the images' size; parts outside an image are reflected."""
    num = len(images_B3HW)
    area = _uniform(*crop, num, generator)
    ratio = torch.exp(_uniform(math.log(3 / 4), math.log(4 / 3), num, generator))
    wide, high = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    left, top = ((1 - side) * _uniform(-1, 1, num, generator) for side in (wide, high))
    if flip:
        wide = torch.where(_uniform(0, 1, num, generator) < 0.5, -wide, wide)
    zero = torch.zeros_like(wide)
    move_B23 = torch.stack([torch.stack([wide, zero, left], 1), torch.stack([zero, high, top], 1)], 1)
    grid = F.affine_grid(move_B23, list(images_B3HW.shape), align_corners=False)
    return F.grid_sample(images_B3HW, grid, padding_mode="reflection", align_corners=False)


def _coloured(images_B3HW: Tensor, generator: torch.Generator) -> Tensor:
    """The images, some with changed brightness, contrast, saturation and hue, and some of all of them in grey."""
    num, device = len(images_B3HW), images_B3HW.device
    jittered = images_B3HW
    contrast_first = torch.rand((), generator=generator, device=device) < 0.5
    if device.type == "cuda":
        jittered = _in_either_order(images_B3HW, contrast_first, generator)
    else:
        for is_contrast in (bool(contrast_first), not bool(contrast_first)):
            change = _contrast if is_contrast else _hue_saturation_brightness
            jittered = change(jittered, generator).clamp(0, 1)
    is_jittered = _uniform(0, 1, num, generator) < 0.8
    views = torch.where(is_jittered[:, None, None, None], jittered, images_B3HW)
    luma = _yiq(device)[0][0]
    grey = torch.einsum("bchw,c->bhw", views, luma)[:, None].expand_as(views)
    is_grey = _uniform(0, 1, num, generator) < 0.2
    return torch.where(is_grey[:, None, None, None], grey, views)


def _in_either_order(images_B3HW: Tensor, contrast_first: Tensor, generator: torch.Generator) -> Tensor:
    """The images after the two changes in the order that `contrast_first` gives."""
    # Both orders are computed and one is selected: a branch on `contrast_first` would wait for the device.
    factor_B111 = _contrast_factor(len(images_B3HW), generator)
    map_B33 = _colour_map(len(images_B3HW), generator)

    def contrast(images: Tensor) -> Tensor:
        return _with_contrast(images, factor_B111).clamp(0, 1)

    def colour(images: Tensor) -> Tensor:
        return torch.einsum("bij,bjhw->bihw", map_B33, images).clamp(0, 1)

    return torch.where(contrast_first, colour(contrast(images_B3HW)), contrast(colour(images_B3HW)))


def _contrast(images_B3HW: Tensor, generator: torch.Generator) -> Tensor:
    return _with_contrast(images_B3HW, _contrast_factor(len(images_B3HW), generator))


def _contrast_factor(num: int, generator: torch.Generator) -> Tensor:
    return _uniform(0.6, 1.4, num, generator)[:, None, None, None]


def _with_contrast(images_B3HW: Tensor, factor_B111: Tensor) -> Tensor:
    mean = images_B3HW.mean(dim=(2, 3), keepdim=True)
    return (images_B3HW - mean) * factor_B111 + mean


def _hue_saturation_brightness(images_B3HW: Tensor, generator: torch.Generator) -> Tensor:
    return torch.einsum("bij,bjhw->bihw", _colour_map(len(images_B3HW), generator), images_B3HW)


def _colour_map(num: int, generator: torch.Generator) -> Tensor:
    """One linear map (B, 3, 3) per picture, which rotates and stretches chroma and changes brightness."""
    device = generator.device
    turn = 2 * math.pi * _uniform(-0.1, 0.1, num, generator)
    saturation, brightness = (_uniform(0.6, 1.4, num, generator) for _ in range(2))
    change_B33 = torch.zeros(num, 3, 3, device=device)
    change_B33[:, 0, 0] = 1
    change_B33[:, 1, 1] = change_B33[:, 2, 2] = saturation * turn.cos()
    change_B33[:, 1, 2], change_B33[:, 2, 1] = -saturation * turn.sin(), saturation * turn.sin()
    to_yiq, from_yiq = _yiq(device)
    return brightness[:, None, None] * (from_yiq @ change_B33 @ to_yiq)


@cache
def _yiq(device: torch.device) -> tuple[Tensor, Tensor]:
    """The maps to luma and chroma, and back, each (3, 3)."""
    # Made once: recorded work cannot copy from the host.
    with torch.inference_mode(mode=False):
        to_yiq = torch.tensor(_TO_YIQ)
        return to_yiq.to(device), to_yiq.inverse().to(device)
