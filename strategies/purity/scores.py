"""How surely an image is in-distribution: the scores of CLIPN's ATD (Eq. 1 to 7), CLIPN's CTW, and MCM.

Pure functions of arrays. Cosines come from unit features; `scale` is the logit scale, 1 / temperature.
Visual similarity weights w_k enter all three in the way of Eq. 7: the ID side is weighted and the OOD side divided by
K, so that uninformative weights (all 1/K) divide both sides by K and change no decision.
Shapes: N images, K ID classes, D embedding, T logit scales.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Inputs of a detector for N images."""

    yes_NK: Tensor
    """Cosines of the images with the "yes" texts of the classes."""
    no_NK: Tensor
    """Cosines with the "no" texts."""
    similarity_NK: Tensor | None = None
    """Products with the class prototypes (`prototypes`); None: no visual similarity weights."""
    has_prototype_K: Tensor | None = None
    """Which classes have a labelled image; None exactly if `similarity_NK` is None."""

    def of(self, idx: Tensor) -> Evidence:
        """Evidence of some of the images, by index."""
        return Evidence(
            yes_NK=self.yes_NK[idx],
            no_NK=self.no_NK[idx],
            similarity_NK=None if self.similarity_NK is None else self.similarity_NK[idx],
            has_prototype_K=self.has_prototype_K,
        )

    def weights(self, scale: Tensor | float) -> Tensor | None:
        """Weights (..., N, K) of the classes by visual similarity (Eq. 6); None: every class counts the same."""
        if self.similarity_NK is None or self.has_prototype_K is None:
            return None
        return visual_weights(self.similarity_NK, self.has_prototype_K, scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Factors that ATD multiplies for each image and class."""

    probs_NK: Tensor
    """p_k, Eq. 2."""
    not_q_NK: Tensor
    """1 - q_k, Eq. 3."""
    weights_NK: Tensor | None
    """w_k, Eq. 6; None without visual similarity."""


def prototypes(features_LD: Tensor, labels_L: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Class prototypes (K, D) and which classes have one (K,) bool, from L labelled unit features (Eq. 5).

    A prototype is the mean of the unit features and is not made unit again (as the official code). The row of a
    class without a labelled image is zero.
    """
    sums_KD = features_LD.new_zeros(num_classes, features_LD.shape[1]).index_add_(0, labels_L, features_LD)
    counts_K = torch.bincount(labels_L, minlength=num_classes)
    return sums_KD / counts_K.clamp(min=1)[:, None], counts_K > 0


def visual_weights(similarity_NK: Tensor, has_prototype_K: Tensor, scale: Tensor | float) -> Tensor:
    """Weights (..., N, K) of the classes by visual similarity; each row sums to 1 (Eq. 6).

    `similarity_NK` is the product of unit image features with the prototypes. A class without a prototype weighs 1/K
    and the others share the rest.
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


def _log_visual_weights(similarity_NK: Tensor, has_prototype_K: Tensor, scale: Tensor | float) -> Tensor:
    """Logarithms of `visual_weights`, finite even if a weight is too small for a float."""
    num_classes = similarity_NK.shape[1]
    num_known = int(has_prototype_K.sum())
    scaled = scale * similarity_NK
    uninformed = torch.full_like(scaled, -math.log(num_classes))
    if num_known == 0:
        return uninformed
    shared = torch.log_softmax(torch.where(has_prototype_K, scaled, -torch.inf), dim=-1)
    return torch.where(has_prototype_K, shared + math.log(num_known / num_classes), uninformed)


def terms(evidence: Evidence, scale: Tensor | float) -> Terms:
    """The factors of Eq. 4 and 7, each (N, K), or (T, N, K) for `scale` of shape (T, 1, 1)."""
    return Terms(
        probs_NK=torch.softmax(scale * evidence.yes_NK, dim=-1),
        not_q_NK=torch.sigmoid(scale * (evidence.yes_NK - evidence.no_NK)),
        weights_NK=evidence.weights(scale),
    )


def atd(evidence: Evidence, scale: Tensor | float) -> tuple[Tensor, Tensor]:
    """ID scores and OOD scores of agreeing-to-differ, each (N,), or (T, N) for `scale` of shape (T, 1, 1).

    Without similarities these are the largest p_k (1 - q_k) and 1 minus their sum (Eq. 2 to 4); with them each class's
    term is weighted and the OOD score is divided by K (Eq. 6 and 7).
    """
    factors = terms(evidence, scale)
    joint = factors.probs_NK * factors.not_q_NK  # Eq. 4
    # 1 minus the sum of p_k (1 - q_k), as the sum of p_k q_k: written as the difference it is rounded to 0 or 6e-8 at
    # large scales, where weighted ID scores are smaller still. Of 252 random problems with weights or without, float32
    # and float64 then chose another scale in 21, all with weights, by up to 17 points of accuracy.
    q_NK = torch.sigmoid(scale * (evidence.no_NK - evidence.yes_NK))
    ood = (factors.probs_NK * q_NK).sum(dim=-1)
    if factors.weights_NK is None:
        return joint.amax(dim=-1), ood
    return (joint * factors.weights_NK).amax(dim=-1), ood / joint.shape[-1]  # Eq. 7


def ctw(evidence: Evidence, scale: Tensor | float) -> tuple[Tensor, Tensor]:
    """ID scores and OOD scores of competing-to-win; shapes as of `atd`.

    One class competes with its own "no" text: the top class j, which has the largest p_k, that is the largest "yes"
    cosine. The ID score is its 1 - q_j (Eq. 3) and the OOD score its q_j, so an image is ID if "yes" beats "no" at
    its top class, whatever the scale. With similarities the top class has the largest w_k p_k, the ID score is
    w_j (1 - q_j) and the OOD score q_j / K; then the scale matters. Of equal top classes the first one counts.

    Source: Wang et al., "CLIPN for Zero-Shot OOD Detection" (2023). There a tie of "yes" and "no" is ID; here a tie is
    OOD, as everywhere in this project.
    """
    not_q = torch.sigmoid(scale * (evidence.yes_NK - evidence.no_NK))  # 1 - q_k, Eq. 3
    weights = evidence.weights(scale)
    if weights is None or evidence.similarity_NK is None or evidence.has_prototype_K is None:
        top = evidence.yes_NK.argmax(dim=-1, keepdim=True).expand(*not_q.shape[:-1], 1)
        won = not_q.gather(-1, top).squeeze(-1)
        return won, 1.0 - won  # whatever the rounding, the larger one is on the side of the larger cosine
    # The largest w_k p_k, by its logarithm but for softmax's divisor: p_k and w_k can be 0 at large scales.
    log_weights = _log_visual_weights(evidence.similarity_NK, evidence.has_prototype_K, scale)
    top = (scale * evidence.yes_NK + log_weights).argmax(dim=-1, keepdim=True)
    won = not_q.gather(-1, top).squeeze(-1)
    lost = torch.sigmoid(scale * (evidence.no_NK - evidence.yes_NK)).gather(-1, top).squeeze(-1)  # q_j, as in `atd`
    return weights.gather(-1, top).squeeze(-1) * won, lost / weights.shape[-1]


def mcm(evidence: Evidence, scale: Tensor | float) -> Tensor:
    """ID scores of maximum concept matching, (N,), or (T, N) for `scale` of shape (T, 1, 1), in [0, 1].

    The largest p_k (Eq. 2), or with similarities the largest w_k p_k. There is no "no" text and so no OOD score: the
    scores are compared with a threshold (`strategies.purity.tuning`).

    Source: Ming et al., "Delving into Out-of-Distribution Detection with Vision-Language Representations" (2022).
    """
    probs, weights = torch.softmax(scale * evidence.yes_NK, dim=-1), evidence.weights(scale)  # Eq. 2 and 6
    return (probs if weights is None else probs * weights).amax(dim=-1)


def energy(evidence: Evidence, scale: Tensor | float) -> Tensor:
    """ID scores by the free energy of the "yes" cosines, shapes as of `mcm`: logsumexp_k(scale cos_k) / scale.

    Source: Liu et al., "Energy-based Out-of-distribution Detection" (2020), on cosines.
    """
    scaled = scale * evidence.yes_NK
    return scaled.logsumexp(dim=-1) / (scale.squeeze(-1) if isinstance(scale, Tensor) else scale)


def maxlogit(evidence: Evidence, scale: Tensor | float) -> Tensor:
    """ID scores by the largest "yes" cosine, shapes as of `mcm`; the same at every scale.

    Source: Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings" (2022), on cosines.
    """
    best_N = evidence.yes_NK.amax(dim=-1)
    return best_N.expand(len(scale), -1) if isinstance(scale, Tensor) else best_N


def judged_id(id_scores: Tensor, ood_scores: Tensor) -> Tensor:
    """Decision, bool: ID if the ID score is the larger one; a tie is OOD (Eq. 4 and 7)."""
    return id_scores > ood_scores
