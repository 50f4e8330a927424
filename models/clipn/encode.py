"""What the feature store computes with a CLIPN: unit image features, and class features of both text towers.

Shapes: B batch, C classes, D embedding, N images, T templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from data.imageset import Images
from models.clipn.model import Clipn
from models.clipn.preprocessing import network_input, resize_batch
from models.clipn.text_features import encode_classes, tokenize_classes

BATCH_SIZE = 256
"""Images a forward pass."""


class ImageRows:
    """Row i is the image tower's feature of image i, normalised: (N, D)."""

    def __init__(self, clipn: Clipn, images: Images, *, precision: Literal["fp32", "bf16"] = "fp32") -> None:
        """Compute with `clipn`, where its weights lie; in bfloat16 the products are, the sums and weights are not."""
        self._clipn = clipn
        self._precision = precision
        self._images = images

    @property
    def facts(self) -> Mapping[str, float]:
        """The checkpoint's own logit scale."""
        return {"logit_scale": float(self._clipn.logit_scale.detach().exp())}

    def compute(self, start: int, stop: int) -> NDArray[np.float32]:
        """Features of the images `start` to `stop` (excluded)."""
        batches = range(start, stop, BATCH_SIZE)
        return np.concatenate([self._encode(np.arange(at, min(at + BATCH_SIZE, stop))) for at in batches])

    @torch.inference_mode()
    def _encode(self, idx: NDArray[np.int64]) -> NDArray[np.float32]:
        """Features (B, D) of the images `idx`."""
        pixels_BSS3 = resize_batch(self._images.load(idx), self._clipn.image_size)
        # Without this, CUDA would round a convolution's float32 inputs to 10 bits of mantissa.
        device, in_bf16 = self._clipn.device, self._precision == "bf16"
        with (
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=in_bf16),
        ):
            features_BD = self._clipn.encode_image(network_input(pixels_BSS3, device))
        return np.asarray(functional.normalize(features_BD.float(), dim=1).cpu().numpy())


class ClassRows:
    """Row c is class c's "yes" feature followed by its "no" feature: (C, 2 D), both of unit length."""

    def __init__(self, clipn: Clipn, phrases: Sequence[str], templates: Sequence[str]) -> None:
        """Compute with `clipn` for class phrases (`models.clipn.prompts.class_phrases`) in every template."""
        self._clipn = clipn
        self._phrases = phrases
        self._templates = templates

    @property
    def facts(self) -> Mapping[str, float]:
        """None."""
        return {}

    def compute(self, start: int, stop: int) -> NDArray[np.float32]:
        """Features of the classes `start` to `stop` (excluded). Raises ValueError for texts that are too long."""
        tokens_CTL = tokenize_classes(self._phrases[start:stop], self._templates, self._clipn.context_length)
        yes_CD, no_CD = encode_classes(self._clipn, tokens_CTL)
        return np.asarray(torch.cat([yes_CD, no_CD], dim=1).cpu().numpy())
