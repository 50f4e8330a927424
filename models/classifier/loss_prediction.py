"""Prediction of a classifier's own loss (LL): a head on a network's stages, and the ranking loss that trains it.

Source: D. Yoo and I. S. Kweon, Learning Loss for Active Learning, CVPR 2019.

Shapes: B batch, N values, H hidden units per stage, C channels of a stage.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.classifier.networks import Classifier
from models.classifier.target import Lesson, RoundLabels, Target


class LossPredictionHead(nn.Module):
    """Head that predicts one loss per image from the outputs of a network's stages."""

    def __init__(self, channels: Sequence[int], *, hidden: int = 128) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Linear(num_in, hidden) for num_in in channels)
        self.out = nn.Linear(hidden * len(channels), 1)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Predicted losses (B,) from stage outputs, each (B, C, height, width)."""
        pooled = [layer(stage.mean(dim=(2, 3))) for layer, stage in zip(self.stages, stages, strict=True)]
        predicted: Tensor = self.out(torch.cat([F.relu(hidden_BH) for hidden_BH in pooled], dim=1))
        return predicted[:, 0]


class LossPredicting(nn.Module):
    """A classifier that predicts its own losses."""

    def __init__(self, network: Classifier, *, hidden: int) -> None:
        super().__init__()
        self.network = network
        self.predictor = LossPredictionHead(network.stage_widths, hidden=hidden)
        self.detached = False
        """Whether the gradient of the head's loss stops before the network."""

    @property
    def head(self) -> nn.Linear:
        """The network's last layer."""
        return self.network.head

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, K), features (B, D) and predicted losses (B,) of normalised images."""
        logits_BK, features_BD, stages = self.network.with_stages(images_B3HW)
        if self.detached:
            stages = [stage.detach() for stage in stages]
        return logits_BK, features_BD, self.predictor(stages)


def add_loss_prediction(network: Classifier, *, hidden: int, weights_seed: int) -> LossPredicting:
    """The network with a loss-prediction head whose initial weights depend on `weights_seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights_seed)
        return LossPredicting(network, hidden=hidden)


def ranking_loss(predicted_N: Tensor, true_N: Tensor, margin: float) -> Tensor:
    """Mean over pairs of max(0, margin - s (predicted_i - predicted_j)), a number at least 0.

    Image i is paired with image N - 1 - i; the middle one of an odd batch is in no pair. s is 1 if the true loss of
    i is the larger one, else -1 (also for a tie). A batch without a pair gives 0.
    """
    num_pairs = len(predicted_N) // 2
    if not num_pairs:
        return predicted_N.sum() * 0.0  # not a constant: backward needs a path to the parameters
    first, second = slice(0, num_pairs), slice(-num_pairs, None)
    sign = torch.where(true_N[first] > true_N[second].flip(0), 1.0, -1.0)
    return F.relu(margin - sign * (predicted_N[first] - predicted_N[second].flip(0))).mean()


class LossPrediction:
    """Objective of cross entropy plus the ranking of the images' losses by the head."""

    def __init__(self, *, weight: float, margin: float, detach_after: float) -> None:
        """`detach_after`: share of the training after which the head no longer trains the network."""
        self._weight = weight
        self._margin = margin
        self._detach_after = detach_after
        self._detached = False

    def prepare(self, network: nn.Module, done: float) -> None:
        """Detach the head from the network after `detach_after` of the training."""
        assert isinstance(network, LossPredicting)
        self._detached = network.detached = done > self._detach_after

    def phase(self) -> Hashable | None:
        """Whether the head is detached: the kernels of a step depend on it."""
        return self._detached

    def loss(self, network: nn.Module, images_B3HW: Tensor, labels_B: Tensor, picked_B: Tensor) -> Tensor:
        """Mean cross entropy plus the weighted ranking loss; true losses are constants of the ranking."""
        logits_BK, _, predicted_B = network(images_B3HW)
        true_B = F.cross_entropy(logits_BK.float(), labels_B, reduction="none")
        return true_B.mean() + self._weight * ranking_loss(predicted_B.float(), true_B.detach(), self._margin)

    def other_parameters(self, network: nn.Module) -> Iterable[nn.Parameter]:
        """The objective has no parameters of its own: the head learns at the network's rate."""
        return ()


class LossPredictionTarget(Target):
    """The common classifier with a loss-prediction head, in every round."""

    def __init__(
        self, *, hidden: int, weight: float, margin: float, detach_after: float, identity: dict[str, Any]
    ) -> None:
        """Sizes and weights of head and objective; `identity` holds them as plain values."""
        self._hidden, self._identity = hidden, identity
        self._objective = {"weight": weight, "margin": margin, "detach_after": detach_after}

    def lesson(self, labels: RoundLabels) -> Lesson:
        """The labelled ID images, as for the common classifier."""
        return Lesson(
            idx=labels.id_idx,
            labels_N=labels.id_labels,
            wrap=lambda network, seed: add_loss_prediction(network, hidden=self._hidden, weights_seed=seed),
            objective=lambda recipe, device: LossPrediction(**self._objective),
            identity=self._identity,
        )
