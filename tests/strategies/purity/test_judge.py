"""The detectors behind one function: what each learns on the labelled images, and how it then judges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from strategies.purity.contract import NeighbourOptions, PurityOptions
from strategies.purity.detectors import DETECTORS
from strategies.purity.features import Labelled, learn_neighbours
from strategies.purity.judge import Sight, judge, judge_with_terms
from strategies.purity.probe import learn_probe
from strategies.purity.scores import Evidence, atd, ctw, mcm, terms
from strategies.purity.tuning import choose_scale, choose_scale_and_threshold, choose_threshold

PAPERS = ("atd", "ctw", "mcm")


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


@pytest.mark.parametrize("detector", PAPERS)
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


def sight(seed: int, labels: list[int], *, num: int = 60) -> tuple[Sight, Evidence, Evidence]:
    """Features near one of five axes, three of them ID, and the cosines with texts that lie on the axes."""
    rng = torch.Generator().manual_seed(seed)
    classes = torch.tensor([*labels, *torch.randint(0, 5, (num,), generator=rng).tolist()])
    rows = functional.normalize(torch.eye(5)[classes] + 0.4 * torch.randn(len(classes), 5, generator=rng), dim=1)
    count = len(labels)
    labelled = Labelled(features_LD=rows[:count], classes_L=classes[:count].clamp(max=3), num_classes=3)
    cosines = rows @ torch.eye(5)[:3].T
    seen = [Evidence(yes_NK=part, no_NK=0.3 - part) for part in (cosines[:count], cosines[count:])]
    return Sight(labelled=labelled, features_ND=rows[count:]), seen[0], seen[1]


LEARNING = ("probe", "knn", "mahalanobis", "relative-mahalanobis", "fused")
MANY = [0, 1, 2, 3, 4] * 12


@pytest.mark.parametrize("detector", [*LEARNING, "energy", "maxlogit"])
def test_what_is_learnt_on_labels_tells_id_from_ood(detector: str) -> None:
    eyes, labelled, images = sight(1, MANY)
    is_id = eyes.labelled.is_id_L
    found = judge(labelled, is_id, images, PurityOptions(detector=detector), sight=eyes)
    truth = (eyes.features_ND.argmax(dim=1) < 3).numpy()
    assert (found.is_id == truth).mean() > 0.8
    np.testing.assert_array_equal(found.is_id, found.id_scores > found.ood_scores)
    assert len(np.unique(found.ood_scores)) == 1
    assert found.labelled_accuracy is not None
    assert 0.7 < found.labelled_accuracy <= 1


def test_the_threshold_of_the_probe_is_learnt_on_held_out_scores() -> None:
    eyes, labelled, images = sight(2, MANY)
    options = PurityOptions(detector="probe")
    found = judge(labelled, eyes.labelled.is_id_L, images, options, sight=eyes)
    learnt = learn_probe(eyes.labelled, options.probe.strengths, folds=5, two_classes=False)
    assert learnt is not None
    assert learnt.held_out_L is not None
    choice = choose_threshold(learnt.held_out_L, eyes.labelled.is_id_L)
    assert choice is not None
    assert found.ood_scores[0] == np.float32(choice.threshold)
    assert found.labelled_accuracy == choice.accuracy
    np.testing.assert_allclose(found.id_scores, learnt.score(eyes.features_ND), rtol=1e-5)


def test_the_vote_of_the_neighbours_needs_no_threshold_or_learns_one() -> None:
    eyes, labelled, images = sight(3, MANY)
    is_id = eyes.labelled.is_id_L
    vote = judge(labelled, is_id, images, PurityOptions(detector="knn"), sight=eyes)
    options = PurityOptions(detector="knn", knn=NeighbourOptions(neighbours=7, threshold="learnt"))
    learnt = judge(labelled, is_id, images, options, sight=eyes)
    assert vote.ood_scores[0] == np.float32(0.05)
    held_out = learn_neighbours(eyes.labelled, 7).held_out_L
    assert held_out is not None
    choice = choose_threshold(held_out, is_id)
    assert choice is not None
    assert learnt.ood_scores[0] == np.float32(choice.threshold)


@pytest.mark.parametrize("detector", LEARNING)
@pytest.mark.parametrize("labels", [[], [0], [4], [0, 1, 2, 0, 1], [3, 4, 3], [0, 1, 2, 4]])
def test_few_labels_or_labels_of_one_kind(detector: str, labels: list[int]) -> None:
    eyes, labelled, images = sight(4, labels)
    is_id = eyes.labelled.is_id_L
    found = judge(labelled, is_id, images, PurityOptions(detector=detector), sight=eyes)
    assert np.isfinite(found.id_scores).all()
    assert np.isfinite(found.ood_scores).all()
    if not is_id.any() and detector != "fused":
        assert found.is_id.all()


def test_fused_is_the_text_alone_without_labels_of_both_kinds() -> None:
    eyes, labelled, images = sight(5, [0, 1, 2, 0])
    is_id = eyes.labelled.is_id_L
    fused = judge(labelled, is_id, images, PurityOptions(detector="fused"), sight=eyes)
    text = judge(labelled, is_id, images, PurityOptions(detector="atd", visual_similarity=False))
    np.testing.assert_array_equal(fused.id_scores, text.id_scores)
    np.testing.assert_array_equal(fused.is_id, text.is_id)


def test_detectors_without_text_look_at_none() -> None:
    eyes, _, _ = sight(6, MANY)
    nothing = Evidence(yes_NK=torch.zeros(60, 0), no_NK=torch.zeros(60, 0))
    for detector in ("probe", "knn", "mahalanobis", "relative-mahalanobis"):
        assert "text" not in DETECTORS[detector].needs
        found = judge(nothing, eyes.labelled.is_id_L, nothing, PurityOptions(detector=detector), sight=eyes)
        assert len(np.unique(found.id_scores)) > 5


@pytest.mark.parametrize("detector", [name for name, each in DETECTORS.items() if not each.takes_weights])
def test_visual_weights_are_off_or_refused_for_detectors_that_cannot_take_them(detector: str) -> None:
    options = PurityOptions(detector=detector)
    assert not options.visual_similarity
    assert PurityOptions.model_validate_json(options.model_dump_json()) == options
    with pytest.raises(ValueError, match=f"visual_similarity = True has no meaning for the detector {detector}"):
        PurityOptions(detector=detector, visual_similarity=True)


def test_only_the_settings_that_a_detector_reads_identify_its_trials() -> None:
    assert set(PurityOptions().settings_read()) == {
        "detector", "visual_similarity", "self_temperature", "criterion", "fixed_scale",
    }  # fmt: skip
    probe = PurityOptions(detector="probe", knn=NeighbourOptions(neighbours=3))
    assert "knn" not in probe.settings_read()
    assert probe.settings_read()["probe"]["folds"] == 5
