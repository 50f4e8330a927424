"""Cosines of rows of features, in blocks: what several strategies compare images by.

Shapes: N images, M labelled images, D features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BLOCK = 4096
"""Images whose cosines are held at a time."""
DIGITS = 12
"""Decimals of a cosine that matter; products of equal rows differ behind them."""


def unit_rows(features_ND: NDArray[np.floating]) -> Floats:
    """The rows, each of unit length; rows of zeros stay."""
    features = features_ND.astype(np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit: Floats = features / np.maximum(lengths, np.finfo(np.float64).tiny)
    return unit


def nearest_by_cosine(
    features_ND: NDArray[np.floating], labelled_MD: NDArray[np.floating]
) -> tuple[Floats, NDArray[np.int64]]:
    """Highest cosine of each image with one of M >= 1 others (N,), and with which (N,), the lowest of several."""
    labelled = unit_rows(labelled_MD)
    similarity, nearest = [], []
    for start in range(0, len(features_ND), BLOCK):
        cosines_BM = np.round(unit_rows(features_ND[start : start + BLOCK]) @ labelled.T, DIGITS)
        nearest.append(cosines_BM.argmax(axis=1))
        similarity.append(cosines_BM.max(axis=1))
    return np.concatenate(similarity), np.concatenate(nearest).astype(np.int64)
