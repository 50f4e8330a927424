"""What a detector learns on the labelled images: the logit scale (Eq. 8), a threshold, or both together.

All scales and all thresholds are tried at once on arrays. Shapes: L labelled images, K ID classes, T scales,
C cuts (L + 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from strategies.purity.scores import Evidence, atd, judged_id, mcm

Criterion = Literal["balanced", "plain"]
"""What a choice maximises on the labelled images: the mean of the recalls of ID and OOD, or the share decided right."""

PairScores = Callable[[Evidence, Tensor | float], tuple[Tensor, Tensor]]
"""ID and OOD scores at many scales: `scores.atd` or `scores.ctw`."""

IdScores = Callable[[Evidence, Tensor | float], Tensor]
"""ID scores at many scales, for a detector with a threshold: `scores.mcm`, `scores.energy`, `scores.maxlogit`."""

SCALES = tuple(tenth / 10 for tenth in range(1, 1001))
"""0.1, 0.2, ..., 100.0, as the official code."""

MAX_CELLS = 4_000_000
"""Scores held at a time, scales x images x classes: bounds the memory of the search (about 100 MB)."""

KEPT_ID = 20
"""Without labelled OOD images at most one of so many labelled ID images falls below the threshold (95 % are kept, as
Ming et al. set it)."""
_RANKED_ARRAYS = 6
"""Arrays of one cell per scale and image that the search for a threshold holds in addition to the scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Scale and threshold learnt on the labelled images."""

    scale: float
    threshold: float | None = None
    """An image is ID if its score is above it. Exactly a float32. None: the detector has an OOD score."""
    accuracy: float
    """The criterion's value on the labelled images, in [0, 1]."""
    num_tied: int = 1
    """Scales tried that are as good as this one, itself included."""


def choose_scale(
    labelled: Evidence,
    is_id_L: Tensor,
    *,
    criterion: Criterion = "balanced",
    scales: tuple[float, ...] = SCALES,
    scores: PairScores = atd,
) -> Choice | None:
    """The first best of `scales` on the labelled images, or None if either kind of label is absent.

    `is_id_L` says which labelled images are ID, `scores` how they are scored.
    """
    num_id = int(is_id_L.sum())
    num_ood = len(is_id_L) - num_id
    if not num_id or not num_ood:
        return None
    right_id_T, right_ood_T = count_right(labelled, is_id_L, scales=scales, scores=scores)
    count_T, most = objective_count(right_id_T, right_ood_T, num_id, num_ood, criterion)
    best = int((count_T == count_T.max()).nonzero()[0, 0])
    tied = int((count_T == count_T.max()).sum())
    return Choice(scale=scales[best], accuracy=int(count_T[best]) / most, num_tied=tied)


def objective_count(
    right_id: Tensor, right_ood: Tensor, num_id: int, num_ood: int, criterion: Criterion
) -> tuple[Tensor, int]:
    """Criterion in whole numbers, so that equal accuracies are equal, and the number that stands for accuracy 1.

    `right_id` and `right_ood` are how many labelled ID and OOD images are decided rightly, int64 of any one shape.
    """
    if criterion == "balanced":
        return right_id * num_ood + right_ood * num_id, 2 * num_id * num_ood
    return right_id + right_ood, num_id + num_ood


def count_right(
    images: Evidence, is_id_N: Tensor, *, scales: tuple[float, ...] = SCALES, scores: PairScores = atd
) -> tuple[Tensor, Tensor]:
    """Numbers of ID and of OOD images that each of `scales` decides correctly: two (T,) int64 tensors.

    The images may be any whose truth `is_id_N` is known.
    """
    right_id, right_ood = [], []
    for scale_T11 in _blocks(images.yes_NK, scales, cells=images.yes_NK.numel()):
        says_id_TN = judged_id(*scores(images, scale_T11))
        right_id.append((says_id_TN & is_id_N).sum(dim=1))
        right_ood.append((~says_id_TN & ~is_id_N).sum(dim=1))
    return torch.cat(right_id), torch.cat(right_ood)


def balanced_accuracies(images: Evidence, is_id_N: Tensor, scales: tuple[float, ...]) -> Tensor:
    """Mean of the recalls of ID and OOD that ATD reaches at each scale, (T,) float64; both kinds are there."""
    num_id = int(is_id_N.sum())
    right_id_T, right_ood_T = count_right(images, is_id_N, scales=scales)
    count_T, most = objective_count(right_id_T, right_ood_T, num_id, len(is_id_N) - num_id, "balanced")
    return count_T.double() / most


def choose_scale_and_threshold(
    labelled: Evidence,
    is_id_L: Tensor,
    *,
    criterion: Criterion = "balanced",
    scales: tuple[float, ...] = SCALES,
    scores: IdScores = mcm,
) -> Choice | None:
    """The first best pair of scale and threshold on the labelled images, or None if either kind is absent.

    At each scale the thresholds tried are one between every two neighbouring distinct scores of labelled images
    (halfway), one below the lowest score (all are ID) and one above the highest (all are OOD): together they make
    every decision that any threshold can make. For MCM the outer two lie halfway to 0 and 1, the bounds of its scores.
    Of equally good pairs the one with the lowest scale, and at that scale with the lowest threshold, is taken.
    `is_id_L` says which labelled images are ID.
    """
    best: Choice | None = None
    start = 0
    for scale_T11 in _blocks(labelled.yes_NK, scales, cells=labelled.yes_NK.numel() + _RANKED_ARRAYS * len(is_id_L)):
        scores_TL = scores(labelled, scale_T11)
        found = _best_cut(scores_TL, is_id_L, criterion, within_01=scores is mcm)
        if found is None:
            return None
        scale, threshold, accuracy = found
        if best is None or accuracy > best.accuracy:
            best = Choice(scale=scales[start + scale], threshold=threshold, accuracy=accuracy)
        start += len(scale_T11)
    return best


def choose_threshold(scores_L: Tensor, is_id_L: Tensor, *, criterion: Criterion = "balanced") -> Choice | None:
    """The first best threshold for scores of any size; scale 1. None if either kind is absent."""
    found = _best_cut(scores_L[None], is_id_L, criterion, within_01=False)
    return None if found is None else Choice(scale=1.0, threshold=found[1], accuracy=found[2])


def _best_cut(
    scores_TL: Tensor, is_id_L: Tensor, criterion: Criterion, *, within_01: bool
) -> tuple[int, float, float] | None:
    """(row of the scale, threshold, accuracy) of the first best cut; None if either kind is absent."""
    num_id = int(is_id_L.sum())
    num_ood = len(is_id_L) - num_id
    if not num_id or not num_ood:
        return None
    lower_TC, upper_TC, right_id_TC, right_ood_TC = _cuts(scores_TL, is_id_L, within_01=within_01)
    count_TC, most = objective_count(right_id_TC, right_ood_TC, num_id, num_ood, criterion)
    is_cut_TC = lower_TC < upper_TC  # no threshold lies between equal scores ...
    is_cut_TC[:, -1] = True  # ... but one of 1 lies above them all, as it is never exceeded
    count_TC = count_TC.where(is_cut_TC, -1)
    reached = int(count_TC.max())
    scale, cut = (count_TC == reached).nonzero()[0].tolist()
    return scale, _between(lower_TC[scale, cut], upper_TC[scale, cut]), reached / most


def threshold_from_id(id_scores_L: Tensor, *, lowest: float = 0.0) -> float:
    """The threshold if no OOD image is labelled: just below the score that 95 % of the labelled ID images reach.

    That is the largest float32 below the (floor(L / 20) + 1)-th lowest of the scores (L,), so at least 95 % of these
    images are ID, and all of them if there are fewer than 20. Without any labelled image it is `lowest`, below every
    score: every image is ID.
    """
    if not len(id_scores_L):
        return lowest
    reached = id_scores_L.sort().values[len(id_scores_L) // KEPT_ID]
    return float(torch.nextafter(reached, torch.full_like(reached, lowest)))


def _blocks(like: Tensor, scales: tuple[float, ...], *, cells: int) -> list[Tensor]:
    """The scales in blocks (T, 1, 1), each few enough that `cells` per scale stay below MAX_CELLS."""
    block = max(1, MAX_CELLS // max(1, cells))
    return [
        torch.tensor(scales[start : start + block], dtype=like.dtype, device=like.device)[:, None, None]
        for start in range(0, len(scales), block)
    ]


def _cuts(scores_TL: Tensor, is_id_L: Tensor, *, within_01: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each scale and number 0..L of lowest scores called OOD: scores next to the cut, and how many are right.

    Four tensors (T, L + 1): the score below the cut, the score above it, and how many labelled ID and how many labelled
    OOD images are decided rightly (int64).
    """
    sorted_TL, order_TL = scores_TL.sort(dim=1)
    zero_T1 = scores_TL.new_zeros(len(scores_TL), 1)
    lowest_T1 = zero_T1 if within_01 else sorted_TL[:, :1] - 1
    highest_T1 = zero_T1 + 1 if within_01 else sorted_TL[:, -1:] + 1
    lower_TC = torch.cat([lowest_T1, sorted_TL], dim=1)
    upper_TC = torch.cat([sorted_TL, highest_T1], dim=1)
    id_below_TC = torch.cat([zero_T1.long(), is_id_L[order_TL].cumsum(dim=1)], dim=1)
    num_below_C = torch.arange(lower_TC.shape[1], device=lower_TC.device)
    return lower_TC, upper_TC, is_id_L.sum() - id_below_TC, num_below_C - id_below_TC


def _between(lower: Tensor, upper: Tensor) -> float:
    """Halfway between two scores, or the lower one if rounding would give the upper; at or above `lower`."""
    middle = (lower + upper) / 2
    return float(middle if middle < upper else lower)
