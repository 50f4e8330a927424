"""BUAL's negative training: an image is not of a drawn other class, and unlabelled images get drawn labels.

Source: Zong et al., Bidirectional Uncertainty-Based Active Learning for Open-Set Annotation, ECCV 2024.

Shapes: B batch, K ID classes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import torch
from torch import Tensor, nn

FLOOR = 1e-5
"""Smallest 1 - p of which the logarithm is taken."""


def complementary_labels(labels_B: Tensor, num_classes: int) -> Tensor:
    """A drawn class (B,) other than each label; a label of `num_classes` (unlabelled) is drawn first."""
    drawn_B = torch.randint(num_classes, labels_B.shape, device=labels_B.device)
    own_B = torch.where(labels_B < num_classes, labels_B, drawn_B)
    shift_B = torch.randint(1, num_classes, labels_B.shape, device=labels_B.device)
    return (own_B + shift_B) % num_classes


def negative_loss(logits_BK: Tensor, complementary_B: Tensor) -> Tensor:
    """Mean () of -ln(1 - p) of the complementary classes."""
    probs_B = logits_BK.softmax(dim=1).gather(1, complementary_B[:, None])[:, 0]
    return -(1.0 - probs_B).clamp(min=FLOOR).log().mean()


class NegativeObjective:
    """Negative learning over K >= 2 classes; draws from torch's own generator, which `fit` starts at its seed."""

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes

    def prepare(self, network: nn.Module, done: float) -> None:
        """Change nothing before a pass."""

    def phase(self) -> Hashable | None:
        """A constant: every step launches the same kernels, so that all may share one recording."""
        return "negative"

    def loss(self, network: nn.Module, images_B3HW: Tensor, labels_B: Tensor, picked_B: Tensor) -> Tensor:
        """The loss () of a batch; labels are 0..K-1, and K for unlabelled images."""
        logits_BK: Tensor = network(images_B3HW)[0].float()
        return negative_loss(logits_BK, complementary_labels(labels_B, self._num_classes))

    def other_parameters(self, network: nn.Module) -> Iterable[nn.Parameter]:
        """The objective has no parameters of its own."""
        return ()
