"""The texts that images are trained against: templates filled with class names, or each image's own caption.

Shapes: U texts in all, M texts of a step, N images, B batch, C classes, T templates, L tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from models.clipn.encode import tokenize


class Captions(Protocol):
    """Which texts a training step reads, and which of them belongs to which image."""

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
        """The same captions on a device, where they are drawn with a generator of that device."""
        ...

    def draw(self, idx_B: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """For the images `idx_B`: distinct texts (M,), as rows of `tokens_UL`, and (B,) which of these each has."""
        ...


class ClassCaptions:
    """One text a class and step, whatever the batch: each class in a template drawn for it."""

    def __init__(self, labels: NDArray[np.int64], tokens_CTL: torch.Tensor) -> None:
        """`labels` (N,) are the images' classes, 0..C-1; `tokens_CTL` every class in every template."""
        self._labels_N = torch.from_numpy(labels)
        self._num_classes, self._num_templates = tokens_CTL.shape[:2]
        self._tokens_UL = tokens_CTL.flatten(0, 1)

    @property
    def tokens_UL(self) -> torch.Tensor:
        """Token ids (C * T, L)."""
        return self._tokens_UL

    @property
    def is_static(self) -> bool:
        """Yes: M = C."""
        return True

    def to(self, device: torch.device) -> ClassCaptions:
        """As `Captions.to`."""
        moved = copy.copy(self)
        moved._labels_N, moved._tokens_UL = self._labels_N.to(device), self._tokens_UL.to(device)
        return moved

    def __len__(self) -> int:
        """N, the number of images."""
        return len(self._labels_N)

    def draw(self, idx_B: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """A text for each of the C classes, and the classes of the images."""
        device = generator.device
        template_C = torch.randint(self._num_templates, (self._num_classes,), generator=generator, device=device)
        texts_C = torch.arange(self._num_classes, device=device) * self._num_templates + template_C
        return texts_C, self._labels_N[idx_B]


class PairCaptions:
    """Each image's own caption; images of a batch whose captions are equal share one text."""

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
        """No: the images of a batch may share captions."""
        return False

    def to(self, device: torch.device) -> PairCaptions:
        """As `Captions.to`."""
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
