"""Cosines of rows of features, in blocks, by which several strategies compare images.

Shapes: N images, M labelled images, D features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BLOCK = 4096
"""Images whose cosines are held at a time."""
DIGITS = 12
"""Decimals that cosines are rounded to; products of equal rows differ only behind them."""


def unit_rows(features_ND: NDArray[np.floating]) -> Floats:
    """Rows scaled to unit length, float64; rows of zeros stay zero."""
    features = features_ND.astype(np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit: Floats = features / np.maximum(lengths, np.finfo(np.float64).tiny)
    return unit


def nearest_by_cosine(
    features_ND: NDArray[np.floating], labelled_MD: NDArray[np.floating]
) -> tuple[Floats, NDArray[np.int64]]:
    """Highest cosine (N,) of each image with any of M >= 1 others, and that one's position (N,), lowest of ties."""
    labelled = unit_rows(labelled_MD)
    similarity, nearest = [], []
    for start in range(0, len(features_ND), BLOCK):
        cosines_BM = np.round(unit_rows(features_ND[start : start + BLOCK]) @ labelled.T, DIGITS)
        nearest.append(cosines_BM.argmax(axis=1))
        similarity.append(cosines_BM.max(axis=1))
    return np.concatenate(similarity), np.concatenate(nearest).astype(np.int64)
