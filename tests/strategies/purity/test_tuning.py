"""What is learnt on labels: Eq. 8 and MCM's threshold, by hand and against plain loops over every decision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from strategies.purity import tuning
from strategies.purity.scores import Evidence, atd, ctw, judged_id, mcm
from strategies.purity.tuning import (
    SCALES,
    PairScores,
    _between,
    balanced_accuracies,
    choose_scale,
    choose_scale_and_threshold,
    choose_threshold,
    threshold_from_id,
)
from tests.strategies.purity.seen import seen


def random_case(seed: int, *, with_similarity: bool = True) -> tuple[Evidence, torch.Tensor]:
    num, num_classes = 30, 3
    generator = torch.Generator().manual_seed(seed)
    cosines = torch.rand(3, num, num_classes, generator=generator) * 0.4
    is_id = torch.rand(num, generator=generator) < 0.6
    cosines[0, is_id] += 0.1
    return seen(cosines[0], cosines[1], similarity_NK=cosines[2] if with_similarity else None), is_id


def test_the_scales_are_the_official_ones() -> None:
    assert len(SCALES) == 1000
    assert SCALES[0] == 0.1
    assert SCALES[36] == 3.7
    assert SCALES[-1] == 100.0


@pytest.mark.parametrize("missing", ["id", "ood"])
def test_nothing_is_tuned_without_both_kinds(missing: str) -> None:
    is_id = torch.full((4,), missing == "ood")
    assert choose_scale(seen(torch.rand(4, 2), torch.rand(4, 2)), is_id) is None


def test_first_best_scale_by_hand() -> None:
    # One class: p = 1, so an image is ID where sigmoid(s (yes - no)) > 1/2: yes above no, at any scale.
    choice = choose_scale(seen(torch.tensor([[0.3], [0.1]]), torch.tensor([[0.2], [0.2]])), torch.tensor([True, False]))
    assert choice is not None
    assert (choice.scale, choice.accuracy) == (0.1, 1.0)


def test_scale_where_the_decision_turns() -> None:
    # ID image: two classes, yes 0.1 and 0, no far below, so 1 - q -> 1 slowly and p_1 grows with the scale.
    yes, no = torch.tensor([[0.1, 0.0], [0.0, 0.0]]), torch.tensor([[-0.1, -0.1], [0.2, 0.2]])
    is_id = torch.tensor([True, False])
    choice = choose_scale(seen(yes, no), is_id)
    assert choice is not None
    assert choice.accuracy == 1.0
    before = atd(seen(yes, no), choice.scale - 0.1)
    at = atd(seen(yes, no), choice.scale)
    assert judged_id(*before).tolist() != [True, False]
    assert judged_id(*at).tolist() == [True, False]


@pytest.mark.parametrize("criterion", ["balanced", "plain"])
@pytest.mark.parametrize("with_similarity", [False, True])
@pytest.mark.parametrize("scores", [atd, ctw])
@pytest.mark.parametrize("seed", range(3))
def test_equals_a_loop_over_scales(
    seed: int, scores: PairScores, with_similarity: bool, criterion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "MAX_CELLS", 7 * 90)  # several blocks, the last one shorter
    labelled, is_id = random_case(seed, with_similarity=with_similarity)
    best, best_scale = -1.0, 0.0
    scales = SCALES[::20]
    for scale in scales:
        says_id = judged_id(*scores(labelled, scale))
        right = says_id == is_id
        if criterion == "balanced":
            accuracy = (right[is_id].double().mean() + right[~is_id].double().mean()).item() / 2
        else:
            accuracy = right.double().mean().item()
        if accuracy > best + 1e-12:
            best, best_scale = accuracy, scale
    choice = choose_scale(labelled, is_id, criterion=criterion, scales=scales, scores=scores)
    assert choice is not None
    assert choice.accuracy == pytest.approx(best, abs=1e-12)
    assert choice.scale == best_scale


def test_the_criteria_choose_differently() -> None:
    labelled, is_id = random_case(8)
    balanced, plain = (choose_scale(labelled, is_id, criterion=criterion) for criterion in ("balanced", "plain"))
    assert balanced is not None
    assert plain is not None
    assert balanced.scale != plain.scale


def test_the_accuracies_over_scales_are_those_of_the_decisions() -> None:
    images, is_id = random_case(5)
    scales = (0.1, 3.0, 50.0)
    found = balanced_accuracies(images, is_id, scales)
    for accuracy, scale in zip(found.tolist(), scales, strict=True):
        right = judged_id(*atd(images, scale)) == is_id
        assert accuracy == pytest.approx((right[is_id].double().mean() + right[~is_id].double().mean()).item() / 2)
    assert len(found.unique()) > 1


def cosines(*probs: float) -> torch.Tensor:
    """Cosines of two classes whose larger p is `probs` at scale 1."""
    return torch.tensor([[math.log(p / (1 - p)), 0.0] for p in probs])


def test_halfway_between_the_scores_that_part_best() -> None:
    # Scores 0.6 OOD, 0.7 ID, 0.8 OOD, 0.9 ID, 0.95 ID: the cut above 0.8 has 2 of 3 ID and 2 of 2 OOD right (5/6); that
    # above 0.6 has 3 of 3 and 1 of 2 (3/4).
    yes, is_id = cosines(0.8, 0.7, 0.95, 0.6, 0.9), torch.tensor([False, True, True, False, True])
    choice = choose_scale_and_threshold(seen(yes), is_id, scales=(1.0,))
    assert choice is not None
    assert choice.threshold == pytest.approx(0.85, abs=1e-6)
    assert choice.accuracy == 5 / 6


def test_of_equally_good_thresholds_the_lowest() -> None:
    # OOD 0.6, ID 0.7, OOD 0.8, ID 0.9: the cuts above 0.6 and above 0.8 both have 3 of 4 right.
    yes, is_id = cosines(0.9, 0.8, 0.7, 0.6), torch.tensor([True, False, True, False])
    choice = choose_scale_and_threshold(seen(yes), is_id, scales=(1.0,))
    assert choice is not None
    assert choice.threshold == pytest.approx(0.65, abs=1e-6)
    assert choice.accuracy == 0.75


def test_of_equally_good_scales_the_lowest() -> None:
    choice = choose_scale_and_threshold(seen(cosines(0.9, 0.6)), torch.tensor([True, False]))
    assert choice is not None
    assert (choice.scale, choice.accuracy) == (0.1, 1.0)


@pytest.mark.parametrize(("criterion", "accuracy", "threshold"), [("balanced", 0.5, 0.3), ("plain", 0.75, 0.95)])
def test_everything_id_and_everything_ood_are_tried_too(criterion: str, accuracy: float, threshold: float) -> None:
    # The only ID image has the lowest score: by plain accuracy all OOD is best, by balanced nothing beats half.
    yes, is_id = cosines(0.6, 0.7, 0.8, 0.9), torch.tensor([True, False, False, False])
    choice = choose_scale_and_threshold(seen(yes), is_id, criterion=criterion, scales=(1.0,))
    assert choice is not None
    assert choice.accuracy == accuracy
    assert choice.threshold == pytest.approx(threshold, abs=1e-6)


def test_no_threshold_parts_equal_scores() -> None:
    yes, is_id = cosines(0.8, 0.8, 0.8, 0.9), torch.tensor([False, False, True, True])
    choice = choose_scale_and_threshold(seen(yes), is_id, scales=(1.0,))
    assert choice is not None
    assert choice.threshold == pytest.approx(0.85, abs=1e-6)
    assert choice.accuracy == 0.75


def test_scores_next_to_each_other_are_parted() -> None:
    even = np.float32(0.75)
    odd = np.nextafter(even, np.float32(0))
    for low in (even, odd):  # halfway to the next float is rounded down from the first and up from the second
        high = np.nextafter(low, np.float32(1))
        threshold = _between(torch.tensor(low), torch.tensor(high))
        assert (torch.tensor([low, high]) > threshold).tolist() == [False, True]


def test_one_class_tells_nothing_and_all_are_id() -> None:
    choice = choose_scale_and_threshold(seen(torch.tensor([[0.3], [0.1]])), torch.tensor([True, False]))
    assert choice is not None
    assert (choice.scale, choice.threshold, choice.accuracy) == (0.1, 0.5, 0.5)


@pytest.mark.parametrize("missing", ["id", "ood"])
def test_nothing_is_chosen_without_both_kinds(missing: str) -> None:
    assert choose_scale_and_threshold(seen(torch.rand(4, 2)), torch.full((4,), missing == "ood")) is None


def test_without_ood_images_95_percent_of_the_id_images_are_kept() -> None:
    scores = torch.arange(1, 101) / 200  # 0.005, ..., 0.5
    for num, num_kept in ((1, 1), (19, 19), (20, 19), (39, 38), (40, 38), (100, 95)):
        shuffled = scores[:num][torch.randperm(num, generator=torch.Generator().manual_seed(num))]
        assert int((shuffled > threshold_from_id(shuffled)).sum()) == num_kept
    assert threshold_from_id(torch.tensor([0.5])) == np.nextafter(np.float32(0.5), np.float32(0))
    assert threshold_from_id(torch.empty(0)) == 0.0


@pytest.mark.parametrize("criterion", ["balanced", "plain"])
@pytest.mark.parametrize("with_similarity", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_equals_a_loop_over_scales_and_thresholds(
    seed: int, with_similarity: bool, criterion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "MAX_CELLS", 7 * 25 * (3 + 6))  # blocks of seven scales, the last one shorter
    generator = torch.Generator().manual_seed(seed)
    yes, similarity = torch.rand(2, 25, 3, generator=generator) * 0.4
    yes = (yes * 20).round() / 20  # so that some scores are equal
    is_id = torch.rand(25, generator=generator) < 0.6
    weights = similarity if with_similarity else None
    scales = SCALES[::40]
    best, best_scale, best_decision = -1.0, 0.0, is_id
    for scale in scales:
        scores = mcm(seen(yes, similarity_NK=weights), scale)
        for threshold in [0.0, *scores.unique().tolist()]:
            says_id = scores > threshold
            right = says_id == is_id
            if criterion == "balanced":
                accuracy = (right[is_id].double().mean() + right[~is_id].double().mean()).item() / 2
            else:
                accuracy = right.double().mean().item()
            if accuracy > best + 1e-12:
                best, best_scale, best_decision = accuracy, scale, says_id
    choice = choose_scale_and_threshold(seen(yes, similarity_NK=weights), is_id, criterion=criterion, scales=scales)
    assert choice is not None
    assert choice.accuracy == pytest.approx(best, abs=1e-12)
    assert choice.scale == best_scale
    decision = mcm(seen(yes, similarity_NK=weights), choice.scale) > choice.threshold
    assert decision.tolist() == best_decision.tolist()
    assert best > 0.5


@pytest.mark.parametrize("criterion", ["balanced", "plain"])
def test_a_threshold_for_scores_of_any_size_makes_the_best_decision(criterion: str) -> None:
    rng = np.random.default_rng(6)
    for _ in range(50):
        scores = torch.from_numpy((rng.normal(size=25) * 100).round(-1)).float()  # some are equal
        is_id = torch.from_numpy(rng.random(25) < 0.5)
        choice = choose_threshold(scores, is_id, criterion=criterion)
        assert choice is not None
        best = 0.0
        for threshold in [-1e9, *scores.tolist()]:
            right = (scores > threshold) == is_id
            recalls = right[is_id].double().mean() + right[~is_id].double().mean()
            best = max(best, float(recalls / 2 if criterion == "balanced" else right.double().mean()))
        assert choice.accuracy == pytest.approx(best, abs=1e-12)
        right = (scores > choice.threshold) == is_id
        recalls = right[is_id].double().mean() + right[~is_id].double().mean()
        assert float(recalls / 2 if criterion == "balanced" else right.double().mean()) == pytest.approx(best)
    assert choose_threshold(scores, torch.ones(25, dtype=torch.bool)) is None


def test_how_many_scales_are_as_good_as_the_chosen_one() -> None:
    # One class: the decision is the same at every scale.
    choice = choose_scale(seen(torch.tensor([[0.3], [0.1]]), torch.tensor([[0.2], [0.2]])), torch.tensor([True, False]))
    assert choice is not None
    assert choice.num_tied == 1000


@pytest.mark.parametrize("scores", [atd, ctw])
def test_the_scale_is_the_same_in_float32_and_float64(scores: PairScores) -> None:
    # With 1 - sum for the OOD score half of these problems differed for ATD, and one in twenty for CTW.
    for seed in range(60):
        rng = torch.Generator().manual_seed(seed)
        num_classes, num = (2, 4, 10, 40)[seed % 4], (10, 30)[seed % 2]
        images = functional.normalize(torch.randn(num, 8, generator=rng), dim=1)
        texts = functional.normalize(torch.randn(3, num_classes, 8, generator=rng), dim=2)
        is_id = torch.rand(num, generator=rng) < 0.5
        is_id[:2] = torch.tensor([True, False])
        yes, no, similarity = (images @ each.T for each in texts)
        single = seen(yes, no, similarity_NK=similarity)
        double = seen(yes.double(), no.double(), similarity_NK=similarity.double())
        assert choose_scale(single, is_id, scores=scores) == choose_scale(double, is_id, scores=scores), seed
