"""What a strategy may make of the round's classifier: its training images, its network and its objective.

The common classifier is the cross entropy on the labelled ID images. A strategy whose paper judges a network of its own
replaces that by a lesson, in every round; everything else (recipe, seeds, inputs, test images) stays the trial's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.classifier.networks import Classifier
from models.classifier.recipe import Recipe
from models.classifier.steps import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundLabels:
    """The labels that exist before the training of a round."""

    id_idx: NDArray[np.int64]
    """(L,) labelled ID images."""
    id_labels: NDArray[np.int64]
    """(L,) 0..K-1."""
    ood_idx: NDArray[np.int64]
    """(O,) labelled OOD images."""
    num_known: int
    """K."""
    seed: int
    """Seed of whatever the lesson draws; another one in each round, the same when a round is repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One round's training of the classifier."""

    idx: NDArray[np.int64]
    """(N,) training images."""
    labels_N: NDArray[np.int64]
    """Their labels, as `objective` reads them."""
    wrap: Callable[[Classifier, int], nn.Module]
    """Makes the network to train from the plain one, with a seed for the weights of what it adds. The first of the
    network's outputs are logits (B, K): accuracy is measured by them."""
    objective: Callable[[Recipe, torch.device], Objective]
    """Makes the objective of one training by a recipe on a device; objectives have a state."""
    identity: dict[str, Any] = field(default_factory=dict)
    """Plain values that decide network and objective beside the trial's own settings: round 0 is shared by them."""


class Target(ABC):
    """A maker of lessons."""

    @abstractmethod
    def lesson(self, labels: RoundLabels) -> Lesson:
        """The lesson of a round; equal labels give equal lessons, so that kept weights fit when a trial goes on."""
