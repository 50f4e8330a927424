"""Encoding of images and class names by a CLIPN: its input, its tokens, and the rows that the feature store keeps.

Shapes: B batch, C classes, D embedding, H height, L tokens, N images, S the tower's input size, T templates, W width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional
from torchvision.transforms.functional import InterpolationMode, center_crop, resize  # open_clip has loaded it

from data.imageset import Images
from models.clipn.model import Clipn
from models.clipn.preprocessing import CLIP_PREPROCESSING, Preprocessing
from models.clipn.tokens import filled, tokenize, tokenize_classes
from models.clipn.towers import OpenTowers
from models.device import free_cores, process_memory
from models.graphs import CompiledForward, compiled_forward

CPU_PIXELS = 16 * 224**2
"""Pixels per forward pass on a CPU: 16 images of a ViT-B/16. They take 111 MB for activations, 48 images 406 MB (256:
2 GB) and 9 % longer; the features are equal to the bit (one core, n = 1)."""
CPU_IMAGES = 256
"""Most images per forward pass on a CPU."""

COMPILE_TOWER_FROM = 200_000
"""Images from which the tower is compiled on a GPU. Compiling takes 4 s (from the cache) to 40 s, in which the tower as
it is encodes 40,000 to 400,000 images (10,184 images/s, ViT-B/16 in bfloat16, H200, n = 1); what it gains was not
measured yet (`benchmarks/gpu_check.py` does)."""
TOWER_BYTES = 16 << 20
"""GPU memory per image of a batch, a round figure for a ViT-B/16."""
LARGEST_BATCH = 1024
READ_PART = 32
"""Images that a worker reads and resizes at a time."""


class TowerPass:
    """The image tower in the form that features are computed with: (B, 3, S, S) float32 -> (B, D), not normalised."""

    def __init__(
        self, clipn: Clipn | OpenTowers, *, precision: Literal["fp32", "bf16"], compiled: bool = False
    ) -> None:
        """Compute on the device of the weights; `bf16` means bfloat16 products, with sums and weights in float32."""
        self._device = clipn.device
        self._in_bf16 = precision == "bf16"
        self._visual = clipn.visual
        self._image_size = clipn.image_size
        self._forward = CompiledForward(compiled_forward if compiled else None, what="the image tower is")

    def __call__(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        """Features (B, D), on the device."""
        features: list[torch.Tensor] = []
        # Without this, CUDA would round a convolution's float32 inputs to 10 bits of mantissa.
        with (
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
            torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._in_bf16),
        ):
            self._forward.run(self._visual, lambda: features.append(self._visual(images_B3SS)), len(images_B3SS))
        return features[-1]

    @property
    def batch_size(self) -> int:
        """Number of images per pass: on a GPU as many as a quarter of this process's memory holds.

        A power of 2.
        """
        if self._device.type != "cuda":
            fits = min(CPU_IMAGES, CPU_PIXELS // self._image_size**2)
            return 1 << max(0, fits.bit_length() - 1)
        fits = process_memory(self._device) // 4 // TOWER_BYTES
        return max(32, min(LARGEST_BATCH, 1 << max(0, fits.bit_length() - 1)))


class ImageRows:
    """Source of image features (N, D): row i is the image tower's feature of image i, normalised."""

    def __init__(
        self,
        clipn: Clipn | OpenTowers,
        images: Images,
        *,
        precision: Literal["fp32", "bf16"] = "fp32",
        preprocessing: Preprocessing = CLIP_PREPROCESSING,
    ) -> None:
        """Compute with `clipn`, on the device of its weights, in the `precision` of `TowerPass`.

        On a GPU, threads on the free cores read and resize the images ahead of the tower.
        """
        self._clipn = clipn
        self._images = images
        self._preprocessing = preprocessing
        on_gpu = clipn.device.type == "cuda"
        compiled = on_gpu and len(images) >= COMPILE_TOWER_FROM and not torch.are_deterministic_algorithms_enabled()
        self._tower = TowerPass(clipn, precision=precision, compiled=compiled)
        self._workers = ThreadPoolExecutor(free_cores(), thread_name_prefix="images") if on_gpu else None
        self._read: dict[int, list[Future[NDArray[np.uint8]]]] = {}
        """First image of a batch -> the parts of the batch, which are being read."""

    @property
    def facts(self) -> Mapping[str, float]:
        """The logit scale of the checkpoint."""
        return {"logit_scale": float(self._clipn.logit_scale.detach().exp())}

    def compute(self, start: int, stop: int) -> NDArray[np.float32]:
        """Features (B, D) float32 of the images `start` to `stop` (excluded)."""
        size = self._tower.batch_size
        if self._workers is not None:  # the images of the next call too, which are most likely those that follow
            for at in range(start, min(2 * stop - start, len(self._images)), size):
                self._read_ahead(at, min(at + size, stop if at < stop else 2 * stop - start, len(self._images)))
        return np.concatenate([self._encode(at, min(at + size, stop)) for at in range(start, stop, size)])

    @torch.inference_mode()
    def _encode(self, start: int, stop: int) -> NDArray[np.float32]:
        """Unit features (B, D) of the images `start` to `stop` (excluded)."""
        pixels_BSS3 = self._pixels(start, stop)
        features_BD = self._tower(network_input(pixels_BSS3, self._clipn.device, self._preprocessing))
        return np.asarray(functional.normalize(features_BD.float(), dim=1).cpu().numpy())

    def _pixels(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Pixels (B, S, S, 3) of the images `start` to `stop` (excluded), read ahead if possible."""
        parts = self._read.pop(start, None)
        if parts is None:
            return self._load(start, stop)
        pixels_BSS3 = np.concatenate([part.result() for part in parts])
        return pixels_BSS3[: stop - start]

    def _read_ahead(self, start: int, stop: int) -> None:
        """Let the workers read the images `start` to `stop` (excluded), in parts."""
        if self._workers is None or start in self._read:
            return
        bounds = [(at, min(at + READ_PART, stop)) for at in range(start, stop, READ_PART)]
        self._read[start] = [self._workers.submit(self._load, *bound) for bound in bounds]

    def _load(self, start: int, stop: int) -> NDArray[np.uint8]:
        return resize_batch(self._images.load(np.arange(start, stop)), self._clipn.image_size, self._preprocessing)


class ClassRows:
    """Source of class features (C, 2 D): row c is class c's "yes" then its "no" feature, both of unit length."""

    def __init__(self, clipn: Clipn, phrases: Sequence[str], templates: Sequence[str]) -> None:
        """Compute with `clipn` for class phrases (`models.clipn.prompts.class_phrases`) in every template."""
        self._clipn = clipn
        self._phrases = phrases
        self._templates = templates

    @property
    def facts(self) -> Mapping[str, float]:
        """Empty: these rows have no further numbers."""
        return {}

    def compute(self, start: int, stop: int) -> NDArray[np.float32]:
        """Features of the classes `start` to `stop` (excluded). Raises ValueError for texts that are too long."""
        tokens_CTL = tokenize_classes(self._phrases[start:stop], self._templates, self._clipn.context_length)
        yes_CD, no_CD = encode_classes(self._clipn, tokens_CTL)
        return np.asarray(torch.cat([yes_CD, no_CD], dim=1).cpu().numpy())


class YesRows:
    """Source of class features (C, D) of towers without a "no" tower: row c is class c's "yes" feature, unit length."""

    def __init__(self, towers: OpenTowers, phrases: Sequence[str], templates: Sequence[str]) -> None:
        """Compute for class phrases (`models.clipn.prompts.class_phrases`) in every template."""
        self._towers = towers
        self._phrases = phrases
        self._templates = templates

    @property
    def facts(self) -> Mapping[str, float]:
        """Empty: these rows have no further numbers."""
        return {}

    @torch.inference_mode()
    def compute(self, start: int, stop: int) -> NDArray[np.float32]:
        """Features of the classes `start` to `stop` (excluded). Raises ValueError for texts that are too long."""
        tokens_BL = self._towers.tokenize(filled(self._phrases[start:stop], self._templates))
        mean_CD = _class_means(self._towers.encode_yes, tokens_BL, stop - start, self._towers.device)
        return np.asarray(mean_CD.cpu().numpy())


class SentenceRows:
    """Source of sentence features (n, D): row i is the "yes" tower's feature of sentence i, normalised."""

    def __init__(self, clipn: Clipn | OpenTowers, texts: Sequence[str]) -> None:
        self._clipn = clipn
        self._texts = texts

    @property
    def facts(self) -> Mapping[str, float]:
        """Empty: these rows have no further numbers."""
        return {}

    @torch.inference_mode()
    def compute(self, start: int, stop: int) -> NDArray[np.float32]:
        """Features of the sentences `start` to `stop` (excluded). Raises ValueError for texts that are too long."""
        # By length, so that a short sentence is not padded to the longest: half the time.
        order = sorted(range(start, stop), key=lambda place: len(self._texts[place]))
        rows_BD = np.empty((stop - start, self._clipn.embed_dim), dtype=np.float32)
        for at in range(0, len(order), TEXT_BATCH):
            places = order[at : at + TEXT_BATCH]
            tokens_BL = self._tokens([self._texts[place] for place in places])
            features_BD = self._clipn.encode_yes(tokens_BL.to(self._clipn.device)).float()
            rows_BD[np.array(places) - start] = functional.normalize(features_BD, dim=1).cpu().numpy()
        return rows_BD

    def _tokens(self, texts: Sequence[str]) -> torch.Tensor:
        if isinstance(self._clipn, Clipn):
            return tokenize(texts, self._clipn.context_length)
        return self._clipn.tokenize(texts)


_INTERPOLATION = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}


def resize_and_crop(
    image_HW3: NDArray[np.uint8], size: int, preprocessing: Preprocessing = CLIP_PREPROCESSING
) -> NDArray[np.uint8]:
    """The image (size, size, 3) uint8: shorter side resized to `size` pixels, then the centre cropped; or squashed.

    An image whose shorter side is `size` already is only cropped.
    """
    is_squashed = preprocessing.resize_mode == "squash"
    # On PIL images, as in the reference: on tensors torchvision rounds differently.
    picture = resize(
        Image.fromarray(image_HW3),
        [size, size] if is_squashed else [size],
        _INTERPOLATION[preprocessing.interpolation],
    )
    return np.array(center_crop(picture, [size, size]))  # a copy: torch warns about read-only arrays


def resize_batch(
    images_BHW3: NDArray[np.uint8], size: int, preprocessing: Preprocessing = CLIP_PREPROCESSING
) -> NDArray[np.uint8]:
    """The images resized by `resize_and_crop`: (B, size, size, 3) uint8."""
    if images_BHW3.shape[1:3] == (size, size):
        return images_BHW3
    return np.stack([resize_and_crop(image_HW3, size, preprocessing) for image_HW3 in images_BHW3])


def network_input(
    images_BSS3: NDArray[np.uint8], device: torch.device, preprocessing: Preprocessing = CLIP_PREPROCESSING
) -> torch.Tensor:
    """The images (B, 3, S, S) float32 on `device`: scaled to [0, 1], then normalised by mean and deviation."""
    return normalised(torch.from_numpy(np.ascontiguousarray(images_BSS3)).to(device), preprocessing)


def normalised(images_BSS3: torch.Tensor, preprocessing: Preprocessing = CLIP_PREPROCESSING) -> torch.Tensor:
    """The image tower's input (B, 3, S, S) float32 from pixels (B, S, S, 3) uint8, on the device of the pixels."""
    mean_311, std_311 = _mean_and_std(images_BSS3.device, preprocessing)
    return images_BSS3.permute(0, 3, 1, 2).float().div(255).sub(mean_311).div(std_311).contiguous()


@functools.cache
def _mean_and_std(device: torch.device, preprocessing: Preprocessing) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation (3, 1, 1) of a preprocessing on a device."""
    # Made once: recorded work cannot copy from the host.
    with torch.inference_mode(mode=False):
        mean_311, std_311 = (
            torch.tensor(three, device=device).view(3, 1, 1) for three in (preprocessing.mean, preprocessing.std)
        )
    return mean_311, std_311


TEXT_BATCH = 256
"""Texts per forward pass."""
CPU_CLASS_TEXTS = 32
"""Texts of class names, 77 tokens each, per forward pass on a CPU: 49 MB for activations in a ViT-B/16's text tower, 64
texts 78 MB and 15 % longer; the features are equal to the bit (one core, n = 1)."""


@torch.inference_mode()
def encode_classes(clipn: Clipn, tokens_CTL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Class features of both text towers, ("yes" (C, D), "no" (C, D)): float32, unit rows.

    Each text's feature is normalised, those of a class's templates are summed, and the sum is normalised.
    """
    yes_CD, no_CD = (
        _class_means(encode, tokens_CTL.flatten(0, 1), len(tokens_CTL), clipn.device)
        for encode in (clipn.encode_yes, clipn.encode_no)
    )
    return yes_CD, no_CD


def _class_means(
    encode: Callable[[torch.Tensor], torch.Tensor], tokens_BL: torch.Tensor, num_classes: int, device: torch.device
) -> torch.Tensor:
    """Unit means (C, D) of the unit features of each class's texts, which follow each other in `tokens_BL`."""
    size = TEXT_BATCH if device.type == "cuda" else CPU_CLASS_TEXTS
    parts = [encode(part_BL.to(device)).float() for part_BL in torch.split(tokens_BL, size)]
    features_CTD = functional.normalize(torch.cat(parts), dim=1).reshape(num_classes, -1, parts[0].shape[1])
    return functional.normalize(features_CTD.sum(dim=1), dim=1)
