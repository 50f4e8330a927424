"""EOAL's detector of OOD images: a classifier with one more class, and a yes-or-no head for each ID class.

Source: Safaei, Vibashan, de Melo and Patel, Entropic Open-set Active Learning, AAAI 2024.

Shapes: B batch, K ID classes, D features, C clusters of OOD images, N training images.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.classifier.networks import Classifier

TINY = 1e-8
"""Number added to probabilities before their logarithm."""


class OpenSetDetector(nn.Module):
    """A classifier over K + 1 classes, the last of them OOD, with K binary classifiers on its features."""

    def __init__(self, network: Classifier, num_known: int) -> None:
        super().__init__()
        self.network = network
        self.binary = nn.Linear(network.head.in_features, 2 * num_known, bias=False)

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K + 1) and features (B, D) of normalised images."""
        logits_BK1, features_BD = self.network(images_B3HW)
        return logits_BK1, features_BD


def known_loss(binary_B2K: Tensor, labels_B: Tensor, factor: float) -> Tensor:
    """Loss () of known images by the binary classifiers' logits (B, 2, K), row 1 "is class k"; 0 without an image.

    Half of `factor` times the mean of -ln p("yes") of the true class plus that of the worst -ln p("no") of the others.
    """
    if not len(labels_B):
        return binary_B2K.sum() * 0.0
    probs_B2K = binary_B2K.softmax(dim=1)
    is_true_BK = F.one_hot(labels_B, binary_B2K.shape[2]).bool()
    yes_B = -(probs_B2K[:, 1] + TINY).log()[is_true_BK]
    no_BK = -(probs_B2K[:, 0] + TINY).log()
    worst_B = no_BK.masked_fill(is_true_BK, 0.0).amax(dim=1)
    return factor / 2 * (yes_B.mean() + worst_B.mean())


def unknown_loss(binary_B2K: Tensor, alpha: float) -> Tensor:
    """Loss () of OOD images, smallest if all binary classifiers are undecided; 0 without an image."""
    if not len(binary_B2K):
        return binary_B2K.sum() * 0.0
    logs_B2K = (binary_B2K.softmax(dim=1) + TINY).log()
    return alpha / (2 * binary_B2K.shape[2]) * -logs_B2K.sum(dim=(1, 2)).mean()


def cluster_loss(features_BD: Tensor, centres_CD: Tensor, clusters_B: Tensor) -> Tensor:
    """Loss () that pulls OOD features to the centre of their own cluster and away from others; 0 without an image."""
    if not len(features_BD):
        return features_BD.sum() * 0.0
    distances_BC = (features_BD[:, None] - centres_CD).square().sum(dim=2).clamp(min=1e-24).sqrt()
    own_B1 = distances_BC.gather(1, clusters_B[:, None])
    others_BC = (own_B1 - distances_BC).exp().scatter(1, clusters_B[:, None], 0.0)
    return 0.1 * own_B1.mean() + (1.0 + others_BC.sum(dim=1)).log().mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """Clusters of the OOD images in tensors of fixed addresses and sizes, so that a recorded step reads them."""

    centres_KD: Tensor
    """Centres in the first rows; the other rows are zero."""
    is_centre_K: Tensor
    of_ood_M: Tensor
    """The cluster of each of the M OOD images."""

    def replace(self, centres_CD: Tensor, clusters_M: Tensor) -> None:
        """Replace the clusters, in place, by at most K others."""
        num = len(centres_CD)
        self.centres_KD[:num].copy_(centres_CD)
        self.is_centre_K.copy_(torch.arange(len(self.is_centre_K), device=self.is_centre_K.device) < num)
        self.of_ood_M.copy_(clusters_M)


def masked_losses(binary_B2K: Tensor, labels_B: Tensor, is_ood_B: Tensor, *, factor: float, alpha: float) -> Tensor:
    """Sum () of `known_loss` of the ID and `unknown_loss` of the OOD images of a batch, without waiting for a GPU."""
    probs_B2K = binary_B2K.softmax(dim=1)
    logs_B2K = (probs_B2K + TINY).log()
    num_known = binary_B2K.shape[2]
    true_B1 = labels_B.clamp(max=num_known - 1)[:, None]
    yes_B = -logs_B2K[:, 1].gather(1, true_B1)[:, 0]
    worst_B = (-logs_B2K[:, 0]).scatter(1, true_B1, 0.0).amax(dim=1)
    known = factor / 2 * masked_mean(yes_B + worst_B, ~is_ood_B)
    return known + alpha / (2 * num_known) * masked_mean(-logs_B2K.sum(dim=(1, 2)), is_ood_B)


def masked_cluster_loss(features_BD: Tensor, is_ood_B: Tensor, clusters: Clusters, clusters_B: Tensor) -> Tensor:
    """Value () of `cluster_loss` for the OOD images of a batch, without waiting for a GPU.

    `clusters_B` may be any cluster for the other images.
    """
    # The ID images are moved to a centre: far from all centres their terms would overflow, and 0 x infinity is NaN.
    centres_BD = clusters.centres_KD[clusters_B]
    features_BD = torch.where(is_ood_B[:, None], features_BD, centres_BD)
    distances_BK = (features_BD[:, None] - clusters.centres_KD).square().sum(dim=2).clamp(min=1e-24).sqrt()
    own_B1 = distances_BK.gather(1, clusters_B[:, None])
    others_BK = (own_B1 - distances_BK).masked_fill(~clusters.is_centre_K, float("-inf")).exp()
    others_BK = others_BK.scatter(1, clusters_B[:, None], 0.0)
    return masked_mean(0.1 * own_B1[:, 0] + (1.0 + others_BK.sum(dim=1)).log(), is_ood_B)


def masked_mean(values_B: Tensor, mask_B: Tensor) -> Tensor:
    """Mean () of the finite values whose `mask_B` is True; 0 if there are none."""
    return torch.where(mask_B, values_B, 0.0).sum() / mask_B.sum().clamp(min=1)


class OpenSetObjective:
    """Objective of EOAL's detector; before each pass the features of the OOD images are clustered again."""

    def __init__(
        self,
        *,
        num_known: int,
        is_ood_N: Tensor,
        ood_features: Callable[[nn.Module], Tensor],
        cluster: Callable[[Tensor], tuple[Tensor, Tensor]],
        temperature: float,
        alpha: float,
        regulariser: float,
        static: bool | None = None,
    ) -> None:
        """`is_ood_N` marks the OOD training images, `ood_features` computes their features (in order), `cluster`
        returns centres (C, D), at most one per known class, and the cluster number of each feature.

        `static`: losses are computed for all images of a batch and masked, so that steps launch equal kernels and can
        be recorded; by default on a GPU. On a CPU the ID and the OOD images are selected; those sums round differently.
        """
        self._num_known = num_known
        self._is_ood_N = is_ood_N
        self._rank_N = is_ood_N.long().cumsum(dim=0) - 1
        self._ood_features = ood_features
        self._cluster = cluster
        self._temperature = temperature
        self._alpha = alpha
        self._has_ood = bool(is_ood_N.any())
        self._factor = 1.0 - alpha if self._has_ood else 1.0
        self._regulariser = regulariser
        self._static = is_ood_N.is_cuda if static is None else static
        self._clusters: tuple[Tensor, Tensor] | None = None
        """Centres (C, D), and the cluster number of each OOD image."""
        self._static_clusters: Clusters | None = None

    def prepare(self, network: nn.Module, done: float) -> None:
        """Cluster the OOD images' features by the network's present weights."""
        if self._has_ood:
            self._clusters = self._cluster(self._ood_features(network))
            if self._static:
                self._keep_in_place(*self._clusters)
            network.train()

    def phase(self) -> Hashable | None:
        """One phase on a GPU; None on a CPU, where the number of OOD images of a batch differs from step to step."""
        return "open set" if self._static else None

    def loss(self, network: nn.Module, images_B3HW: Tensor, labels_B: Tensor, picked_B: Tensor) -> Tensor:
        """Cross entropy, the binary classifiers' losses, and the pull of the clusters."""
        assert isinstance(network, OpenSetDetector)
        logits_BK1, features_BD = network(images_B3HW)
        binary_B2K = network.binary(features_BD).float().view(len(labels_B), 2, self._num_known)
        is_ood_B = self._is_ood_N[picked_B]
        if self._static:
            loss = F.cross_entropy(logits_BK1.float() / self._temperature, labels_B)
            loss = loss + masked_losses(binary_B2K, labels_B, is_ood_B, factor=self._factor, alpha=self._alpha)
            if self._static_clusters is None:
                return loss
            clusters_B = self._static_clusters.of_ood_M[self._rank_N[picked_B].clamp(min=0)]
            pull = masked_cluster_loss(features_BD.float(), is_ood_B, self._static_clusters, clusters_B)
            return loss + self._regulariser * pull
        known, unknown = (~is_ood_B).nonzero()[:, 0], is_ood_B.nonzero()[:, 0]
        loss = F.cross_entropy(logits_BK1.float() / self._temperature, labels_B)
        loss = loss + known_loss(binary_B2K[known], labels_B[known], self._factor)
        loss = loss + unknown_loss(binary_B2K[unknown], self._alpha)
        if self._clusters is not None:
            centres_CD, clusters = self._clusters
            pull = cluster_loss(features_BD[unknown].float(), centres_CD, clusters[self._rank_N[picked_B[unknown]]])
            loss = loss + self._regulariser * pull
        return loss

    def _keep_in_place(self, centres_CD: Tensor, clusters_M: Tensor) -> None:
        """Copy the clusters to the tensors that recorded steps read."""
        if self._static_clusters is None:
            self._static_clusters = Clusters(
                centres_KD=centres_CD.new_zeros(self._num_known, centres_CD.shape[1]),
                is_centre_K=torch.zeros(self._num_known, dtype=torch.bool, device=centres_CD.device),
                of_ood_M=clusters_M.clone(),
            )
        self._static_clusters.replace(centres_CD, clusters_M)

    def other_parameters(self, network: nn.Module) -> Iterable[nn.Parameter]:
        """The parameters of the binary classifiers, which learn at a constant rate."""
        assert isinstance(network, OpenSetDetector)
        return network.binary.parameters()


def build_detector(network: Classifier, num_known: int, *, weights_seed: int) -> OpenSetDetector:
    """The network with binary classifiers whose initial weights depend on `weights_seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights_seed)
        return OpenSetDetector(network, num_known)
