"""EOAL's and CCAL's scores, losses and selections, MQNet's purity: against the original codes, and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.classifier.open_set import cluster_loss, known_loss, unknown_loss
from strategies.ccal import (
    distinctive_raw,
    joint_scores,
    minmax,
    semantic_scores,
    share_out,
)
from strategies.eoal import known_entropies, lowest_known_first, query_scores, unknown_entropies
from strategies.mqnet import highest_cosine, masked_losses
from strategies.numeric.cosines import nearest_by_cosine

GOLDEN = Path(__file__).parents[1] / "golden" / "strategies"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_eoal_entropies_and_scores(dtype: type[np.floating]) -> None:
    golden = np.load(GOLDEN / "eoal_select.npz")
    num_known = int(golden["n_known"])
    known = known_entropies(golden["binary_logits"].astype(dtype).reshape(-1, 2, num_known))
    unknown = unknown_entropies(golden["features"].astype(dtype), golden["centers"].astype(dtype))
    np.testing.assert_allclose(known, golden["entropy_known_nats"], atol=1e-5)
    np.testing.assert_allclose(unknown, golden["entropy_unknown_nats"], atol=1e-5)
    np.testing.assert_allclose(query_scores(known, None, 0), golden["score_first"], atol=1e-5)
    later = query_scores(known, unknown, len(golden["centers"]))
    np.testing.assert_allclose(later, golden["score_later"], atol=1e-5)
    np.testing.assert_array_equal(query_scores(known, unknown, 1), query_scores(known, None, 0))


@pytest.mark.parametrize(
    ("name", "score", "few"),
    [("first", "score_first", False), ("later", "score_later", False), ("fallback", "score_later", True)],
)
@pytest.mark.parametrize("diverse", [True, False])
def test_eoal_selections(name: str, score: str, few: bool, diverse: bool) -> None:
    golden = np.load(GOLDEN / "eoal_select.npz")
    is_known = golden["logits_detector_few" if few else "logits_detector"].argmax(axis=1) < int(golden["n_known"])
    partitions = golden["fallback_partitions" if few else "diversity_partitions"]
    levels = list(partitions.T) if diverse else None
    num_known = int(golden["n_known"])
    known = known_entropies(golden["binary_logits"].astype(np.float64).reshape(-1, 2, num_known))
    unknown = unknown_entropies(golden["features"], golden["centers"])
    scores = query_scores(known, unknown if score == "score_later" else None, len(golden["centers"]))
    picks = lowest_known_first(scores, is_known, int(golden["budget"]), levels)
    np.testing.assert_array_equal(picks, golden[f"selected_{name}_{'div' if diverse else 'nodiv'}"])


@pytest.mark.parametrize("case", ["with_ood", "no_ood"])
def test_eoal_losses_and_their_gradients(case: str) -> None:
    golden = np.load(GOLDEN / "eoal_losses.npz")
    num_known, alpha = int(golden["n_known"]), float(golden["alpha"])
    logits, binary, features = (
        torch.from_numpy(golden[f"{case}_{name}"]).requires_grad_() for name in ("logits", "binary_logits", "features")
    )
    labels = torch.from_numpy(golden[f"{case}_labels"])
    is_ood = labels == num_known
    rows = binary.view(-1, 2, num_known)
    known = known_loss(rows[~is_ood], labels[~is_ood], 1 - alpha if is_ood.any() else 1.0)
    unknown = unknown_loss(rows[is_ood], alpha)
    ce = torch.nn.functional.cross_entropy(logits / float(golden["temperature"]), labels)
    parts = {name: float(golden[f"{case}_{name}"]) for name in ("loss_pos", "loss_neg", "loss_ood_a", "loss_ood_b")}
    assert known.item() == pytest.approx((parts["loss_pos"] + parts["loss_neg"]) / 2, abs=1e-5)
    assert unknown.item() == pytest.approx((parts["loss_ood_a"] + parts["loss_ood_b"]) / 2, abs=1e-5)
    total = ce + known + unknown
    if is_ood.any():
        centres, clusters = torch.from_numpy(golden["centers"]), torch.from_numpy(golden["ood_cluster_labels"])
        pull = cluster_loss(features[is_ood], centres, clusters)
        total = total + float(golden["reg_weight"]) * pull
    assert total.item() == pytest.approx(float(golden[f"{case}_total"]), abs=1e-5)
    total.backward()
    assert logits.grad is not None
    assert binary.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), golden[f"{case}_grad_logits"], atol=1e-6)
    np.testing.assert_allclose(binary.grad.numpy(), golden[f"{case}_grad_binary"], atol=1e-6)
    if is_ood.any():
        assert features.grad is not None
        np.testing.assert_allclose(features.grad.numpy(), golden[f"{case}_grad_features"], atol=1e-6)


def test_parts_of_a_batch_that_are_missing_count_nothing() -> None:
    rows, features = torch.zeros(0, 2, 3, requires_grad=True), torch.zeros(0, 4, requires_grad=True)
    nothing = torch.zeros(0, dtype=torch.int64)
    total = known_loss(rows, nothing, 1.0) + unknown_loss(rows, 0.8) + cluster_loss(features, torch.ones(2, 4), nothing)
    total.backward()
    assert total.item() == 0.0


def test_a_feature_on_its_centre_has_a_gradient() -> None:
    features = torch.ones(1, 4, requires_grad=True)
    cluster_loss(features, torch.ones(1, 4), torch.tensor([0])).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_mqnet_purity_and_first_queries() -> None:
    golden = np.load(GOLDEN / "mqnet_query.npz")
    purity = highest_cosine(golden["features_pool"], golden["features_labeled_id"])
    np.testing.assert_allclose(purity, golden["purity"], atol=1e-5)
    assert highest_cosine(golden["features_pool"], golden["features_labeled_id"][:0]).max() == -1.0


def test_mqnet_targets_are_zero_for_ood() -> None:
    golden = np.load(GOLDEN / "mqnet_train.npz")
    losses = masked_losses(golden["logits"][None].astype(np.float64), golden["labels"])
    np.testing.assert_allclose(losses[0], golden["masked_true_loss"], atol=1e-6)


def ccal_means(golden: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Mean over the augmentations of each rotation: (images, rotations, features)."""
    features = golden[name]
    return features.reshape(len(features), int(golden["n_shift"]), int(golden["n_aug"]), -1).mean(axis=2)


def test_ccal_scores_and_selection() -> None:
    golden = dict(np.load(GOLDEN / "ccal.npz"))
    similarity, nearest = nearest_by_cosine(
        ccal_means(golden, "pool_semantic")[:, 0], ccal_means(golden, "labeled_semantic")[:, 0]
    )
    np.testing.assert_allclose(similarity, golden["max_similarity"], atol=1e-5)
    pseudo_class = golden["labeled_class"][nearest]
    np.testing.assert_array_equal(pseudo_class, golden["pseudo_class"])
    semantic = semantic_scores(similarity, float(golden["k"]), float(golden["t"]))
    pool = ccal_means(golden, "pool_distinctive")
    raw = np.stack([distinctive_raw(pool, ccal_means(golden, f"labeled_distinctive_{label}")) for label in range(4)])
    np.testing.assert_allclose(raw, golden["distinctive_raw"], atol=1e-5)
    distinctive = 1.0 - np.stack([minmax(row) for row in raw])
    np.testing.assert_allclose(distinctive, golden["distinctive"], atol=1e-5)
    joint = joint_scores(semantic, distinctive, pseudo_class)
    np.testing.assert_allclose(joint, golden["joint"], atol=5e-5)
    per_class = int(golden["per_class"])
    picks, num_filled = share_out(joint[pseudo_class, np.arange(len(pool))], pseudo_class, 4, 4 * per_class)
    enough = [int((pseudo_class == label).sum()) >= per_class for label in range(4)]
    assert all(enough)
    assert num_filled == 0
    np.testing.assert_array_equal(picks.reshape(4, per_class), golden["selected"])


def test_ccal_with_one_labelled_image_of_a_class() -> None:
    pool, labelled = np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), np.array([[[1.0, 0.0]]])
    np.testing.assert_allclose(distinctive_raw(pool, labelled), [2.0, 1.0])


def test_ccal_fills_up_where_a_class_has_too_few() -> None:
    picks, num_filled = share_out(np.array([0.1, 0.9, 0.5, 0.2]), np.array([0, 1, 1, 1]), 2, 4)
    assert picks.tolist() == [0, 1, 2, 3]
    assert num_filled == 1
