"""Training and running of networks for a strategy: the round's classifier, the trial's images, device and seeds.

Shapes: N images asked for, K classes, P passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from data.imageset import Images
from models.classifier.fit import StepProgress, fit
from models.classifier.inputs import FeatureRows, Normalise, make_batches, training_inputs
from models.classifier.networks import Classifier, build_classifier
from models.classifier.outputs import ClassifierOutputs
from models.classifier.predict import predict
from models.classifier.recipe import Recipe
from models.classifier.steps import Objective, autocast
from models.device import Machine

AUGMENTED_BATCH = 512
"""Images per batch of `Workshop.augmented_logits`."""
# A constant: one generator draws the augmentations batch by batch, so another size is another draw, and a user who
# lowers `recipe.eval_batch_size` for memory would get other numbers.


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Means of one round to train and run networks; equal trials and rounds give equal results."""

    images: Images | FeatureRows
    """Training images by index: pixels, or the features that a linear head reads."""
    classifier: nn.Module
    """The round's classifier, in evaluation mode; it must not be changed."""
    recipe: Recipe
    """Recipe that the classifier was trained with."""
    normalise: Normalise
    machine: Machine
    weights_seed: Callable[[str], int]
    """A seed for the initial weights of the network of that name: the same in every round of the trial."""
    batches_seed: Callable[[str], int]
    """A seed for the draws in the training of the network of that name: another one in each round."""
    progress: StepProgress | None = None
    """Function that gets the progress of a training."""

    @property
    def device(self) -> torch.device:
        """Device on which networks are trained and run."""
        return self.machine.device

    def new_network(self, num_classes: int, recipe: Recipe, name: str) -> Classifier:
        """A classifier like the round's, with `num_classes` classes and the initial weights of that name."""
        features = self.images.num_features if isinstance(self.images, FeatureRows) else None
        return build_classifier(recipe, num_classes, weights_seed=self.weights_seed(name), num_features=features)

    def train(
        self,
        idx: NDArray[np.int64],
        labels_N: NDArray[np.int64],
        *,
        network: nn.Module,
        recipe: Recipe,
        name: str,
        objective: Objective | None = None,
    ) -> nn.Module:
        """The network, trained on the images `idx` with `labels_N`; errors and arguments as `fit`."""
        return fit(
            network,
            training_inputs(self.images, idx),
            labels_N,
            recipe=recipe,
            normalise=self.normalise,
            batches_seed=self.batches_seed(name),
            machine=self.machine,
            progress=self.progress,
            objective=objective,
        )

    def predict(self, network: nn.Module, idx: NDArray[np.int64]) -> ClassifierOutputs:
        """The outputs of a network, in evaluation mode and without augmentation, for the images `idx`."""
        return predict(network, self.images, idx, recipe=self.recipe, normalise=self.normalise, device=self.device)

    @torch.inference_mode()
    def augmented_logits(self, idx: NDArray[np.int64], passes: int, name: str) -> NDArray[np.float32]:
        """Logits (P, N, K) of this round's classifier for the images `idx`, augmented again in each pass."""
        generator = torch.Generator(device=self.device).manual_seed(self.batches_seed(name))
        batches = make_batches(training_inputs(self.images, idx), self.recipe, self.normalise, generator)
        rows = torch.arange(len(idx), device=self.device).repeat(passes)
        logits = []
        for picked in torch.split(rows, AUGMENTED_BATCH):
            with autocast(self.recipe, self.device):
                logits.append(self.classifier(batches.augment(picked))[0].float())
        return torch.cat(logits).cpu().numpy().reshape(passes, len(idx), -1)
