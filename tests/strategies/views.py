"""What strategies of the project need beside a toy pool: a scorer and frozen encoders on random features."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import torch

from models.classifier.networks import build_classifier
from models.classifier.target import RoundLabels, Target
from models.contrastive.encoder import ContrastiveFeatures
from strategies.base import PoolView, Selection
from strategies.check import DIM, NUM_CLASSES, NUM_IMAGES
from strategies.options import StrategyOptions
from strategies.purity.contract import PurityOptions, PurityRequest, PurityScores, RequestFigures
from strategies.purity.scores import Evidence, atd, judged_id, prototypes
from strategies.registry import FrozenFeatures, Services, find_strategy


class ArrayScorer:
    """A purity scorer on random features; `verdict` overrules the decisions, `constant`: all images are equal."""

    last_request: RequestFigures | None = None

    def __init__(self, verdict: bool | None = None, *, constant: bool = False) -> None:
        generator = torch.Generator().manual_seed(7)
        self._features = torch.nn.functional.normalize(torch.randn(NUM_IMAGES, DIM, generator=generator), dim=1)
        self._texts = torch.nn.functional.normalize(torch.randn(2, NUM_CLASSES, DIM, generator=generator), dim=2)
        self._verdict = verdict
        if constant:
            self._features[:] = self._features[0].clone()

    def features(self, data_fingerprint: str, idx: np.ndarray) -> np.ndarray:
        return self._features[torch.from_numpy(idx)].numpy()

    def score(self, request: PurityRequest) -> PurityScores:
        features = self._features[torch.tensor(request.unlabelled_idx)]
        means, known = prototypes(
            self._features[torch.tensor(request.labelled_id_idx)],
            torch.tensor(request.labelled_id_labels),
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
        "eaoa": {"epochs": 2, "batch_size": 8},
        "bual": {"epochs": 2, "batch_size": 8, "check_every": 1},
        "e2oal": {"epochs": 2, "batch_size": 8},
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


def select(
    name: str, view: PoolView, budget: int, *, seed: int = 0, verdict: bool | None = None, constant: bool = False
) -> Selection:
    """What a registered strategy picks; `constant`: its frozen encoder finds all images equal."""
    scorer = ArrayScorer(verdict, constant=constant)
    services = Services(
        scorer=scorer,
        purity=PurityOptions(),
        options=QUICK,
        contrastive=lambda method: cast(ContrastiveFeatures, RandomEncoder(method, constant=constant)),
        pretrained=lambda: FrozenFeatures(scorer=scorer, data_fingerprint="0" * 64),
    )
    entry = find_strategy(name)
    if entry.target is not None:
        view = _taught(view, entry.target(services))
    return entry.build(services).select(view, budget, np.random.default_rng(seed))


def _taught(view: PoolView, target: Target) -> PoolView:
    """The view with the round's classifier that the strategy brings, untrained."""
    labels = RoundLabels(
        id_idx=view.labelled_id_idx,
        id_labels=view.labelled_id_labels,
        ood_idx=view.labelled_ood_idx,
        num_known=NUM_CLASSES,
        seed=5,
    )
    plain = build_classifier(view.workshop.recipe, NUM_CLASSES, weights_seed=5)
    network = target.lesson(labels).wrap(plain, 5).eval()
    return replace(view, workshop=replace(view.workshop, classifier=network))
