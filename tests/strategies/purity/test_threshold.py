"""MCM's threshold: by hand, and against a plain loop over every decision that a threshold can make."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from strategies.purity import logit_scale
from strategies.purity.logit_scale import SCALES
from strategies.purity.scores import mcm_scores
from strategies.purity.threshold import _between, choose_scale_and_threshold, threshold_from_id


def cosines(*probs: float) -> torch.Tensor:
    """Cosines of two classes whose larger p is `probs` at scale 1."""
    return torch.tensor([[math.log(p / (1 - p)), 0.0] for p in probs])


def test_halfway_between_the_scores_that_part_best() -> None:
    # Scores 0.6 OOD, 0.7 ID, 0.8 OOD, 0.9 ID, 0.95 ID: the cut above 0.8 has 2 of 3 ID and 2 of 2 OOD right (5/6); that
    # above 0.6 has 3 of 3 and 1 of 2 (3/4).
    yes, is_id = cosines(0.8, 0.7, 0.95, 0.6, 0.9), torch.tensor([False, True, True, False, True])
    choice = choose_scale_and_threshold(yes, is_id, scales=(1.0,))
    assert choice is not None
    assert choice.threshold == pytest.approx(0.85, abs=1e-6)
    assert choice.accuracy == 5 / 6


def test_of_equally_good_thresholds_the_lowest() -> None:
    # OOD 0.6, ID 0.7, OOD 0.8, ID 0.9: the cuts above 0.6 and above 0.8 both have 3 of 4 right.
    yes, is_id = cosines(0.9, 0.8, 0.7, 0.6), torch.tensor([True, False, True, False])
    choice = choose_scale_and_threshold(yes, is_id, scales=(1.0,))
    assert choice is not None
    assert choice.threshold == pytest.approx(0.65, abs=1e-6)
    assert choice.accuracy == 0.75


def test_of_equally_good_scales_the_lowest() -> None:
    choice = choose_scale_and_threshold(cosines(0.9, 0.6), torch.tensor([True, False]))
    assert choice is not None
    assert (choice.scale, choice.accuracy) == (0.1, 1.0)


@pytest.mark.parametrize(("criterion", "accuracy", "threshold"), [("balanced", 0.5, 0.3), ("plain", 0.75, 0.95)])
def test_everything_id_and_everything_ood_are_tried_too(criterion: str, accuracy: float, threshold: float) -> None:
    # The only ID image has the lowest score: by plain accuracy all OOD is best, by balanced nothing beats half.
    yes, is_id = cosines(0.6, 0.7, 0.8, 0.9), torch.tensor([True, False, False, False])
    choice = choose_scale_and_threshold(yes, is_id, criterion=criterion, scales=(1.0,))
    assert choice is not None
    assert choice.accuracy == accuracy
    assert choice.threshold == pytest.approx(threshold, abs=1e-6)


def test_no_threshold_parts_equal_scores() -> None:
    yes, is_id = cosines(0.8, 0.8, 0.8, 0.9), torch.tensor([False, False, True, True])
    choice = choose_scale_and_threshold(yes, is_id, scales=(1.0,))
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
    choice = choose_scale_and_threshold(torch.tensor([[0.3], [0.1]]), torch.tensor([True, False]))
    assert choice is not None
    assert (choice.scale, choice.threshold, choice.accuracy) == (0.1, 0.5, 0.5)


@pytest.mark.parametrize("missing", ["id", "ood"])
def test_nothing_is_chosen_without_both_kinds(missing: str) -> None:
    assert choose_scale_and_threshold(torch.rand(4, 2), torch.full((4,), missing == "ood")) is None


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
    monkeypatch.setattr(logit_scale, "MAX_CELLS", 7 * 25 * (3 + 6))  # blocks of seven scales, the last one shorter
    generator = torch.Generator().manual_seed(seed)
    yes, similarity = torch.rand(2, 25, 3, generator=generator) * 0.4
    yes = (yes * 20).round() / 20  # so that some scores are equal
    is_id = torch.rand(25, generator=generator) < 0.6
    weights = similarity if with_similarity else None
    scales = SCALES[::40]
    best, best_scale, best_decision = -1.0, 0.0, is_id
    for scale in scales:
        scores = mcm_scores(yes, scale, similarity_NK=weights)
        for threshold in [0.0, *scores.unique().tolist()]:
            says_id = scores > threshold
            right = says_id == is_id
            if criterion == "balanced":
                accuracy = (right[is_id].double().mean() + right[~is_id].double().mean()).item() / 2
            else:
                accuracy = right.double().mean().item()
            if accuracy > best + 1e-12:
                best, best_scale, best_decision = accuracy, scale, says_id
    choice = choose_scale_and_threshold(yes, is_id, similarity_LK=weights, criterion=criterion, scales=scales)
    assert choice is not None
    assert choice.accuracy == pytest.approx(best, abs=1e-12)
    assert choice.scale == best_scale
    decision = mcm_scores(yes, choice.scale, similarity_NK=weights) > choice.threshold
    assert decision.tolist() == best_decision.tolist()
    assert best > 0.5
