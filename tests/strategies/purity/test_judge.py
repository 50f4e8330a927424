"""The detectors behind one function: what each learns on the labelled images, and how it then judges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from strategies.purity.contract import PurityOptions
from strategies.purity.judge import judge, judge_with_terms
from strategies.purity.scores import Evidence, atd, ctw, mcm, terms
from strategies.purity.tuning import choose_scale, choose_scale_and_threshold

DETECTORS = ("atd", "ctw", "mcm")


def evidence(seed: int, num: int, *, with_similarity: bool = True) -> Evidence:
    yes, no, similarity = torch.rand(3, num, 4, generator=torch.Generator().manual_seed(seed)) * 0.4
    return Evidence(
        yes_NK=yes,
        no_NK=no,
        similarity_NK=similarity if with_similarity else None,
        has_prototype_K=torch.tensor([True, True, False, True]) if with_similarity else None,
    )


IS_ID = torch.tensor([True, False, True] * 10)


def test_some_of_the_images() -> None:
    whole = evidence(0, 5)
    part = whole.of(torch.tensor([3, 1]))
    assert torch.equal(part.yes_NK, whole.yes_NK[[3, 1]])
    assert torch.equal(part.no_NK, whole.no_NK[[3, 1]])
    assert part.similarity_NK is not None
    assert whole.similarity_NK is not None
    assert torch.equal(part.similarity_NK, whole.similarity_NK[[3, 1]])
    assert part.has_prototype_K is whole.has_prototype_K
    assert evidence(0, 5, with_similarity=False).of(torch.tensor([0])).similarity_NK is None


@pytest.mark.parametrize(("detector", "scores"), [("atd", atd), ("ctw", ctw)])
@pytest.mark.parametrize("criterion", ["balanced", "plain"])
def test_a_tuned_pair_of_scores(detector: str, scores, criterion: str) -> None:  # noqa: ANN001 - PairScores
    labelled, images = evidence(1, 30), evidence(2, 50)
    found = judge(labelled, IS_ID, images, PurityOptions(detector=detector, criterion=criterion))
    choice = choose_scale(labelled, IS_ID, criterion=criterion, scores=scores)
    assert choice is not None
    id_scores, ood_scores = scores(images, choice.scale)
    assert (found.logit_scale, found.is_tuned, found.labelled_accuracy) == (choice.scale, True, choice.accuracy)
    np.testing.assert_array_equal(found.id_scores, id_scores)
    np.testing.assert_array_equal(found.ood_scores, ood_scores)
    np.testing.assert_array_equal(found.is_id, id_scores > ood_scores)


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("with_similarity", [False, True])
@pytest.mark.parametrize("criterion", ["balanced", "plain"])
def test_mcm_learns_threshold_and_scale_or_the_threshold_alone(
    criterion: str, with_similarity: bool, tuned: bool
) -> None:
    labelled, images = (evidence(*which, with_similarity=with_similarity) for which in ((1, 30), (2, 50)))
    options = PurityOptions(detector="mcm", criterion=criterion, self_temperature=tuned, fixed_scale=3.0)
    found = judge(labelled, IS_ID, images, options)
    choice = choose_scale_and_threshold(labelled, IS_ID, criterion=criterion, **({} if tuned else {"scales": (3.0,)}))
    assert choice is not None
    scores = mcm(images, choice.scale)
    assert (found.logit_scale, found.is_tuned, found.labelled_accuracy) == (choice.scale, tuned, choice.accuracy)
    np.testing.assert_array_equal(found.id_scores, scores)
    assert found.ood_scores.tolist() == [choice.threshold] * 50
    np.testing.assert_array_equal(found.is_id, scores > choice.threshold)


def test_mcm_does_not_look_at_the_no_texts() -> None:
    labelled, images = evidence(1, 30), evidence(2, 50)
    unknown = (replace(each, no_NK=torch.full_like(each.no_NK, torch.nan)) for each in (labelled, images))
    options = PurityOptions(detector="mcm")
    found, blind = judge(labelled, IS_ID, images, options), judge(next(unknown), IS_ID, next(unknown), options)
    np.testing.assert_array_equal(found.id_scores, blind.id_scores)
    np.testing.assert_array_equal(found.ood_scores, blind.ood_scores)


def test_mcm_without_labelled_ood_images_keeps_95_percent_of_the_labelled_id_images() -> None:
    labelled = evidence(1, 40)
    options = PurityOptions(detector="mcm", fixed_scale=20.0)
    found = judge(labelled, torch.ones(40, dtype=torch.bool), labelled, options)
    assert (found.logit_scale, found.is_tuned, found.labelled_accuracy) == (20.0, False, None)
    assert int(found.is_id.sum()) == 38


def test_mcm_without_labelled_id_images_takes_everything_for_id() -> None:
    found = judge(evidence(1, 5), torch.zeros(5, dtype=torch.bool), evidence(2, 50), PurityOptions(detector="mcm"))
    assert np.unique(found.ood_scores).tolist() == [0.0]
    assert found.is_id.all()


def test_ctw_without_similarities_has_nothing_to_learn() -> None:
    labelled, images = (evidence(*which, with_similarity=False) for which in ((1, 30), (2, 50)))
    found = judge(labelled, IS_ID, images, PurityOptions(detector="ctw", fixed_scale=7.0))
    assert (found.logit_scale, found.is_tuned, found.labelled_accuracy) == (7.0, False, None)
    np.testing.assert_array_equal(found.id_scores, ctw(images, 7.0)[0])


@pytest.mark.parametrize("detector", ["atd", "ctw"])
def test_a_fixed_scale(detector: str) -> None:
    options = PurityOptions(detector=detector, self_temperature=False, fixed_scale=7.0)
    found = judge(evidence(1, 30), IS_ID, evidence(2, 50), options)
    assert (found.logit_scale, found.is_tuned, found.labelled_accuracy) == (7.0, False, None)


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("num_ood", [0, 10])
def test_uninformative_weights_change_no_decision(detector: str, num_ood: int) -> None:
    labelled, images = (evidence(*which, with_similarity=False) for which in ((1, 30), (2, 200)))
    is_id = torch.arange(30) >= num_ood
    options = PurityOptions(detector=detector)
    plain, weighted = (
        judge(
            replace(labelled, similarity_NK=None if similarity is None else torch.full((30, 4), similarity)),
            is_id,
            replace(images, similarity_NK=None if similarity is None else torch.full((200, 4), similarity)),
            options,
        )
        for similarity in (None, 0.3)
    )
    np.testing.assert_array_equal(weighted.is_id, plain.is_id)
    assert 0 < int(plain.is_id.sum()) < 200


def test_the_terms_are_those_at_the_scale_judged_with() -> None:
    labelled, images = evidence(1, 30), evidence(2, 50)
    scores, factors = judge_with_terms(labelled, IS_ID, images, PurityOptions())
    np.testing.assert_array_equal(scores.id_scores, judge(labelled, IS_ID, images, PurityOptions()).id_scores)
    assert scores.is_tuned
    assert torch.equal(factors.probs_NK, terms(images, scores.logit_scale).probs_NK)
