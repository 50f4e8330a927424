"""How surely an image is in-distribution: CLIPN's ATD scores with visual similarity weights (Eq. 1 to 7).

Functions of arrays, nothing else. Cosines come from unit features; `scale` is the logit scale, 1 / temperature.
Shapes: N images, K ID classes, D embedding, T logit scales.
"""

from __future__ import annotations

import torch
from torch import Tensor


def prototypes(features_LD: Tensor, labels_L: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Class prototypes (K, D) and which classes have one (K,) bool, from L labelled unit features (Eq. 5).

    A prototype is the mean of the unit features and is not made unit again (P7, as the official code). The row of a
    class without a labelled image is zero.
    """
    sums_KD = features_LD.new_zeros(num_classes, features_LD.shape[1]).index_add_(0, labels_L, features_LD)
    counts_K = torch.bincount(labels_L, minlength=num_classes)
    return sums_KD / counts_K.clamp(min=1)[:, None], counts_K > 0


def visual_weights(similarity_NK: Tensor, has_prototype_K: Tensor, scale: Tensor | float) -> Tensor:
    """Weights (..., N, K) of the classes by visual similarity; each row sums to 1 (Eq. 6).

    `similarity_NK` is the product of unit image features with the prototypes. A class without a prototype weighs 1/K
    and the others share the rest (P7).
    """
    num_classes = similarity_NK.shape[1]
    num_known = int(has_prototype_K.sum())
    if num_known == num_classes:
        return torch.softmax(scale * similarity_NK, dim=-1)
    hidden = torch.where(has_prototype_K, scale * similarity_NK, -torch.inf)
    uninformed = torch.full_like(hidden, 1.0 / num_classes)
    if num_known == 0:
        return uninformed
    shared = torch.softmax(hidden, dim=-1) * (num_known / num_classes)
    return torch.where(has_prototype_K, shared, uninformed)


def id_and_ood_scores(
    yes_NK: Tensor,
    no_NK: Tensor,
    scale: Tensor | float,
    *,
    similarity_NK: Tensor | None = None,
    has_prototype_K: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """ID scores and OOD scores, each (N,), or (T, N) for `scale` of shape (T, 1, 1).

    `yes_NK` and `no_NK` are cosines of images with the "yes" and "no" texts of the classes. Without similarities these
    are the largest p_k (1 - q_k) and 1 minus their sum (Eq. 2 to 4, ATD); with them each class's term is weighted and
    the OOD score is divided by K (Eq. 6 and 7, P6).
    """
    not_q = torch.sigmoid(scale * (yes_NK - no_NK))  # 1 - q_k, Eq. 3
    joint = torch.softmax(scale * yes_NK, dim=-1) * not_q  # Eq. 2 and 4
    ood = 1.0 - joint.sum(dim=-1)
    if similarity_NK is None:
        return joint.amax(dim=-1), ood
    if has_prototype_K is None:
        has_prototype_K = torch.ones(similarity_NK.shape[1], dtype=torch.bool, device=similarity_NK.device)
    weighted = joint * visual_weights(similarity_NK, has_prototype_K, scale)  # Eq. 7
    return weighted.amax(dim=-1), ood / similarity_NK.shape[1]


def judged_id(id_scores: Tensor, ood_scores: Tensor) -> Tensor:
    """The decision, bool: ID where the ID score is the larger one; a tie is OOD (Eq. 4 and 7)."""
    return id_scores > ood_scores
