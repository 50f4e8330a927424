"""A small problem whose purity step can be worked out by hand, for tests of the figures about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from data.imageset import ArrayImages, DataSet, ImageSet, make_data_set
from experiments.plots import figure12 as query_study
from experiments.plots import purity_step as purity_study
from models.clipn.features import VisionLanguage
from orchestrator.settings.reading import make_trial
from orchestrator.settings.trial import TrialConfig
from orchestrator.trial.purity_scorer import LocalPurityScorer

NAMES = tuple(f"class {letter}" for letter in "abcdefghij")
NUM_EACH, DIM = 12, 10


def ten_classes() -> DataSet:
    """Ten classes of twelve grey training images; image i is as bright as its index."""
    labels = np.repeat(np.arange(10), NUM_EACH)
    pixels = np.broadcast_to(np.arange(120, dtype=np.uint8)[:, None, None, None], (120, 8, 8, 3)).copy()
    train = ImageSet(images=ArrayImages(pixels), labels=labels)
    return make_data_set(
        name="ten", class_names=NAMES, train=train, test=train, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
    )


def scorer_of(data: DataSet, *, noise: float = 0.3) -> LocalPurityScorer:
    """Features near the unit vector of each image's class; "yes" texts are these vectors, "no" texts point away."""
    generator = np.random.default_rng(3)
    features = np.eye(DIM)[data.train.labels] + noise * generator.normal(size=(len(data.train), DIM))
    features /= np.linalg.norm(features, axis=1, keepdims=True)

    def encode(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        yes = np.eye(DIM)[[NAMES.index(name) for name in names]]
        no = (1 - yes) / np.sqrt(DIM - 1)
        return yes.astype(np.float32), no.astype(np.float32)

    vision_language = VisionLanguage(
        image_features_ND=features.astype(np.float32), logit_scale=20.0, encode_classes=encode
    )
    return LocalPurityScorer({data.fingerprint: vision_language}, torch.device("cpu"))


def trial_of(**changes: Any) -> TrialConfig:
    """A trial of the ten classes: four are ID, half of the pool is OOD."""
    settings: dict[str, Any] = {
        "dataset": "ten", "mismatch_ratio": 0.4, "ood_ratio": 0.5, "strategy": "vlpure", "seed": 0, "budget": 16,
        "rounds": 3,
    }  # fmt: skip
    return make_trial(**(settings | changes))


def use_ten_classes(monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """Let the figures' modules open the ten classes, whatever data set a trial names."""
    data = ten_classes()
    for module in (purity_study, query_study):
        monkeypatch.setattr(module, "cached_data_set", lambda *where: data)
    return data
