"""NEAT: known by the vote of the nearest labelled images, then the most at odds with them (Mao, Xu and Guo 2024).

Source: Inconsistency-Based Data-Centric Active Open-Set Annotation, AAAI 2024.

Shapes: N unlabelled images, L labelled images, K ID classes, D features, k neighbours, B a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.base import IndexArray, PoolView, Selection, Strategy
from strategies.lfosa import labelled_with_ood
from strategies.numeric.cosines import DIGITS, Floats
from strategies.numeric.nearest import nearest_rows
from strategies.options import NeatOptions
from strategies.uncertainty import log_softmax

Features = Callable[[IndexArray], NDArray[np.float32]]
"""Unit features (n, D) of training images, in the order of their indices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """The nearest labelled images of each unlabelled one."""

    counts_NK: NDArray[np.int64]
    """Number of neighbours of each ID class."""
    num_ood_N: NDArray[np.int64]
    """Number of OOD neighbours."""
    nearness_N: Floats
    """Sum of the cosines of the neighbours."""

    @property
    def num_id_N(self) -> NDArray[np.int64]:
        """Number of ID neighbours."""
        total: NDArray[np.int64] = self.counts_NK.sum(axis=1)
        return total

    @property
    def is_known_N(self) -> NDArray[np.bool_]:
        """Whether ID neighbours outnumber OOD neighbours."""
        known: NDArray[np.bool_] = self.num_ood_N < self.num_id_N
        return known


def vote(
    features_ND: NDArray[np.float32], labelled_LD: NDArray[np.float32], labels_L: IndexArray, num_classes: int, k: int
) -> Vote:
    """The k nearest labelled images of each row, by cosine; equally near ones by the lowest position. All rows are of
    unit length; labels are 0..K-1, and K for OOD; all labelled images are neighbours if there are fewer than k."""
    counts_NC = np.zeros((len(features_ND), num_classes + 1), dtype=np.int64)
    nearness_N, k = np.zeros(len(features_ND)), min(k, len(labels_L))
    if k:
        for part, nearest_Bk, cosines_Bk in nearest_rows(features_ND, labelled_LD, k):
            rows_B = np.arange(part.start, part.stop)
            np.add.at(counts_NC, (rows_B[:, None], labels_L[nearest_Bk]), 1)
            nearness_N[part] = cosines_Bk.sum(axis=1)
    return Vote(counts_NK=counts_NC[:, :-1], num_ood_N=counts_NC[:, -1], nearness_N=nearness_N)


def disagreements(logits_NK: NDArray[np.floating], counts_NK: NDArray[np.int64]) -> Floats:
    """Cross entropy (N,) of the classifier's softmax against the softmax of its neighbours' counts, above 0.

    The counts are logits, not shares, as in the original code.
    """
    probs_NK = np.exp(log_softmax(logits_NK))
    crossed = -(probs_NK * log_softmax(counts_NK.astype(np.float64))).sum(axis=1)
    # Rounded: with equal counts the entropy is ln K whatever p is, but for the last bits of a sum of p.
    rounded: Floats = np.round(crossed, DIGITS)
    return rounded


def most_known_first(votes: Vote, rng: np.random.Generator) -> IndexArray:
    """Positions (number of known images,) of those by the number of their ID neighbours, largest first.

    Equal numbers stand in a drawn order, those equally near to their neighbours by the lowest position.
    """
    # The original's order is that of a shuffled loader. The file order is no substitute: in a folder of images it is
    # the order of the classes, and the first 2 Q of many equal votes are of the first classes. CIFAR-10 as a folder,
    # small CLIPN, 4 ID classes, Q = 500, first query, seeds 0 to 2: ordered by file, NEAT bought no image at all of 1,
    # 2 and 2 of the 4 ID classes, and the passive one none of 2, 3 and 2 (88 % of one class); in a drawn order both
    # bought some of every class (the rarest 0.2 to 2 %, passive 3 to 11 %). A linear head trained on NEAT's query
    # reached 81.9, 82.9 and 86.8 % by the drawn order, 82.2, 77.8 and 85.4 % by the file's.
    _, which_N = np.unique(votes.nearness_N, return_inverse=True)
    drawn_N = rng.permutation(int(which_N.max(initial=0)) + 1)[which_N]
    known = np.flatnonzero(votes.is_known_N)
    order: IndexArray = known[np.lexsort((known, drawn_N[known], -votes.num_id_N[known]))]
    return order


def least_unknown_first(votes: Vote, scores_N: Floats) -> IndexArray:
    """Positions of the images that are not known: by ID minus OOD neighbours, then by score, then the lowest."""
    unknown = np.flatnonzero(~votes.is_known_N)
    lead = votes.num_id_N - votes.num_ood_N
    order: IndexArray = unknown[np.lexsort((unknown, -scores_N[unknown], -lead[unknown]))]
    return order


class Neat(Strategy):
    """Picks, of the images with most ID neighbours, those on which the classifier disagrees with the neighbours.

    Trains nothing: costs one product of the pool's frozen features with those of the labelled images, and one pass of
    the classifier. Departures from the original code: features of the purity step's image tower (there: CLIP's),
    images of equal votes in a drawn order (there: that of a shuffled loader), no cut to 2 Q images while no OOD image
    is labelled (there every image then has as many ID neighbours as any other, and chance decides), and if fewer than
    Q are known the images with the smallest lead of OOD neighbours follow (there the query stays short).
    """

    def __init__(self, features: Features, options: NeatOptions, *, passive: bool = False) -> None:
        """`passive`: rank by the vote alone; the classifier is not asked."""
        self._features, self._options, self._passive = features, options, passive

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return min(budget, N) images; the score is the disagreement (passive: the number of ID neighbours).

        The score of an image that fills up is its number of ID minus that of OOD neighbours, 0 or below.
        """
        labelled, labels_L = labelled_with_ood(view)
        rows = np.asarray(self._features(np.concatenate([labelled, view.unlabelled_idx])))
        votes = vote(
            rows[len(labelled) :], rows[: len(labelled)], labels_L, len(view.class_names), self._options.neighbours
        )
        known = most_known_first(votes, rng)
        if self._passive:
            scores_N = votes.num_id_N.astype(np.float64)
        else:
            scores_N = disagreements(view.outputs().logits_NK, votes.counts_NK)
        candidates = known[: 2 * budget] if len(view.labelled_ood_idx) else known
        if not self._passive:
            candidates = candidates[np.lexsort((candidates, -scores_N[candidates]))]
        fill = least_unknown_first(votes, scores_N)
        picks = np.concatenate([candidates, fill])[:budget]
        return Selection(
            idx=view.unlabelled_idx[picks],
            scores=np.where(votes.is_known_N, scores_N, votes.num_id_N - votes.num_ood_N)[picks],
            judged_id_idx=view.unlabelled_idx[votes.is_known_N],
            diagnostics={
                "num_judged_id": len(known),
                "num_filled": int((~votes.is_known_N[picks]).sum()),
            },
        )
