"""MCM's threshold, learnt on the labelled images, together with the logit scale or for a given one.

All scales and all thresholds are tried at once on arrays. Shapes: L labelled images, K ID classes, T scales,
C cuts (L + 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from strategies.purity import logit_scale
from strategies.purity.logit_scale import SCALES, Criterion, merit
from strategies.purity.scores import mcm_scores

KEPT_ID = 20
"""Without labelled OOD images at most one of so many labelled ID images falls below the threshold (95 % are kept, as
Ming et al. set it)."""
_RANKED_ARRAYS = 6
"""Arrays of one cell a scale and image that the search holds beside the scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdChoice:
    """The chosen logit scale and threshold, and the criterion's value on the labelled images, in [0, 1]."""

    scale: float
    threshold: float
    """In [0, 1]; an image is ID where its score is above it. Exactly a float32."""
    accuracy: float


def choose_scale_and_threshold(
    yes_LK: Tensor,
    is_id_L: Tensor,
    *,
    similarity_LK: Tensor | None = None,
    has_prototype_K: Tensor | None = None,
    criterion: Criterion = "balanced",
    scales: tuple[float, ...] = SCALES,
) -> ThresholdChoice | None:
    """The first best pair of scale and threshold on the labelled images, or None where either kind of label is absent.

    At each scale the thresholds tried are one between every two neighbouring distinct scores of labelled images
    (halfway), one halfway from 0 to the lowest score (all are ID) and one halfway from the highest score to 1 (all are
    OOD): together they make every decision that any threshold can make. Of equally good pairs the one with the lowest
    scale, and at that scale with the lowest threshold, is taken. `is_id_L` says which labelled images are ID; the other
    arguments are those of `mcm_scores`.
    """
    num_id = int(is_id_L.sum())
    num_ood = len(is_id_L) - num_id
    if not num_id or not num_ood:
        return None
    block = max(1, logit_scale.MAX_CELLS // (yes_LK.numel() + _RANKED_ARRAYS * len(yes_LK)))
    best: ThresholdChoice | None = None
    best_merit = -1
    for start in range(0, len(scales), block):
        scale_T11 = torch.tensor(scales[start : start + block], dtype=yes_LK.dtype, device=yes_LK.device)[:, None, None]
        scores_TL = mcm_scores(yes_LK, scale_T11, similarity_NK=similarity_LK, has_prototype_K=has_prototype_K)
        lower_TC, upper_TC, right_id_TC, right_ood_TC = _cuts(scores_TL, is_id_L)
        merit_TC, most = merit(right_id_TC, right_ood_TC, num_id, num_ood, criterion)
        is_cut_TC = lower_TC < upper_TC  # no threshold lies between equal scores ...
        is_cut_TC[:, -1] = True  # ... but one of 1 lies above them all, as it is never exceeded
        merit_TC = merit_TC.where(is_cut_TC, -1)
        reached = int(merit_TC.max())
        if reached > best_merit:
            scale, cut = (merit_TC == reached).nonzero()[0].tolist()
            best_merit = reached
            best = ThresholdChoice(
                scale=scales[start + scale],
                threshold=_between(lower_TC[scale, cut], upper_TC[scale, cut]),
                accuracy=reached / most,
            )
    return best


def threshold_from_id(id_scores_L: Tensor) -> float:
    """The threshold where no OOD image is labelled: just below the score that 95 % of the labelled ID images reach.

    That is the largest float32 below the (floor(L / 20) + 1)-th lowest of the scores (L,), so at least 95 % of these
    images are ID, and all of them if there are fewer than 20. Without any labelled image it is 0: every image is ID.
    """
    if not len(id_scores_L):
        return 0.0
    reached = id_scores_L.sort().values[len(id_scores_L) // KEPT_ID]
    return float(torch.nextafter(reached, torch.zeros_like(reached)))


def _cuts(scores_TL: Tensor, is_id_L: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each scale and number 0..L of lowest scores called OOD: scores next to the cut, and how many are right.

    Four tensors (T, L + 1): the score below the cut, the score above it, and how many labelled ID and how many labelled
    OOD images are decided rightly (int64).
    """
    sorted_TL, order_TL = scores_TL.sort(dim=1)
    zero_T1 = scores_TL.new_zeros(len(scores_TL), 1)
    lower_TC = torch.cat([zero_T1, sorted_TL], dim=1)
    upper_TC = torch.cat([sorted_TL, zero_T1 + 1], dim=1)
    id_below_TC = torch.cat([zero_T1.long(), is_id_L[order_TL].cumsum(dim=1)], dim=1)
    num_below_C = torch.arange(lower_TC.shape[1], device=lower_TC.device)
    return lower_TC, upper_TC, is_id_L.sum() - id_below_TC, num_below_C - id_below_TC


def _between(lower: Tensor, upper: Tensor) -> float:
    """Halfway between two scores, or the lower one where rounding would give the upper; at or above `lower`."""
    middle = (lower + upper) / 2
    return float(middle if middle < upper else lower)
