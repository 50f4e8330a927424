"""EAOA's training of a detector of K + 1 classes: low energy for ID images, high energy for OOD ones.

Source: Zong and Huang, Rethinking Epistemic and Aleatoric Uncertainty for Active Open-Set Annotation: An Energy-Based
Approach, CVPR 2025.

Shapes: B batch, K ID classes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from torch import Tensor, nn
from torch.nn import functional as F

from models.classifier.open_set import masked_mean


def energy_penalty(logits_BK1: Tensor, labels_B: Tensor, *, known: float, unknown: float) -> Tensor:
    """Mean squared excess () of the ID images' energy over `known`, plus that of `unknown` over the OOD images'.

    The energy is -logsumexp of the K known logits; labels are 0..K-1, and K for OOD. A kind without an image counts 0.
    """
    energy_B = -logits_BK1[:, :-1].logsumexp(dim=1)
    is_ood_B = labels_B == logits_BK1.shape[1] - 1
    # The mean of an empty group is NaN in the original code: a batch of one kind ends its training.
    above = masked_mean((energy_B - known).relu().square(), ~is_ood_B)
    return above + masked_mean((unknown - energy_B).relu().square(), is_ood_B)


class EnergyObjective:
    """Cross entropy of K + 1 classes plus `weight` times the energy penalty; with weight 0 the cross entropy alone."""

    def __init__(self, *, weight: float, known: float, unknown: float, temperature: float = 1.0) -> None:
        self._weight, self._known, self._unknown, self._temperature = weight, known, unknown, temperature

    def prepare(self, network: nn.Module, done: float) -> None:
        """Change nothing before a pass."""

    def phase(self) -> Hashable | None:
        """One phase for all steps, because every step launches the same kernels."""
        return "energy"

    def loss(self, network: nn.Module, images_B3HW: Tensor, labels_B: Tensor, picked_B: Tensor) -> Tensor:
        """The loss () of a batch of ID and OOD images."""
        logits_BK1: Tensor = network(images_B3HW)[0].float()
        loss = F.cross_entropy(logits_BK1 / self._temperature, labels_B)
        if self._weight:
            loss = loss + self._weight * energy_penalty(logits_BK1, labels_B, known=self._known, unknown=self._unknown)
        return loss

    def other_parameters(self, network: nn.Module) -> Iterable[nn.Parameter]:
        """The objective has no parameters of its own."""
        return ()
