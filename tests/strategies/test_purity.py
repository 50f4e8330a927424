"""Eq. 1 to 7: hand-made cases with exact answers, and the official codes' outputs on golden inputs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from strategies.purity import id_and_ood_scores, judged_id, prototypes, visual_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "purity.npz"


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def test_prototypes_are_means_that_are_not_made_unit() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    means, known = prototypes(features, torch.tensor([0, 0, 2]), num_classes=3)
    assert means.tolist() == [[0.5, 0.5], [0.0, 0.0], [-1.0, 0.0]]
    assert known.tolist() == [True, False, True]


def test_prototypes_without_labelled_images() -> None:
    means, known = prototypes(torch.empty(0, 2), torch.empty(0, dtype=torch.int64), num_classes=2)
    assert means.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert known.tolist() == [False, False]


def test_scores_of_two_classes_by_hand() -> None:
    yes, no, scale = [0.3, 0.1], [0.2, 0.2], 10.0
    p = [math.exp(3) / (math.exp(3) + math.exp(1)), math.exp(1) / (math.exp(3) + math.exp(1))]  # Eq. 2
    kept = [sigmoid(1.0), sigmoid(-1.0)]  # 1 - q, Eq. 3
    joint = [p[0] * kept[0], p[1] * kept[1]]
    id_scores, ood_scores = id_and_ood_scores(torch.tensor([yes]), torch.tensor([no]), scale)
    assert id_scores.item() == pytest.approx(max(joint), abs=1e-6)
    assert ood_scores.item() == pytest.approx(1 - sum(joint), abs=1e-6)
    assert judged_id(id_scores, ood_scores).tolist() == [True]


def test_visual_weights_turn_the_decision() -> None:
    yes, no = torch.tensor([[0.2, 0.2]]), torch.tensor([[0.1, 0.1]])
    joint = 0.5 * sigmoid(1.0)
    similarity = torch.tensor([[0.5, 0.3]])
    weight = math.exp(5) / (math.exp(5) + math.exp(3))  # Eq. 6
    id_scores, ood_scores = id_and_ood_scores(yes, no, 10.0, similarity_NK=similarity)
    assert id_scores.item() == pytest.approx(weight * joint, abs=1e-6)
    assert ood_scores.item() == pytest.approx((1 - 2 * joint) / 2, abs=1e-6)  # divided by K: P6


def test_uninformative_weights_change_no_decision() -> None:
    yes, no = torch.tensor([[0.3, 0.1], [0.1, 0.1]]), torch.tensor([[0.2, 0.2], [0.3, 0.3]])
    plain = id_and_ood_scores(yes, no, 20.0)
    weighted = id_and_ood_scores(yes, no, 20.0, similarity_NK=torch.zeros(2, 2))
    assert torch.allclose(weighted[0], plain[0] / 2)
    assert torch.allclose(weighted[1], plain[1] / 2)


def test_class_without_labelled_image_weighs_one_kth() -> None:
    similarity = torch.tensor([[0.4, 9.9, 0.2]])
    weights = visual_weights(similarity, torch.tensor([True, False, True]), 10.0)
    share = math.exp(4) / (math.exp(4) + math.exp(2))
    assert weights[0].tolist() == pytest.approx([share * 2 / 3, 1 / 3, (1 - share) * 2 / 3], abs=1e-6)


def test_no_labelled_image_at_all_gives_equal_weights() -> None:
    weights = visual_weights(torch.zeros(2, 4), torch.zeros(4, dtype=torch.bool), 10.0)
    assert weights.tolist() == [[0.25] * 4] * 2


def test_a_tie_is_ood() -> None:
    assert judged_id(torch.tensor([0.5, 0.6]), torch.tensor([0.5, 0.5])).tolist() == [False, True]


def test_atd_equals_the_reference_at_scale_100(golden: dict[str, np.ndarray]) -> None:
    yes, no = torch.from_numpy(golden["yes_logits"] / 100), torch.from_numpy(golden["no_logits"] / 100)
    id_scores, ood_scores = id_and_ood_scores(yes, no, 100.0)
    np.testing.assert_allclose(ood_scores, golden["atd_p_ood"], atol=1e-4)
    np.testing.assert_allclose(id_scores, (golden["p_yes"] * golden["p_class"]).max(axis=1), atol=1e-4)
    clear = np.abs(golden["atd_margin_joint"]) > 1e-3
    assert clear.sum() > 40
    np.testing.assert_array_equal(~judged_id(id_scores, ood_scores).numpy()[clear], golden["atd_is_ood_joint"][clear])


@pytest.mark.parametrize(("with_similarity", "name"), [(False, "vl_probs"), (True, "vl_probs_sim")])
def test_scores_equal_the_official_code_at_every_scale(
    golden: dict[str, np.ndarray], with_similarity: bool, name: str
) -> None:
    yes, no = torch.from_numpy(golden["vl_yes_cos"]), torch.from_numpy(golden["vl_no_cos"])
    similarity = torch.from_numpy(golden["vl_sim"]) if with_similarity else None
    scales = torch.tensor(golden["vl_scales"], dtype=torch.float32)[:, None, None]
    id_scores, ood_scores = id_and_ood_scores(yes, no, scales, similarity_NK=similarity)
    np.testing.assert_allclose(ood_scores, golden[name][:, :, 0], atol=1e-4)
    np.testing.assert_allclose(id_scores, golden[name][:, :, 1], atol=1e-4)
    np.testing.assert_array_equal(judged_id(id_scores, ood_scores), golden[name].argmax(axis=2) == 1)


def test_similarity_equals_the_official_code(golden: dict[str, np.ndarray]) -> None:
    features = torch.from_numpy(golden["image_features_norm"])
    labelled = torch.from_numpy(golden["vl_labelled_idx"])  # (C, 2)
    labels = torch.arange(len(labelled)).repeat_interleave(labelled.shape[1])
    means, known = prototypes(features[labelled.flatten()], labels, num_classes=len(labelled))
    assert known.all()
    np.testing.assert_allclose(features @ means.T, golden["vl_sim"], atol=1e-5)
