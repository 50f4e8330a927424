"""VLPure: purity first, then informativeness, then filling up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data.imageset import ArrayImages
from models.classifier.outputs import ClassifierOutputs
from strategies.base import PoolView
from strategies.check import toy_workshop
from strategies.purity.contract import PurityOptions, PurityRequest, PurityScores, RequestFigures
from strategies.uncertainty import LeastConfidence
from strategies.vlpure import VLPure

ID_SCORES = np.array([0.9, 0.2, 0.8, 0.3, 0.7, 0.1], dtype=np.float32)
OOD_SCORES = np.array([0.1, 0.5, 0.1, 0.4, 0.1, 0.9], dtype=np.float32)
UNCERTAIN = np.array([0.1, 0.9, 0.3, 0.8, 0.2, 0.7])


class FixedScorer:
    """Judges by fixed scores and keeps the last request."""

    last_request: RequestFigures | None = None

    def __init__(self) -> None:
        self.request: PurityRequest | None = None

    def score(self, request: PurityRequest) -> PurityScores:
        self.request = request
        return PurityScores(
            id_scores=ID_SCORES,
            ood_scores=OOD_SCORES,
            is_id=ID_SCORES > OOD_SCORES,
            logit_scale=3.7,
            is_tuned=True,
            labelled_accuracy=0.75,
        )


def view() -> PoolView:
    logits = np.stack([np.zeros(6), np.log(1 / UNCERTAIN - 1)], axis=1).astype(np.float32)
    outputs = ClassifierOutputs(logits_NK=logits, features_ND=np.zeros((6, 2), dtype=np.float32))
    images = ArrayImages(np.zeros((20, 8, 8, 3), dtype=np.uint8))
    return PoolView(
        images=images,
        data_fingerprint="f" * 64,
        class_names=("a", "b"),
        labelled_id_idx=np.array([0, 1]),
        labelled_id_labels=np.array([1, 0]),
        labelled_ood_idx=np.array([2]),
        unlabelled_idx=np.array([10, 11, 12, 13, 14, 15]),
        domain="sketch",
        compute_outputs=lambda: outputs,
        compute_labelled_outputs=lambda: outputs,
        workshop=toy_workshop(images),
    )


def select(budget: int, scorer: FixedScorer | None = None):  # noqa: ANN201 - the Selection under test
    strategy = VLPure(scorer=scorer or FixedScorer(), informativeness=LeastConfidence(), options=PurityOptions())
    return strategy.select(view(), budget, np.random.default_rng(0))


def test_prompts_with_the_domain_name_it_before_each_class() -> None:
    scorer = FixedScorer()
    strategy = VLPure(scorer=scorer, informativeness=LeastConfidence(), options=PurityOptions(), with_domain=True)
    strategy.select(view(), 2, np.random.default_rng(0))
    assert scorer.request is not None
    assert scorer.request.class_names == ("sketch a", "sketch b")
    with pytest.raises(ValueError, match="domainnet-sketch"):
        strategy.select(replace(view(), domain=None), 2, np.random.default_rng(0))


def test_the_least_confident_of_those_judged_id() -> None:
    # Judged ID: 10, 12, 14 with confidences 0.9, 0.7, 0.8; the less confident 11 and 13 are judged OOD.
    assert select(2).idx.tolist() == [12, 14]


def test_too_few_are_filled_up_by_the_margin_of_the_scores() -> None:
    selection = select(5)
    assert selection.idx.tolist() == [12, 14, 10, 13, 11]
    assert selection.diagnostics["num_filled"] == 2
    np.testing.assert_allclose(selection.scores[3:], [-0.1, -0.3], atol=1e-6)


def test_the_record_is_told_of_the_purity_step() -> None:
    selection = select(4)
    assert selection.judged_id_idx is not None
    assert selection.judged_id_idx.tolist() == [10, 12, 14]
    assert dict(selection.diagnostics) == {
        "logit_scale": 3.7,
        "scale_is_tuned": True,
        "scale_accuracy": 0.75,
        "num_judged_id": 3,
        "num_filled": 1,
    }


def test_the_scorer_gets_what_was_labelled_and_nothing_else() -> None:
    scorer = FixedScorer()
    select(1, scorer)
    assert scorer.request is not None
    assert scorer.request.labelled_id_labels.tolist() == [1, 0]
    assert scorer.request.labelled_ood_idx.tolist() == [2]
    assert scorer.request.unlabelled_idx.tolist() == [10, 11, 12, 13, 14, 15]
