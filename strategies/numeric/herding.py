"""Greedy coverage by a Gaussian kernel, exact and without a matrix of all pairs: the core of UHerding and MaxHerding.

The coverage is submodular: what a point adds never grows as others are picked. So the gain it once had bounds its
gain now (lazy greedy, Minoux 1978), and only the points whose bound is among the largest are computed again.

Shapes: N pool points, M points that cover from the start, D features, B and C blocks, Q picks.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS, COLUMNS = 64, 4096
"""Points whose kernel with others is held at a time: 1 MiB of float32, which stays in the cache of a core."""
TIE = 1e-6
"""Kernel values and (relative) gains that differ by less are equal: float32 rounds at about that."""
SHARP = 0.1
"""Width below which rounding of the squared distances shows in the kernel; rows closer than a `TIE` are then equal."""
NO_SCALE = 1.0
"""Width of the kernel with fewer than two distinct labelled points."""


def nearest_distinct(points_MD: Tensor) -> Tensor:
    """Distance of each unit row to its nearest row that is not the same; rows without one are left out."""
    nearest = [points_MD.new_empty(0)]
    for block_BD in torch.split(points_MD, ROWS) if len(points_MD) else ():
        squared_BM = 2 - 2 * (block_BD @ points_MD.T)
        nearest.append(squared_BM.masked_fill_(squared_BM < TIE, float("inf")).amin(dim=1))
    squared_M = torch.cat(nearest)
    return squared_M[squared_M.isfinite()].sqrt()


def kernel_width(labelled_MD: Tensor) -> float:
    """Width s of the kernel exp(-(|x - y| / s)^2): the 1st percentile of the labelled points' nearest distances.

    `NO_SCALE` with fewer than two distinct points.
    """
    nearest_M = nearest_distinct(labelled_MD)
    return float(nearest_M.double().quantile(0.01)) if len(nearest_M) else NO_SCALE


def _kernel(left_BD: Tensor, right_CD: Tensor, width: float) -> Tensor:
    """Kernel (B, C) of unit rows."""
    gaps_BC = (left_BD @ right_CD.T).sub_(1.0)
    if width < SHARP:
        # A row's product with itself is 1 up to 1e-7; at a width of 0.001 that is a kernel of 0.8 in place of 1.
        gaps_BC.masked_fill_(gaps_BC > -TIE / 2, 0.0)
    return gaps_BC.mul_(2.0 / width**2).clamp_(max=0.0).exp_()


def coverage(points_ND: Tensor, by_MD: Tensor, width: float) -> Tensor:
    """Largest kernel (N,) of each point with one of `by_MD`; 0 without any."""
    covered_N = points_ND.new_zeros(len(points_ND))
    for block_BD in torch.split(by_MD, ROWS) if len(by_MD) else ():
        for start in range(0, len(points_ND), COLUMNS):
            part = slice(start, start + COLUMNS)
            covered_N[part] = torch.maximum(covered_N[part], _kernel(block_BD, points_ND[part], width).amax(dim=0))
    return covered_N


def gains(of_BD: Tensor, points_ND: Tensor, weights_N: Tensor, covered_N: Tensor, width: float) -> Tensor:
    """What each of `of_BD` adds (B,): the weighted sum over the points of max(0, kernel - coverage); float64."""
    added = []
    for block_BD in torch.split(of_BD, ROWS):
        total_B = torch.zeros(len(block_BD), dtype=torch.float64, device=of_BD.device)
        for start in range(0, len(points_ND), COLUMNS):
            part = slice(start, start + COLUMNS)
            # Less than TIE is rounding: a copy of a covered point adds nothing.
            more_BC = _kernel(block_BD, points_ND[part], width).sub_(covered_N[part] + TIE).clamp_(min=0.0)
            total_B += (more_BC @ weights_N[part]).double()
        added.append(total_B)
    return torch.cat(added)


def herd(points_ND: Tensor, weights_N: Tensor, covered_N: Tensor, width: float, count: int) -> tuple[Tensor, Tensor]:
    """Positions (Q,) of the picks in order, and what each added (Q,); Q = min(count, N).

    Each pick adds most to the weighted coverage of the points, `covered_N` being theirs at the start; ties go to the
    lowest position. Rows are of unit length, float32. Memory is a few numbers per point beside the rows.
    """
    covered_N, count = covered_N.clone(), min(count, len(points_ND))
    bound_N = gains(points_ND, points_ND, weights_N, covered_N, width)
    fresh_N = torch.ones(len(points_ND), dtype=torch.bool, device=points_ND.device)
    picks = torch.empty(count, dtype=torch.int64)
    added = torch.empty(count, dtype=torch.float64)
    for number in range(count):
        pick = _best(points_ND, weights_N, covered_N, width, bound_N, fresh_N)
        picks[number], added[number] = pick, bound_N[pick]
        covered_N = torch.maximum(covered_N, _kernel(points_ND[pick : pick + 1], points_ND, width)[0])
        bound_N[pick] = -1.0  # taken: below every gain
        # A gain of 0 stays 0, so the many points of a covered pool are not computed again.
        fresh_N = bound_N <= 0
    return picks, added


def _best(
    points_ND: Tensor, weights_N: Tensor, covered_N: Tensor, width: float, bound_N: Tensor, fresh_N: Tensor
) -> int:
    """Lowest position of the largest gain; brings the bounds that could hold it up to date, in place."""
    while True:
        highest, tops = bound_N.topk(min(ROWS, len(bound_N)))
        reach = float(highest[0]) * (1 - TIE)
        if fresh_N[tops[0]]:
            # All that could tie with the best have to be fresh too, or a tie would not go to the lowest position.
            level = (bound_N >= reach).nonzero()[:, 0]
            stale = level[~fresh_N[level]][:ROWS]
            if not len(stale):
                return int(level[0])
        else:
            stale = tops[~fresh_N[tops]]
        bound_N[stale] = torch.minimum(bound_N[stale], gains(points_ND[stale], points_ND, weights_N, covered_N, width))
        fresh_N[stale] = True
