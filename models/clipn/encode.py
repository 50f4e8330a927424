"""What the feature store computes with a CLIPN: unit image features, and class features of both text towers.

Shapes: B batch, C classes, D embedding, N images, T templates.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from torch.nn import functional

from data.imageset import Images
from models.clipn.model import Clipn
from models.clipn.prompts import fill
from models.clipn.source import CLIP_MEAN, CLIP_STD

IMAGE_BATCH = 256
"""Images per forward pass."""


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
        batches = range(start, stop, IMAGE_BATCH)
        return np.concatenate([self._encode(np.arange(at, min(at + IMAGE_BATCH, stop))) for at in batches])

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


class SentenceRows:
    """Row i is the "yes" tower's feature of sentence i, normalised: (n, D)."""

    def __init__(self, clipn: Clipn, texts: Sequence[str]) -> None:
        self._clipn = clipn
        self._texts = texts

    @property
    def facts(self) -> Mapping[str, float]:
        """None."""
        return {}

    @torch.inference_mode()
    def compute(self, start: int, stop: int) -> NDArray[np.float32]:
        """Features of the sentences `start` to `stop` (excluded). Raises ValueError for texts that are too long."""
        # By length, so that a short sentence is not padded to the longest: half the time.
        order = sorted(range(start, stop), key=lambda place: len(self._texts[place]))
        rows_BD = np.empty((stop - start, self._clipn.embed_dim), dtype=np.float32)
        for at in range(0, len(order), TEXT_BATCH):
            places = order[at : at + TEXT_BATCH]
            tokens_BL = tokenize([self._texts[place] for place in places], self._clipn.context_length)
            features_BD = self._clipn.encode_yes(tokens_BL.to(self._clipn.device)).float()
            rows_BD[np.array(places) - start] = functional.normalize(features_BD, dim=1).cpu().numpy()
        return rows_BD


def resize_and_crop(image_HW3: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The image (size, size, 3) uint8: shorter side brought to `size` pixels, bicubic, then the centre cut out.

    An image whose shorter side is `size` already is only cropped. Same pixels as torchvision's Resize and CenterCrop on
    a PIL image, which the reference uses.
    """
    height, width = image_HW3.shape[:2]
    shorter, longer = sorted((height, width))
    if shorter != size:
        scaled = int(size * longer / shorter)
        width, height = (size, scaled) if width <= height else (scaled, size)
        image_HW3 = np.asarray(Image.fromarray(image_HW3).resize((width, height), Image.Resampling.BICUBIC))
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image_HW3[top : top + size, left : left + size]


def resize_batch(images_BHW3: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """`resize_and_crop` of each image: (B, size, size, 3) uint8."""
    if images_BHW3.shape[1:3] == (size, size):
        return images_BHW3
    return np.stack([resize_and_crop(image_HW3, size) for image_HW3 in images_BHW3])


def network_input(images_BSS3: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """The images (B, 3, S, S) float32 on `device`: scaled to [0, 1], then CLIP's mean and deviation a channel."""
    images_B3SS = torch.from_numpy(np.ascontiguousarray(images_BSS3)).to(device).permute(0, 3, 1, 2).float().div(255)
    mean_311 = torch.tensor(CLIP_MEAN, device=device).view(3, 1, 1)
    std_311 = torch.tensor(CLIP_STD, device=device).view(3, 1, 1)
    return images_B3SS.sub(mean_311).div(std_311).contiguous()


TEXT_BATCH = 256
"""Texts per forward pass."""


@functools.cache
def _tokenizer() -> SimpleTokenizer:
    """CLIP's byte-pair tokeniser; its vocabulary ships with open_clip."""
    return SimpleTokenizer()


def tokenize(texts: Sequence[str], context_length: int) -> torch.Tensor:
    """Token ids (B, L) int64 with start and end token, padded with 0 to the longest of these texts.

    Raises ValueError for a text that needs more than `context_length` tokens (open_clip would cut it silently).
    """
    tokenizer = _tokenizer()
    rows = [[tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id] for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if len(row) > context_length:
            raise ValueError(
                f"text too long: {_shorten(text)!r} needs {len(row)} tokens and the model reads at most "
                f"{context_length}; shorten the class name or the template"
            )
    tokens_BL = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.int64)
    for index, row in enumerate(rows):
        tokens_BL[index, : len(row)] = torch.tensor(row)
    return tokens_BL


def tokenize_classes(phrases: Sequence[str], templates: Sequence[str], context_length: int) -> torch.Tensor:
    """Token ids (C, T, L) of each template filled with each class phrase. Errors as `tokenize`."""
    texts = [fill(template, phrase) for phrase in phrases for template in templates]
    return tokenize(texts, context_length).view(len(phrases), len(templates), -1)


@torch.inference_mode()
def encode_classes(clipn: Clipn, tokens_CTL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Class features of both text towers, ("yes" (C, D), "no" (C, D)): float32, unit rows.

    Each text's feature is normalised, those of a class's templates are summed, and the sum is normalised.
    """
    tokens_BL = tokens_CTL.flatten(0, 1)
    sums_CD = []
    for encode in (clipn.encode_yes, clipn.encode_no):
        parts = [encode(part_BL.to(clipn.device)).float() for part_BL in torch.split(tokens_BL, TEXT_BATCH)]
        features_CTD = functional.normalize(torch.cat(parts), dim=1).reshape(*tokens_CTL.shape[:2], -1)
        sums_CD.append(functional.normalize(features_CTD.sum(dim=1), dim=1))
    return sums_CD[0], sums_CD[1]


def _shorten(text: str) -> str:
    """The text, or its beginning where it is long."""
    return text if len(text) <= 60 else text[:57] + "..."
