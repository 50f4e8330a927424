"""Pools for tests of strategies: small random images, a real (untrained) classifier and a scorer on random features."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch

from data.imageset import ArrayImages
from models.classifier.inputs import Normalise
from models.classifier.networks import build_classifier
from models.classifier.outputs import ClassifierOutputs, LinearHead
from models.classifier.recipe import Recipe
from models.classifier.workshop import Workshop
from models.contrastive.encoder import ContrastiveFeatures
from strategies.base import PoolView, Selection
from strategies.options import StrategyOptions
from strategies.purity.contract import PurityOptions, PurityRequest, PurityScores, RequestFigures
from strategies.purity.scores import Evidence, atd, judged_id, prototypes
from strategies.registry import FrozenFeatures, Services, find_strategy

NUM_IMAGES, NUM_CLASSES, DIM = 60, 3, 8
RECIPE = Recipe(width=1, steps=2, batch_size=4, crop_padding=1, learning_rate=0.01)


class ArrayScorer:
    """A purity scorer on random features; `verdict` overrules the decisions."""

    last_request: RequestFigures | None = None

    def __init__(self, verdict: bool | None = None, *, constant: bool = False) -> None:
        self._constant = constant
        generator = torch.Generator().manual_seed(7)
        self._features = torch.nn.functional.normalize(torch.randn(NUM_IMAGES, DIM, generator=generator), dim=1)
        self._texts = torch.nn.functional.normalize(torch.randn(2, NUM_CLASSES, DIM, generator=generator), dim=2)
        self._verdict = verdict

    def features(self, data_fingerprint: str, idx: np.ndarray) -> np.ndarray:
        return self._features[torch.from_numpy(idx * (not self._constant))].numpy()

    def score(self, request: PurityRequest) -> PurityScores:
        features = self._features[torch.from_numpy(request.unlabelled_idx)]
        means, known = prototypes(
            self._features[torch.from_numpy(request.labelled_id_idx)],
            torch.from_numpy(request.labelled_id_labels),
            NUM_CLASSES,
        )
        evidence = Evidence(
            yes_NK=features @ self._texts[0].T,
            no_NK=features @ self._texts[1].T,
            similarity_NK=features @ means.T,
            has_prototype_K=known,
        )
        ood_id = atd(evidence, 10.0)
        is_id = judged_id(*ood_id) if self._verdict is None else torch.full((len(features),), self._verdict)
        return PurityScores(
            id_scores=ood_id[0].numpy(),
            ood_scores=ood_id[1].numpy(),
            is_id=is_id.numpy(),
            logit_scale=10.0,
            is_tuned=False,
            labelled_accuracy=None,
        )


QUICK = StrategyOptions.model_validate(
    {
        "lfosa": {"epochs": 2, "batch_size": 8},
        "eoal": {"epochs": 2, "batch_size": 8},
        "mqnet": {"epochs": 2, "target_passes": 2},
        "monte_carlo": {"passes": 3},
    }
)


class RandomEncoder:
    """Stands for a frozen encoder; other features for each method, or the same for all images."""

    def __init__(self, method: str, *, constant: bool = False) -> None:
        rng = np.random.default_rng(len(method))
        self.projections = rng.normal(size=(NUM_IMAGES, DIM)).astype(np.float32)
        self.view_projections = rng.normal(size=(NUM_IMAGES, 4, DIM)).astype(np.float32)
        if constant:
            self.projections[:], self.view_projections[:] = 1.0, 1.0


def make_workshop(images: ArrayImages, *, num_classes: int = NUM_CLASSES) -> Workshop:
    """A workshop round an untrained classifier."""
    device = torch.device("cpu")
    return Workshop(
        images=images,
        classifier=build_classifier(RECIPE, num_classes, weights_seed=5).eval(),
        recipe=RECIPE,
        normalise=Normalise((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), device),
        device=device,
        weights_seed=lambda name: len(name),
        batches_seed=lambda name: 100 + len(name),
    )


def make_view(
    *,
    num_ood: int = 5,
    labels: tuple[int, ...] = (0, 1, 2, 0, 1, 2),
    constant: bool = False,
) -> PoolView:
    """A pool whose labelled ID images have the given labels; `constant`: all images and outputs are equal."""
    rng = np.random.default_rng(3)
    order = rng.permutation(NUM_IMAGES)
    parts = np.split(order, [len(labels), len(labels) + num_ood])
    labelled_id, labelled_ood, unlabelled = (np.sort(part).astype(np.int64) for part in parts)
    pixels = rng.integers(0, 256, size=(NUM_IMAGES, 8, 8, 3), dtype=np.uint8)
    if constant:
        pixels[:] = pixels[0]
    images = ArrayImages(pixels)
    outputs, labelled_outputs = (_random_outputs(rng, len(idx), constant) for idx in (unlabelled, labelled_id))
    return PoolView(
        images=images,
        data_fingerprint="0" * 64,
        class_names=("a", "b", "c"),
        domain="sketch",
        labelled_id_idx=labelled_id,
        labelled_id_labels=np.array(labels, dtype=np.int64),
        labelled_ood_idx=labelled_ood,
        unlabelled_idx=unlabelled,
        compute_outputs=lambda: outputs,
        compute_labelled_outputs=lambda: labelled_outputs,
        workshop=make_workshop(images),
    )


def _random_outputs(rng: np.random.Generator, num: int, constant: bool) -> ClassifierOutputs:
    features, losses = (rng.normal(size=shape).astype(np.float32) for shape in ((num, DIM), (num,)))
    if constant:
        features[:], losses[:] = 0.0, 0.0
    head = LinearHead(
        weight_KD=np.random.default_rng(8).normal(size=(NUM_CLASSES, DIM)).astype(np.float32),
        bias_K=np.zeros(NUM_CLASSES, dtype=np.float32),
    )
    return ClassifierOutputs(
        logits_NK=features @ head.weight_KD.T, features_ND=features, predicted_losses_N=losses, head=head
    )


def select(
    name: str, view: PoolView, budget: int, *, seed: int = 0, verdict: bool | None = None, constant: bool = False
) -> Selection:
    """What a registered strategy picks; `constant`: its frozen encoder finds all images equal."""
    scorer = ArrayScorer(verdict, constant=constant)
    strategy = find_strategy(name).build(
        Services(
            scorer=scorer,
            purity=PurityOptions(),
            options=QUICK,
            contrastive=lambda method: cast(ContrastiveFeatures, RandomEncoder(method, constant=constant)),
            pretrained=lambda: FrozenFeatures(scorer=scorer, data_fingerprint="0" * 64),
        )
    )
    return strategy.select(view, budget, np.random.default_rng(seed))
