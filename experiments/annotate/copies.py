"""Near-copies among images, by the cosine of their features and a look at their pictures.

Shapes: N images, B of a block, R images that stand for others, D embedding, P projected dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.console import Progress, StepReporter
from data.decoding import FORMATS

NEAR = 0.98
"""Cosine above which two images are near-copies."""
BLOCK, CHUNK = 1024, 8192
SIDE, SAME_PICTURE = 16, 0.85
"""Pixels of the small pictures, and their correlation from which two are the same picture."""
PROJECTED = 64
"""Dimensions in which most pairs are ruled out: of 100,000 images of 512 numbers, a sixth of the products."""


def near_copies(features_ND: NDArray[np.float32], progress: Progress) -> NDArray[np.int64]:
    """For each image the place (N,) of the image that stands for it: itself, or an earlier one above `NEAR`.

    An image joins the earlier one that is most like it among those that stand for themselves. So every copy is a
    near-copy of the image that is asked; joined pair by pair, a burst of photos would drift from one to the next until
    its ends show different things.
    """
    stands_for = np.arange(len(features_ND))
    axes_DP = _axes(features_ND)
    leaders = np.empty(0, dtype=np.int64)
    leaders_RP = np.empty((0, axes_DP.shape[1]), dtype=np.float32)
    reporter = StepReporter("looking for near-copies", len(features_ND), progress)
    for start in range(0, len(features_ND), BLOCK):
        block_BD = features_ND[start : start + BLOCK]
        projected_BP = block_BD @ axes_DP
        best_B, which_B = _most_alike(block_BD, projected_BP, features_ND, leaders, leaders_RP)
        joined_B = best_B > NEAR
        stands_for[start : start + len(block_BD)][joined_B] = leaders[which_B[joined_B]]
        alone = np.flatnonzero(~joined_B)
        own = _leaders_within(block_BD[alone])
        stands_for[start + alone] = start + alone[own]
        new = alone[own == np.arange(len(alone))]
        leaders = np.concatenate([leaders, start + new])
        leaders_RP = np.concatenate([leaders_RP, projected_BP[new]])
        reporter.done(start + len(block_BD))
    return stands_for


def confirmed(folder: Path, names: Sequence[str], stands_for_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """`near_copies` without the pairs whose pictures differ when they are made small and grey.

    A weak image tower puts different images of one class close together: of 2,000 CIFAR-10 photos the features of a
    small CLIPN called 852 near-copies. Pictures that cannot be opened are not compared.
    """
    copies = np.flatnonzero(stands_for_N != np.arange(len(stands_for_N)))
    places = sorted({*copies.tolist(), *stands_for_N[copies].tolist()})
    with ThreadPoolExecutor() as threads:  # Pillow decodes outside Python's lock
        small = dict(zip(places, threads.map(lambda place: _small(folder / names[place]), places), strict=True))
    result = stands_for_N.copy()
    for copy in copies.tolist():
        one, other = small[copy], small[int(stands_for_N[copy])]
        if one is not None and other is not None and float(one @ other) < SAME_PICTURE:
            result[copy] = copy
    return result


def _small(path: Path) -> NDArray[np.float64] | None:
    """The picture as a unit vector of grey levels around their mean; None if it cannot be opened."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.draft("L", (4 * SIDE, 4 * SIDE))
            levels = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    centred = (levels - levels.mean()).ravel()
    unit: NDArray[np.float64] = centred / max(float(np.linalg.norm(centred)), 1e-9)
    return unit


def _axes(features_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Orthonormal directions (D, P) along which the images differ most."""
    num_dims = features_ND.shape[1]
    if num_dims <= PROJECTED:
        return np.eye(num_dims, dtype=np.float32)
    sample = features_ND[:: max(1, len(features_ND) // 5000)].astype(np.float64)
    _, axes_DD = np.linalg.eigh(np.cov(sample, rowvar=False)) if len(sample) > 1 else (None, np.eye(num_dims))
    return np.ascontiguousarray(axes_DD[:, -PROJECTED:], dtype=np.float32)


def _most_alike(
    block_BD: NDArray[np.float32],
    projected_BP: NDArray[np.float32],
    features_ND: NDArray[np.float32],
    leaders: NDArray[np.int64],
    leaders_RP: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Largest cosine (B,) with a leader and which (B,), exact where it is above `NEAR`."""
    best_B = np.full(len(block_BD), -1.0, dtype=np.float32)
    which_B = np.zeros(len(block_BD), dtype=np.int64)
    norms_B = (projected_BP**2).sum(axis=1)
    # |x - y|^2 as one product, for one pass over it: x is (2 x, -1) and y is (y, |y|^2), and |x|^2 is left out.
    block_BE = np.hstack([2 * projected_BP, np.full((len(block_BD), 1), -1, dtype=np.float32)])
    for start in range(0, len(leaders), CHUNK):
        chunk_CP = leaders_RP[start : start + CHUNK]
        chunk_CE = np.hstack([chunk_CP, (chunk_CP**2).sum(axis=1, keepdims=True)])
        # A projection shortens distances: what is far here is farther there, where |x - y|^2 = 2 - 2 cosine.
        nearest_B = norms_B - (block_BE @ chunk_CE.T).max(axis=1)
        rows = np.flatnonzero(nearest_B < 2 - 2 * NEAR + 1e-4)
        if not len(rows):
            continue
        cosines_MC = block_BD[rows] @ features_ND[leaders[start : start + CHUNK]].T
        places_M = cosines_MC.argmax(axis=1)
        values_M = cosines_MC[np.arange(len(rows)), places_M]
        better = values_M > best_B[rows]
        best_B[rows[better]], which_B[rows[better]] = values_M[better], start + places_M[better]
    return best_B, which_B


def _leaders_within(rows_MD: NDArray[np.float32]) -> NDArray[np.int64]:
    """For each row (M,) of a block the place of the row of the block that stands for it."""
    stands_for = np.arange(len(rows_MD))
    cosines_MM = rows_MD @ rows_MD.T
    alike_MM = np.tril(cosines_MM > NEAR, k=-1)
    for row in np.flatnonzero(alike_MM.any(axis=1)):
        earlier = np.flatnonzero(alike_MM[row] & (stands_for == np.arange(len(rows_MD))))
        if len(earlier):
            stands_for[row] = earlier[cosines_MM[row, earlier].argmax()]
    return stands_for
