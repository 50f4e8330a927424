"""CCAL: images similar to labelled ID images in meaning but not in appearance (Du et al., ICCV 2021).

Shapes: N unlabelled images, M labelled ID images, K ID classes, S rotations, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from strategies.base import IndexArray, PoolView, Selection, Strategy, highest_first
from strategies.numeric.cosines import BLOCK, Floats, nearest_by_cosine, unit_rows
from strategies.options import CcalOptions

Views = Callable[[], NDArray[np.float32]]
NOT_ITS_CLASS = -1.0
ROUNDING = 1e-10


def minmax(values_N: Floats) -> Floats:
    """Values shifted and scaled to [0, 1]; all 0 if they vary by rounding only."""
    low, high = values_N.min(), values_N.max()
    return np.zeros_like(values_N) if high - low < ROUNDING else (values_N - low) / (high - low)


def semantic_scores(similarity_N: Floats, slope: float, threshold: float) -> Floats:
    """Semantic scores tanh(k / 2 (s - t)), in (-1, 1), of the similarity s scaled to [0, 1]."""
    # The original's sigmoid overflows in float32 and then queries the most OOD-like image first; tanh does not.
    squashed: Floats = np.tanh(slope / 2 * (minmax(similarity_N) - threshold))
    return squashed


def distinctive_raw(pool_NSD: NDArray[np.floating], labelled_MSD: NDArray[np.floating]) -> Floats:
    """Visual similarity (N,) to one class's labelled images: mean over rotations of 2 v1 - v2 + cos(a1, a2).

    a1 and a2 are the two most similar ones, v1 >= v2 their cosines. With one labelled image v2 = v1 and the last cosine
    is 1.
    """
    num_rotations = pool_NSD.shape[1]
    total = np.zeros(len(pool_NSD))
    for rotation in range(num_rotations):
        labelled = unit_rows(labelled_MSD[:, rotation])
        between_MM = labelled @ labelled.T
        for start in range(0, len(pool_NSD), BLOCK):
            cosines_BM = unit_rows(pool_NSD[start : start + BLOCK, rotation]) @ labelled.T
            if len(labelled) == 1:
                # One labelled image stands for both: v2 = v1, and its cosine with itself is 1.
                total[start : start + BLOCK] += cosines_BM[:, 0] + 1.0
                continue
            first, second = np.argsort(-cosines_BM, axis=1, kind="stable")[:, :2].T
            rows = np.arange(len(cosines_BM))
            v1, v2 = cosines_BM[rows, first], cosines_BM[rows, second]
            total[start : start + BLOCK] += 2 * v1 - v2 + between_MM[first, second]
    mean: Floats = total / num_rotations
    return mean


def joint_scores(semantic_N: Floats, distinctive_KN: Floats, class_N: IndexArray) -> Floats:
    """Sum of both scores (K, N); -1 for the classes other than that of the image's nearest labelled image."""
    own_KN = np.arange(len(distinctive_KN))[:, None] == class_N
    joint: Floats = np.where(own_KN, semantic_N + distinctive_KN, NOT_ITS_CLASS)
    return joint


class Ccal(Strategy):
    """Picks equally many images for each class: those nearest to it in meaning and least similar to it in appearance.

    Costs cosines of frozen features with the labelled ones, in blocks. Both encoders (SimCLR for meaning, CSI for
    appearance) are trained once per data set. Departures from the original code: the squashing is computed as tanh,
    which does not overflow, a class takes only images of its own and what is then missing is filled up by the
    highest joint score over all classes, and a class with one labelled image has v2 = v1.
    """

    def __init__(self, semantic: Views, distinctive: Views, options: CcalOptions) -> None:
        """`semantic` and `distinctive` give features (all training images, S, D) of the two encoders."""
        self._semantic = semantic
        self._distinctive = distinctive
        self._options = options

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return min(budget, N) images, class by class, then the fill-ups; the score is the joint one of its class."""
        if not len(view.labelled_id_idx):
            raise ValueError("CCAL needs a labelled ID image; raise the budget or lower the OOD ratio")
        semantic, distinctive = self._semantic(), self._distinctive()
        similarity_N, nearest_N = nearest_by_cosine(semantic[view.unlabelled_idx, 0], semantic[view.labelled_id_idx, 0])
        class_N = view.labelled_id_labels[nearest_N]
        semantic_N = semantic_scores(similarity_N, self._options.slope, self._options.threshold)
        pool_NSD, num_classes = distinctive[view.unlabelled_idx], len(view.class_names)
        distinctive_KN = np.zeros((num_classes, len(pool_NSD)))
        for label in np.unique(view.labelled_id_labels):
            labelled_MSD = distinctive[view.labelled_id_idx[view.labelled_id_labels == label]]
            distinctive_KN[label] = 1.0 - minmax(distinctive_raw(pool_NSD, labelled_MSD))
        joint_N = joint_scores(semantic_N, distinctive_KN, class_N)[class_N, np.arange(len(class_N))]
        picks, num_filled = share_out(joint_N, class_N, num_classes, budget)
        return Selection(
            idx=view.unlabelled_idx[picks],
            scores=joint_N[picks],
            diagnostics={"num_filled": num_filled},
        )


def share_out(joint_N: Floats, class_N: IndexArray, num_classes: int, budget: int) -> tuple[IndexArray, int]:
    """Positions (Q,) of each class's budget // K best images, then of the best others; and how many others."""
    share = budget // num_classes
    picks = [np.flatnonzero(class_N == label) for label in range(num_classes)]
    picks = [members[highest_first(joint_N[members], share)] for members in picks]
    taken = np.concatenate(picks)
    rest = np.setdiff1d(np.arange(len(joint_N)), taken)
    fill = rest[highest_first(joint_N[rest], min(budget, len(joint_N)) - len(taken))]
    return np.concatenate([taken, fill]).astype(np.int64), len(fill)
