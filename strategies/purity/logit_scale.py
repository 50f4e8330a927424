"""Self-temperature tuning: the logit scale that best tells labelled ID from labelled OOD images (Eq. 8).

All scales are tried at once on arrays. Shapes: L labelled images, K ID classes, T scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from strategies.purity.scores import id_and_ood_scores, judged_id

Criterion = Literal["balanced", "plain"]
"""What a choice maximises on the labelled images: the mean of the recalls of ID and OOD, or the share decided right."""

SCALES = tuple(tenth / 10 for tenth in range(1, 1001))
"""0.1, 0.2, ..., 100.0, as the official code (P5)."""

MAX_CELLS = 4_000_000
"""Scores held at a time, scales x images x classes: bounds the memory of the search (about 100 MB)."""


class PairScores(Protocol):
    """What gives ID and OOD scores at many scales: `purity.id_and_ood_scores` or `purity.ctw_scores`."""

    def __call__(
        self,
        yes_NK: Tensor,
        no_NK: Tensor,
        scale: Tensor | float,
        *,
        similarity_NK: Tensor | None = None,
        has_prototype_K: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """ID scores and OOD scores, each (N,), or (T, N) for `scale` of shape (T, 1, 1)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleChoice:
    """The chosen logit scale and its criterion's value on the labelled images, in [0, 1]."""

    scale: float
    accuracy: float


def choose_logit_scale(
    yes_LK: Tensor,
    no_LK: Tensor,
    is_id_L: Tensor,
    *,
    similarity_LK: Tensor | None = None,
    has_prototype_K: Tensor | None = None,
    criterion: Criterion = "balanced",
    scales: tuple[float, ...] = SCALES,
    scores: PairScores = id_and_ood_scores,
) -> ScaleChoice | None:
    """The first best of `scales` on the labelled images, or None where either kind of label is absent (P5).

    `is_id_L` says which labelled images are ID, `scores` how they are scored (ATD by default); the other arguments are
    those of `scores`.
    """
    num_id = int(is_id_L.sum())
    num_ood = len(is_id_L) - num_id
    if not num_id or not num_ood:
        return None
    right_id_T, right_ood_T = count_right(
        yes_LK,
        no_LK,
        is_id_L,
        similarity_LK=similarity_LK,
        has_prototype_K=has_prototype_K,
        scales=scales,
        scores=scores,
    )
    merit_T, most = merit(right_id_T, right_ood_T, num_id, num_ood, criterion)
    best = int((merit_T == merit_T.max()).nonzero()[0, 0])
    return ScaleChoice(scale=scales[best], accuracy=int(merit_T[best]) / most)


def merit(right_id: Tensor, right_ood: Tensor, num_id: int, num_ood: int, criterion: Criterion) -> tuple[Tensor, int]:
    """The criterion in whole numbers, so that equal accuracies are equal, and the number that stands for accuracy 1.

    `right_id` and `right_ood` are how many labelled ID and OOD images are decided rightly, int64 of any one shape.
    """
    if criterion == "balanced":
        return right_id * num_ood + right_ood * num_id, 2 * num_id * num_ood
    return right_id + right_ood, num_id + num_ood


def count_right(
    yes_LK: Tensor,
    no_LK: Tensor,
    is_id_L: Tensor,
    *,
    similarity_LK: Tensor | None = None,
    has_prototype_K: Tensor | None = None,
    scales: tuple[float, ...] = SCALES,
    scores: PairScores = id_and_ood_scores,
) -> tuple[Tensor, Tensor]:
    """How many ID and how many OOD images each of `scales` decides rightly: two (T,) int64 tensors.

    The arguments are those of `choose_logit_scale`; the images may be any whose truth `is_id_L` is known.
    """
    block = max(1, MAX_CELLS // yes_LK.numel())
    right_id, right_ood = [], []
    for start in range(0, len(scales), block):
        scale_T11 = torch.tensor(scales[start : start + block], dtype=yes_LK.dtype, device=yes_LK.device)[:, None, None]
        id_TL, ood_TL = scores(yes_LK, no_LK, scale_T11, similarity_NK=similarity_LK, has_prototype_K=has_prototype_K)
        says_id_TL = judged_id(id_TL, ood_TL)
        right_id.append((says_id_TL & is_id_L).sum(dim=1))
        right_ood.append((~says_id_TL & ~is_id_L).sum(dim=1))
    return torch.cat(right_id), torch.cat(right_ood)
