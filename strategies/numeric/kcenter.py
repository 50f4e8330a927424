"""Greedy k-center: each pick is the point farthest from all centres so far.

Squared distances, with |x|^2 computed once; no matrix of all distances is ever held.

Shapes: N pool points, M centres to start from, D features, Q picks.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 256
"""Centres per matrix product in the computation of the first distances."""
TAKEN = -1.0
"""Value in place of the squared distance of a picked point."""


def nearest_squared(pool_ND: Tensor, centres_MD: Tensor) -> Tensor:
    """Squared Euclidean distance (N,) of each pool point to its nearest centre; infinite without a centre."""
    norms_N = (pool_ND * pool_ND).sum(dim=1)
    nearest_N = torch.full_like(norms_N, float("inf"))
    for start in range(0, len(centres_MD), BLOCK):
        block_BD = centres_MD[start : start + BLOCK]
        norms_B = (block_BD * block_BD).sum(dim=1)
        nearest_N = torch.minimum(nearest_N, torch.addmm(norms_B, pool_ND, block_BD.T, alpha=-2).amin(dim=1))
    return (nearest_N + norms_N).clamp_(min=0)


def kcenter_greedy(labelled_MD: Tensor, pool_ND: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Positions (Q,) of the picks in order, and the squared distance (Q,) of each to its nearest centre when picked.

    Q = min(count, N); ties go to the lowest position, and nothing is picked twice, however equal the points. Without a
    centre the first pick is position 0, at an infinite distance. Nothing is read back from the device on the way.
    """
    count = min(count, len(pool_ND))
    norms_N = (pool_ND * pool_ND).sum(dim=1)
    nearest_N = nearest_squared(pool_ND, labelled_MD)
    picks = torch.empty(count, dtype=torch.int64, device=pool_ND.device)
    distances = torch.empty(count, dtype=pool_ND.dtype, device=pool_ND.device)
    taken = torch.zeros(len(pool_ND), dtype=torch.bool, device=pool_ND.device)
    for number in range(count):
        pick = first_maximum(nearest_N)[None]  # indexed by (1,): a scalar tensor as an index waits for the device
        picks[number : number + 1] = pick
        distances[number : number + 1] = nearest_N.index_select(0, pick)
        taken.index_fill_(0, pick, True)
        centre_D = pool_ND.index_select(0, pick)[0]
        squared_N = norms_N.index_select(0, pick) + norms_N - 2 * (pool_ND @ centre_D)
        # Clamped: in the official code a squared distance that rounds below 0 becomes NaN and is picked first.
        nearest_N = torch.minimum(nearest_N, squared_N.clamp_(min=0)).masked_fill_(taken, TAKEN)
    return picks, distances


def first_maximum(values_N: Tensor) -> Tensor:
    """Position () of the largest value, lowest of ties; a tensor, so that the host does not wait for the device."""
    if values_N.device.type == "cpu":
        return values_N.argmax()  # undocumented, but the first on a CPU (tests/strategies/test_coreset.py)
    # On a GPU argmax may return any of several equal maxima, so the lowest position is sought by hand.
    positions = torch.arange(len(values_N), device=values_N.device)
    return torch.where(values_N == values_N.max(), positions, len(values_N)).min()
