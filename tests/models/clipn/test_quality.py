"""Detection quality on hand-made scores."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.clipn.quality import auroc, fpr95, measure_detection, zero_shot_accuracy


def test_auroc_counts_pairs_and_halves_ties() -> None:
    """Of the 6 pairs 4 are right and 1 is a tie."""
    assert auroc(np.array([3.0, 2.0, 1.0]), np.array([1.0, 0.5])) == pytest.approx(5.5 / 6)
    assert auroc(np.array([0.0]), np.array([1.0])) == 0.0


def test_fpr95_is_taken_where_95_percent_of_id_pass() -> None:
    """Of 40 ID images 38 must pass, so the threshold is the third lowest score, 2."""
    id_scores = np.arange(40.0)[::-1]
    assert fpr95(id_scores, np.array([1.9, 2.0, 5.0, 0.0])) == 0.5
    assert fpr95(np.arange(10.0), np.array([-1.0, 0.0, 0.5])) == pytest.approx(2 / 3)  # 9 of 10 would not be enough


@pytest.mark.parametrize(("num_id", "num_ood"), [(0, 2), (2, 0)])
def test_both_kinds_are_needed(num_id: int, num_ood: int) -> None:
    for measure in (auroc, fpr95):
        with pytest.raises(ValueError, match=f"{num_id} ID and {num_ood} OOD"):
            measure(np.zeros(num_id), np.zeros(num_ood))


def test_detection_by_hand() -> None:
    """Two classes along the axes, scale 2; "no" texts of zero make q the sigmoid of the class's own logit."""
    yes_KD = np.eye(2, dtype=np.float32)
    no_KD = np.zeros((2, 2), dtype=np.float32)
    images_ND = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=np.float32)
    is_id = np.array([True, True, False, False])
    quality = measure_detection(images_ND, is_id, yes_KD, no_KD, 2.0)
    # ID image: y = (2, 0), q = (sigmoid 2, 1/2), p = (sigmoid 2, sigmoid -2). OOD image: y = (-2, 0).
    assert (quality.num_id, quality.num_ood) == (2, 2)
    assert quality.atd_auroc == quality.ctw_auroc == 1.0
    assert quality.atd_fpr95 == quality.ctw_fpr95 == 0.0
    assert quality.mcm_auroc == 0.5  # p is the same for both kinds: the CLIP alone sees no difference
    assert quality.mcm_fpr95 == 1.0
    q = 1 / (1 + math.exp(-2))
    assert q * q > 1 - (q * q + (1 - q) / 2)
    assert quality.id_kept == 1.0
    # OOD image: p = (1 - q, q), q_k = (1 - q, 1/2): joint ((1 - q)^2, q / 2), the largest 0.44 against 1 - 0.45.
    assert q / 2 < 1 - (q / 2 + (1 - q) ** 2)
    assert quality.ood_rejected == 1.0


def test_decision_and_ctw_depend_on_the_no_texts() -> None:
    """With "no" equal to "yes" all q are 1/2: CTW cannot tell, and ATD's decision rejects everything but certainty."""
    yes_KD = np.eye(2, dtype=np.float32)
    images_ND = np.array([[1, 0], [0.6, 0.8]], dtype=np.float32)
    quality = measure_detection(images_ND, np.array([True, False]), yes_KD, yes_KD, 1.0)
    assert quality.ctw_auroc == quality.atd_auroc == 0.5
    assert (quality.id_kept, quality.ood_rejected) == (0.0, 1.0)


def test_ctw_asks_the_likeliest_class_only() -> None:
    """Class 0 is the likeliest of both images; class 1 would order them the other way round."""
    yes_KD = np.eye(2, dtype=np.float32)
    no_KD = np.array([[0.5, 1], [3, -1]], dtype=np.float32)
    images_ND = np.array([[1, 0], [0.8, 0.6]], dtype=np.float32)  # margins y - n: (0.5, -3) and (-0.2, -1.2)
    quality = measure_detection(images_ND, np.array([True, False]), yes_KD, no_KD, 1.0)
    assert quality.ctw_auroc == 1.0  # 0.5 against -0.2; by class 1, -3 against -1.2, it would be 0


def test_zero_shot_accuracy_by_hand() -> None:
    yes_CD = np.eye(3, dtype=np.float32)
    features_ND = np.array([[0.9, 0.1, 0], [0, 0.2, 0.9], [0, 1, 0]], dtype=np.float32)
    assert zero_shot_accuracy(features_ND, np.array([0, 1, 1]), yes_CD) == pytest.approx(2 / 3)
