"""Nearest rows by cosine, in blocks, with ties to the lowest position: the votes of NEAT and EAOA.

Shapes: B a block of rows, M others, D features, k neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

BLOCK = 256
"""Rows compared with all others at a time; with 1,024 a block leaves the cache, and takes a fifth longer."""
STEPS = 1_000_000
"""Cosines are compared in such parts of 1: products of equal rows differ behind them."""


def nearest_rows(
    rows_ND: NDArray[np.float32], others_MD: NDArray[np.float32], k: int
) -> Iterator[tuple[slice, NDArray[np.int64], NDArray[np.float64]]]:
    """For each block of rows: where it lies, the positions (B, k) of the k <= M nearest others, nearest first, and
    their cosines (B, k) rounded to 1 / `STEPS`; equally near ones by the lowest position. Rows are of unit length."""
    others, positions = torch.from_numpy(others_MD), torch.arange(len(others_MD))
    for start in range(0, len(rows_ND), BLOCK):
        part = slice(start, min(start + BLOCK, len(rows_ND)))
        steps_BM = (torch.from_numpy(rows_ND[part]) @ others.T).mul_(STEPS).round_()
        # One number for cosine and position, because topk takes any of equal ones: exact in float64 up to 2^53.
        key_BM = steps_BM.double().mul_(len(others)).sub_(positions)
        nearest_Bk = key_BM.topk(k, dim=1).indices
        yield part, nearest_Bk.numpy(), steps_BM.gather(1, nearest_Bk).double().numpy() / STEPS
