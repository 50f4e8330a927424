"""Eq. 1 to 7: hand-made cases with exact answers, and the official codes' outputs on golden inputs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from strategies.purity.scores import atd, ctw, energy, judged_id, maxlogit, mcm, prototypes, terms, visual_weights
from tests.strategies.purity.seen import seen

GOLDEN = Path(__file__).parents[2] / "golden" / "purity.npz"


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
    id_scores, ood_scores = atd(seen(torch.tensor([yes]), torch.tensor([no])), scale)
    assert id_scores.item() == pytest.approx(max(joint), abs=1e-6)
    assert ood_scores.item() == pytest.approx(1 - sum(joint), abs=1e-6)
    assert judged_id(id_scores, ood_scores).tolist() == [True]


def test_visual_weights_turn_the_decision() -> None:
    yes, no = torch.tensor([[0.2, 0.2]]), torch.tensor([[0.1, 0.1]])
    joint = 0.5 * sigmoid(1.0)
    similarity = torch.tensor([[0.5, 0.3]])
    weight = math.exp(5) / (math.exp(5) + math.exp(3))  # Eq. 6
    id_scores, ood_scores = atd(seen(yes, no, similarity_NK=similarity), 10.0)
    assert id_scores.item() == pytest.approx(weight * joint, abs=1e-6)
    assert ood_scores.item() == pytest.approx((1 - 2 * joint) / 2, abs=1e-6)  # divided by K: P6


def test_uninformative_weights_change_no_decision() -> None:
    yes, no = torch.tensor([[0.3, 0.1], [0.1, 0.1]]), torch.tensor([[0.2, 0.2], [0.3, 0.3]])
    plain = atd(seen(yes, no), 20.0)
    weighted = atd(seen(yes, no, similarity_NK=torch.zeros(2, 2)), 20.0)
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
    id_scores, ood_scores = atd(seen(yes, no), 100.0)
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
    id_scores, ood_scores = atd(seen(yes, no, similarity_NK=similarity), scales)
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


def test_ctw_of_two_classes_by_hand() -> None:
    # "yes" beats "no" at the top class 0 of the first image; at the top class 1 of the second "no" wins.
    yes, no = torch.tensor([[0.3, 0.1], [0.2, 0.3]]), torch.tensor([[0.2, 0.9], [0.1, 0.4]])
    id_scores, ood_scores = ctw(seen(yes, no), 10.0)
    assert id_scores.tolist() == pytest.approx([sigmoid(1.0), sigmoid(-1.0)], abs=1e-6)
    assert ood_scores.tolist() == pytest.approx([sigmoid(-1.0), sigmoid(1.0)], abs=1e-6)
    assert judged_id(id_scores, ood_scores).tolist() == [True, False]


def test_ctw_breaks_ties_to_the_first_class_and_to_ood() -> None:
    yes, no = torch.tensor([[0.3, 0.3], [0.3, 0.1]]), torch.tensor([[0.1, 0.9], [0.3, 0.0]])
    id_scores, ood_scores = ctw(seen(yes, no), 10.0)
    assert id_scores.tolist() == pytest.approx([sigmoid(2.0), 0.5], abs=1e-6)
    assert judged_id(id_scores, ood_scores).tolist() == [True, False]


def test_ctw_decides_the_same_at_every_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    yes, no = torch.rand(2, 200, 5, generator=generator)
    decisions = judged_id(*ctw(seen(yes, no), torch.tensor([0.1, 3.7, 100.0])[:, None, None]))
    assert decisions[0].tolist() == [bool(y[y.argmax()] > n[y.argmax()]) for y, n in zip(yes, no, strict=True)]
    assert (decisions == decisions[0]).all()


def test_visual_weights_choose_the_class_that_competes() -> None:
    # By text class 0 is ahead, 0.2 to 0.1; with the images' similarities class 1, 0.2 + 0.1 to 0.1 + 0.5.
    yes, no, similarity = torch.tensor([[0.2, 0.1]]), torch.tensor([[0.1, 0.3]]), torch.tensor([[0.1, 0.5]])
    id_scores, ood_scores = ctw(seen(yes, no, similarity_NK=similarity), 10.0)
    weight = math.exp(5) / (math.exp(5) + math.exp(1))
    assert id_scores.item() == pytest.approx(weight * sigmoid(-2.0), abs=1e-6)
    assert ood_scores.item() == pytest.approx(sigmoid(2.0) / 2, abs=1e-6)


def test_the_class_that_competes_is_found_where_probabilities_saturate() -> None:
    # At scale 1000 p_0 = e^-400 and w_1 = e^-200 are 0 in float32, but class 1 is ahead, 0.9 + 0.5 to 0.5 + 0.7.
    yes, no, similarity = torch.tensor([[0.5, 0.9]]), torch.tensor([[0.6, 0.8]]), torch.tensor([[0.7, 0.5]])
    _, ood_scores = ctw(seen(yes, no, similarity_NK=similarity), 1000.0)
    assert ood_scores.tolist() == [0.0]  # q_1 = 0; that of class 0 is 1


def test_a_class_without_labelled_image_competes_with_weight_one_kth() -> None:
    # Log weights: -log 3 for class 1; class 0 and 2 share 2/3 as e^4 to e^2. So 1 + log(2/3) - log(1 + e^-2) for class
    # 0 is above 1.3 - log 3 for class 1, which without the weights would be ahead.
    yes, no, similarity = (
        torch.tensor([[0.1, 0.13, 0.0]]),
        torch.tensor([[0.0, 0.5, 0.5]]),
        torch.tensor([[0.4, 9, 0.2]]),
    )
    known = torch.tensor([True, False, True])
    id_scores, _ = ctw(seen(yes, no, similarity_NK=similarity, has_prototype_K=known), 10.0)
    share = math.exp(4) / (math.exp(4) + math.exp(2))
    assert id_scores.item() == pytest.approx(share * 2 / 3 * sigmoid(1.0), abs=1e-6)
    ahead, _ = ctw(seen(yes + torch.tensor([0, 0.04, 0]), no, similarity_NK=similarity, has_prototype_K=known), 10.0)
    assert ahead.item() == pytest.approx(sigmoid(-3.3) / 3, abs=1e-6)


def test_ctw_equals_the_reference_at_scale_100(golden: dict[str, np.ndarray]) -> None:
    yes, no = torch.from_numpy(golden["yes_logits"] / 100), torch.from_numpy(golden["no_logits"] / 100)
    id_scores, ood_scores = ctw(seen(yes, no), 100.0)
    np.testing.assert_allclose(id_scores, golden["ctw_score"], atol=1e-4)
    assert (np.abs(golden["ctw_score"] - 0.5) > 1e-3).all()
    assert 0 < golden["ctw_is_ood"].sum() < 48
    np.testing.assert_array_equal(~judged_id(id_scores, ood_scores).numpy(), golden["ctw_is_ood"])


def test_mcm_by_hand() -> None:
    yes, similarity = torch.tensor([[0.3, 0.1]]), torch.tensor([[0.1, 0.4]])
    p = math.exp(3) / (math.exp(3) + math.exp(1))
    assert mcm(seen(yes), 10.0).tolist() == pytest.approx([p], abs=1e-6)
    w = math.exp(4) / (math.exp(1) + math.exp(4))
    weighted = [p * (1 - w), (1 - p) * w]
    assert mcm(seen(yes, similarity_NK=similarity), 10.0).tolist() == pytest.approx([max(weighted)], abs=1e-6)


def test_mcm_equals_the_reference_at_scale_100(golden: dict[str, np.ndarray]) -> None:
    scores = mcm(seen(torch.from_numpy(golden["yes_logits"] / 100)), 100.0)
    np.testing.assert_allclose(scores, golden["p_class"].max(axis=1), atol=1e-4)


def test_uninformative_weights_divide_ctw_and_mcm_by_the_number_of_classes() -> None:
    generator = torch.Generator().manual_seed(1)
    yes, no = torch.rand(2, 50, 3, generator=generator)
    flat, unknown = torch.zeros(50, 3), torch.zeros(3, dtype=torch.bool)
    for weights in ({"similarity_NK": flat}, {"similarity_NK": yes, "has_prototype_K": unknown}):
        for plain, weighted in zip(ctw(seen(yes, no), 20.0), ctw(seen(yes, no, **weights), 20.0), strict=True):
            torch.testing.assert_close(weighted * 3, plain)
        torch.testing.assert_close(mcm(seen(yes, **weights), 20.0) * 3, mcm(seen(yes), 20.0))


@pytest.mark.parametrize("with_similarity", [False, True])
def test_many_scales_at_once_equal_one_after_the_other(with_similarity: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    yes, no, similarity = torch.rand(3, 20, 4, generator=generator)
    weights = (
        {"similarity_NK": similarity, "has_prototype_K": torch.tensor([True, True, False, True])}
        if with_similarity
        else {}
    )
    scales = (0.1, 5.0, 100.0)
    at_once = torch.tensor(scales)[:, None, None]
    together, alone = ctw(seen(yes, no, **weights), at_once), mcm(seen(yes, **weights), at_once)
    for index, scale in enumerate(scales):
        for whole, one in zip(together, ctw(seen(yes, no, **weights), scale), strict=True):
            torch.testing.assert_close(whole[index], one)
        torch.testing.assert_close(alone[index], mcm(seen(yes, **weights), scale))


@pytest.mark.parametrize("with_similarity", [False, True])
def test_the_terms_are_the_factors_of_atd(with_similarity: bool) -> None:
    yes, no, similarity = torch.rand(3, 20, 4, generator=torch.Generator().manual_seed(4))
    evidence = seen(yes, no, similarity_NK=similarity if with_similarity else None)
    factors = terms(evidence, 10.0)
    torch.testing.assert_close(factors.probs_NK, torch.softmax(10 * yes, dim=1))
    torch.testing.assert_close(factors.not_q_NK, 1 / (1 + torch.exp(-10 * (yes - no))))
    product = factors.probs_NK * factors.not_q_NK
    if with_similarity:
        assert factors.weights_NK is not None
        torch.testing.assert_close(factors.weights_NK, torch.softmax(10 * similarity, dim=1))
        product = product * factors.weights_NK
    else:
        assert factors.weights_NK is None
    torch.testing.assert_close(product.amax(dim=1), atd(evidence, 10.0)[0])


def test_energy_and_maxlogit_by_hand() -> None:
    evidence = seen(torch.tensor([[0.3, 0.1], [0.2, 0.2]]))
    assert maxlogit(evidence, 5.0).tolist() == pytest.approx([0.3, 0.2])
    expected = [math.log(math.exp(3) + math.exp(1)) / 10, math.log(2 * math.exp(2)) / 10]
    assert energy(evidence, 10.0).tolist() == pytest.approx(expected, abs=1e-6)
    scales = torch.tensor([10.0, 3.0])[:, None, None]
    torch.testing.assert_close(energy(evidence, scales)[0], energy(evidence, 10.0))
    torch.testing.assert_close(energy(evidence, scales)[1], energy(evidence, 3.0))
    assert maxlogit(evidence, scales).shape == (2, 2)
