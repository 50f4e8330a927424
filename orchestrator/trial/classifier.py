"""The making of a trial's classifier: recipe, network, objective, random streams, and which trials may share it.

Everything random in a trial comes from (seed, stream name, round) and nothing else: strategies of one seed share their
split, initial labels and initial weights, and a resumed trial draws what it would have drawn.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from data.files import content_hash
from models.classifier.networks import build_classifier, zero_shot_classifier
from models.classifier.recipe import Recipe
from models.classifier.target import Lesson
from orchestrator.settings.trial import NUMBERS_VERSION, TrialConfig
from strategies.registry import find_strategy


class ClassifierPlan:
    """The classifier of one trial, the same in every round, but for a strategy's own lesson or dropout."""

    def __init__(
        self,
        trial: TrialConfig,
        num_classes: int,
        *,
        num_features: int | None = None,
        class_features_KD: NDArray[np.float32] | None = None,
    ) -> None:
        """Keep the parts; `num_features` is a linear head's, and zero-shot compares images with `class_features_KD`."""
        self._trial = trial
        self._num_features = num_features
        self._class_features_KD = class_features_KD
        self._num_classes = num_classes
        self._entry = find_strategy(trial.strategy)

    @property
    def recipe(self) -> Recipe:
        """Recipe of the trial, with the strategy's dropout."""
        if not self._entry.head_dropout:
            return self._trial.recipe
        return self._trial.recipe.model_copy(update={"head_dropout": self._trial.options.monte_carlo.rate})

    @property
    def is_trained(self) -> bool:
        """Whether the network is trained; zero-shot is not."""
        return self._class_features_KD is None

    def new_network(self, lesson: Lesson | None) -> nn.Module:
        """Make the network; its initial weights depend on the seed only, so that strategies of a seed start equal.

        `lesson` is the strategy's own for this round; None: the common classifier.
        """
        if self._class_features_KD is not None:
            return zero_shot_classifier(torch.from_numpy(self._class_features_KD))
        seed = stream_seed(self._trial.seed, "weights")
        network = build_classifier(self.recipe, self._num_classes, weights_seed=seed, num_features=self._num_features)
        return network if lesson is None else lesson.wrap(network, seed)

    def identity(self, lesson: Lesson | None, *, data_fingerprint: str, inputs: str | None, device: str) -> str:
        """Hash (64 hex digits) of all that decides the classifier of round 0; trials that agree in it may share it.

        `inputs` identifies the features that a linear head reads: the encoder's name does not identify its weights.
        """
        trial = self._trial
        return content_hash(
            {
                "numbers_version": NUMBERS_VERSION,
                "data": data_fingerprint,
                "inputs": inputs,
                **trial.split_identity(),
                "seed": trial.seed,
                "recipe": self.recipe.identity(),
                "head": None if lesson is None else lesson.identity,
                # Equal seeds give equal weights on one kind of device only.
                "device": device,
            }
        )


def stream_generator(seed: int, stream: str, round_number: int) -> np.random.Generator:
    """NumPy generator of one stream in one round."""
    return np.random.default_rng(_sequence(seed, stream, round_number))


def stream_seed(seed: int, stream: str, round_number: int = 0) -> int:
    """Seed in [0, 2^63) for a torch generator of one stream in one round."""
    return int(_sequence(seed, stream, round_number).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _sequence(seed: int, stream: str, round_number: int) -> np.random.SeedSequence:
    # crc32, not hash(): Python's hash of a text differs from process to process.
    return np.random.SeedSequence(entropy=seed, spawn_key=(zlib.crc32(stream.encode()), round_number))
