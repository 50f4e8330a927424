"""E2OAL's target network: a head for the K ID classes and an evidential one for these and the hidden OOD classes.

Source: Zong et al., CVPR 2026 (arXiv 2603.07898); the evidential loss is Sensoy, Kaplan and Kandemir, NeurIPS 2018.

Shapes: B batch, K ID classes, U hidden OOD classes, A = K + U, D features.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.classifier.networks import Classifier
from models.classifier.open_set import masked_mean

LARGEST_LOGIT = 10.0
"""Bound of the logits of the evidential head: evidence is their exponential."""
ANNEALING = 10
"""Passes over which the weight of the divergence grows from 0 to 1."""


class EvidentialClassifier(nn.Module):
    """A network with a second head on its features; that one is judged, on the ID classes alone."""

    def __init__(self, network: Classifier, num_known: int, num_hidden: int) -> None:
        super().__init__()
        self.network = network
        self.evidence = nn.Linear(network.head.in_features, num_known + num_hidden)
        self.num_known = num_known

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """The evidential head's logits of the ID classes (B, K), and features (B, D), of normalised images."""
        _, features_BD = self.network(images_B3HW)
        return self.evidence(features_BD)[:, : self.num_known], features_BD

    def heads(self, features_BD: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of both heads, (B, K) and (B, A), from features."""
        return self.network.head(features_BD), self.evidence(features_BD)


def evidential_loss(logits_BA: Tensor, labels_B: Tensor, weight: Tensor | float) -> Tensor:
    """Mean loss () of evidential logits: log S - log alpha of the label, plus `weight` times a divergence.

    alpha = exp(logit) + 1 with logits cut at +-10, S their sum. The divergence is that of the Dirichlet distribution
    from the uniform one, over A, with the label's alpha set to 1: evidence for wrong classes costs.
    """
    num_classes = logits_BA.shape[1]
    alpha_BA = logits_BA.clamp(-LARGEST_LOGIT, LARGEST_LOGIT).exp() + 1.0
    data_B = alpha_BA.sum(dim=1).log() - alpha_BA.gather(1, labels_B[:, None])[:, 0].log()
    wrong_BA = alpha_BA.scatter(1, labels_B[:, None], 1.0)
    total_B1 = wrong_BA.sum(dim=1, keepdim=True)
    gap_BA = (wrong_BA - 1.0) * (torch.digamma(wrong_BA) - torch.digamma(total_B1))
    # A number, not a tensor: a copy to the GPU cannot be recorded.
    ones = math.lgamma(num_classes)
    divergence_B = torch.lgamma(total_B1[:, 0]) - ones - torch.lgamma(wrong_BA).sum(dim=1) + gap_BA.sum(dim=1)
    return data_B.mean() + weight * divergence_B.mean() / num_classes


class EvidentialObjective:
    """Objective of cross entropy on the ID images and the evidential loss on all; labels are 0..A-1.

    A batch without ID images counts 0 for the first part; the original divides 0 by 0 there.
    """

    def __init__(self, *, passes: int, temperature: float, device: torch.device) -> None:
        """`passes`: length of the training, `temperature`: that of the cross entropy."""
        self._passes, self._temperature = passes, temperature
        # A tensor, since a recorded step would repeat the number it was recorded with.
        self._weight = torch.zeros((), device=device)

    def prepare(self, network: nn.Module, done: float) -> None:
        """Raise the divergence's weight: pass e counts min(1, e / 10)."""
        self._weight.fill_(min(1.0, done * self._passes / ANNEALING))

    def phase(self) -> Hashable | None:
        """One phase: images are masked, not selected."""
        return "evidential"

    def loss(self, network: nn.Module, images_B3HW: Tensor, labels_B: Tensor, picked_B: Tensor) -> Tensor:
        """Cross entropy of the base head plus the evidential loss."""
        assert isinstance(network, EvidentialClassifier)
        # Through the network's own call, which may be compiled; the heads are two small products after it.
        _, features_BD = network(images_B3HW)
        base_BK, evidence_BA = network.heads(features_BD)
        known_B = labels_B.clamp(max=network.num_known - 1)
        entropy_B = F.cross_entropy(base_BK.float() / self._temperature, known_B, reduction="none")
        base = masked_mean(entropy_B, labels_B < network.num_known)
        return base + evidential_loss(evidence_BA.float(), labels_B, self._weight)

    def other_parameters(self, network: nn.Module) -> Iterable[nn.Parameter]:
        """Both heads learn at the network's rate."""
        return ()


def add_evidence(network: Classifier, *, num_known: int, num_hidden: int, weights_seed: int) -> EvidentialClassifier:
    """The network with an evidential head whose initial weights depend on `weights_seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights_seed)
        return EvidentialClassifier(network, num_known, num_hidden)
