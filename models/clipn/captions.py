"""Texts that images are trained against: templates filled with class names, or each image's own caption.

Shapes: U texts in total, M texts of a step, N images, B batch, C classes, T templates, L tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from models.clipn.tokens import tokenize


class Captions(Protocol):
    """Source of the texts of each training step, and of the text that belongs to each image."""

    @property
    def tokens_UL(self) -> torch.Tensor:
        """Token ids (U, L) int64 of all texts."""
        ...

    @property
    def is_static(self) -> bool:
        """Whether M is the same in every step and `draw` does not wait for a GPU, so that a step can be recorded."""
        ...

    def __len__(self) -> int:
        """N, the number of images."""
        ...

    def to(self, device: torch.device) -> Captions:
        """A copy of the captions on a device, to be drawn from with a generator of that device."""
        ...

    def draw(self, idx_B: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """For the images `idx_B`: distinct texts (M,) as rows of `tokens_UL`, and (B,) which is each image's text."""
        ...


class ClassCaptions:
    """One text per class and step, whatever the batch: each class in a template drawn for it."""

    def __init__(self, labels: NDArray[np.int64], tokens_CTL: torch.Tensor) -> None:
        """`labels` (N,) are the images' classes, 0..C-1; `tokens_CTL` holds every class in every template."""
        self._labels_N = torch.from_numpy(labels)
        self._num_classes, self._num_templates = tokens_CTL.shape[:2]
        self._tokens_UL = tokens_CTL.flatten(0, 1)

    @property
    def tokens_UL(self) -> torch.Tensor:
        """Token ids (C * T, L) of every class in every template."""
        return self._tokens_UL

    @property
    def is_static(self) -> bool:
        """True, because M = C in every step."""
        return True

    def to(self, device: torch.device) -> ClassCaptions:
        """A copy of the captions on a device."""
        moved = copy.copy(self)
        moved._labels_N, moved._tokens_UL = self._labels_N.to(device), self._tokens_UL.to(device)
        return moved

    def __len__(self) -> int:
        """N, the number of images."""
        return len(self._labels_N)

    def draw(self, idx_B: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """One text (C,) for each class, and the classes (B,) of the images."""
        device = generator.device
        template_C = torch.randint(self._num_templates, (self._num_classes,), generator=generator, device=device)
        texts_C = torch.arange(self._num_classes, device=device) * self._num_templates + template_C
        return texts_C, self._labels_N[idx_B]


class PairCaptions:
    """The image's own caption for each image; images of a batch with equal captions share one text."""

    def __init__(self, captions: Sequence[str], context_length: int) -> None:
        """Caption i belongs to image i. Raises ValueError for one that needs more than `context_length` tokens."""
        distinct = sorted(set(captions))
        place = {caption: row for row, caption in enumerate(distinct)}
        self._text_N = torch.tensor([place[caption] for caption in captions])
        self._tokens_UL = tokenize(distinct, context_length)

    @property
    def tokens_UL(self) -> torch.Tensor:
        """Token ids (U, L) of the distinct captions."""
        return self._tokens_UL

    @property
    def is_static(self) -> bool:
        """False, because the images of a batch may share captions."""
        return False

    def to(self, device: torch.device) -> PairCaptions:
        """A copy of the captions on a device."""
        moved = copy.copy(self)
        moved._text_N, moved._tokens_UL = self._text_N.to(device), self._tokens_UL.to(device)
        return moved

    def __len__(self) -> int:
        """N, the number of images."""
        return len(self._text_N)

    def draw(self, idx_B: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The distinct captions of these images, and the place of each image's caption among them; nothing is drawn."""
        del generator
        texts_M, target_B = torch.unique(self._text_N[idx_B], return_inverse=True)
        return texts_M, target_B
