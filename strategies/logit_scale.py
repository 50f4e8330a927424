"""Self-temperature tuning: the logit scale that best tells labelled ID from labelled OOD images (Eq. 8).

All scales are tried at once on arrays. Shapes: L labelled images, K ID classes, T scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from strategies.purity import id_and_ood_scores, judged_id

SCALES = tuple(tenth / 10 for tenth in range(1, 1001))
"""0.1, 0.2, ..., 100.0, as the official code (P5)."""

MAX_CELLS = 4_000_000
"""Scores held at a time, scales x images x classes: bounds the memory of the search (about 100 MB)."""


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
    criterion: Literal["balanced", "plain"] = "balanced",
    scales: tuple[float, ...] = SCALES,
) -> ScaleChoice | None:
    """The first best of `scales` on the labelled images, or None where either kind of label is absent (P5).

    `is_id_L` says which labelled images are ID; the other arguments are those of `id_and_ood_scores`. "balanced" is
    the mean of the recalls of ID and OOD, "plain" the share of right decisions.
    """
    num_id = int(is_id_L.sum())
    num_ood = len(is_id_L) - num_id
    if not num_id or not num_ood:
        return None
    right_id_T, right_ood_T = _count_right(yes_LK, no_LK, is_id_L, similarity_LK, has_prototype_K, scales)
    if criterion == "balanced":
        # In whole numbers, so that equal accuracies are equal and the first of them wins.
        merit_T, most = right_id_T * num_ood + right_ood_T * num_id, 2 * num_id * num_ood
    else:
        merit_T, most = right_id_T + right_ood_T, num_id + num_ood
    best = int((merit_T == merit_T.max()).nonzero()[0, 0])
    return ScaleChoice(scale=scales[best], accuracy=int(merit_T[best]) / most)


def _count_right(
    yes_LK: Tensor,
    no_LK: Tensor,
    is_id_L: Tensor,
    similarity_LK: Tensor | None,
    has_prototype_K: Tensor | None,
    scales: tuple[float, ...],
) -> tuple[Tensor, Tensor]:
    """How many labelled ID and how many labelled OOD images each scale decides rightly: two (T,) int64 tensors."""
    block = max(1, MAX_CELLS // yes_LK.numel())
    right_id, right_ood = [], []
    for start in range(0, len(scales), block):
        scale_T11 = torch.tensor(scales[start : start + block], dtype=yes_LK.dtype, device=yes_LK.device)[:, None, None]
        id_TL, ood_TL = id_and_ood_scores(
            yes_LK, no_LK, scale_T11, similarity_NK=similarity_LK, has_prototype_K=has_prototype_K
        )
        says_id_TL = judged_id(id_TL, ood_TL)
        right_id.append((says_id_TL & is_id_L).sum(dim=1))
        right_ood.append((~says_id_TL & ~is_id_L).sum(dim=1))
    return torch.cat(right_id), torch.cat(right_ood)
