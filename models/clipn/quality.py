"""Quality of a CLIPN on labelled images: zero-shot accuracy, and detection of OOD images.

Shapes: N images, C classes, K ID classes, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionQuality:
    """Measures of OOD detection with texts of the ID classes only; all shares in [0, 1]."""

    num_id: int
    num_ood: int
    atd_auroc: float
    """AUROC of the sum of p_k q_k (CLIPN's agreeing-to-differ)."""
    atd_fpr95: float
    ctw_auroc: float
    """AUROC of q of the likeliest class (CLIPN's competing-to-win)."""
    ctw_fpr95: float
    mcm_auroc: float
    """AUROC of the largest p_k, which is the CLIP's own without the "no" tower."""
    mcm_fpr95: float
    id_kept: float
    """Share of the ID images that ATD judges ID."""
    ood_rejected: float
    """Share of the OOD images that ATD judges OOD."""


def measure_detection(
    image_features_ND: NDArray[np.float32],
    is_id: NDArray[np.bool_],
    yes_KD: NDArray[np.float32],
    no_KD: NDArray[np.float32],
    logit_scale: float,
) -> DetectionQuality:
    """Detection quality on images that are ID if `is_id` (N,) is True; all features have unit length.

    Raises ValueError if there is no ID or no OOD image.
    """
    images_ND = image_features_ND.astype(np.float64)
    yes_NK, no_NK = logit_scale * images_ND @ yes_KD.T, logit_scale * images_ND @ no_KD.T
    p_NK = np.exp(yes_NK - yes_NK.max(axis=1, keepdims=True))
    p_NK /= p_NK.sum(axis=1, keepdims=True)
    q_NK = np.exp(-np.logaddexp(0, no_NK - yes_NK))
    joint_NK = p_NK * q_NK
    atd, mcm = joint_NK.sum(axis=1), p_NK.max(axis=1)
    ctw = q_NK[np.arange(len(q_NK)), p_NK.argmax(axis=1)]
    says_id = joint_NK.max(axis=1) > 1 - atd
    return DetectionQuality(
        num_id=int(is_id.sum()),
        num_ood=int((~is_id).sum()),
        atd_auroc=auroc(atd[is_id], atd[~is_id]),
        atd_fpr95=fpr95(atd[is_id], atd[~is_id]),
        ctw_auroc=auroc(ctw[is_id], ctw[~is_id]),
        ctw_fpr95=fpr95(ctw[is_id], ctw[~is_id]),
        mcm_auroc=auroc(mcm[is_id], mcm[~is_id]),
        mcm_fpr95=fpr95(mcm[is_id], mcm[~is_id]),
        id_kept=float(says_id[is_id].mean()),
        ood_rejected=float((~says_id[~is_id]).mean()),
    )


def zero_shot_accuracy(
    image_features_ND: NDArray[np.float32], labels: NDArray[np.int64], yes_CD: NDArray[np.float32]
) -> float:
    """Share of the images whose nearest class text is that of their own class."""
    return float(((image_features_ND @ yes_CD.T).argmax(axis=1) == labels).mean())


def auroc(id_scores: Scores, ood_scores: Scores) -> float:
    """Probability that an ID image scores above an OOD image; ties count half. Raises ValueError for an empty side."""
    from sklearn.metrics import roc_auc_score

    _check_both(id_scores, ood_scores)
    is_id = np.concatenate([np.ones(len(id_scores)), np.zeros(len(ood_scores))])
    return float(roc_auc_score(is_id, np.concatenate([id_scores, ood_scores])))


def fpr95(id_scores: Scores, ood_scores: Scores) -> float:
    """Share of the OOD images that pass the threshold that 95 % of the ID images pass.

    The threshold is the highest ID score that at least 95 % of the ID images reach. Raises ValueError if one side is
    empty.
    """
    _check_both(id_scores, ood_scores)
    num_passing = -(-95 * len(id_scores) // 100)
    threshold = np.sort(id_scores)[len(id_scores) - num_passing]
    return float((ood_scores >= threshold).mean())


def _check_both(id_scores: Scores, ood_scores: Scores) -> None:
    """Raise ValueError if there are no ID or no OOD images."""
    if not len(id_scores) or not len(ood_scores):
        raise ValueError(f"there are {len(id_scores)} ID and {len(ood_scores)} OOD images; detection needs both")
