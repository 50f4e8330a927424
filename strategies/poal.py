"""POAL: the Pareto fronts of uncertainty and of likeness to the labelled ID images (Zhan et al. 2022).

Source: Pareto Optimization for Active Learning under Out-of-Distribution Data Scenarios, 2022. Written from the paper:
no code of its authors was found.

Shapes: N unlabelled images, L labelled ID images, K ID classes, D features.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.base import IndexArray, PoolView, Selection, Strategy
from strategies.numeric.cosines import Floats
from strategies.purity.features import Labelled, learn_mahalanobis
from strategies.uncertainty import entropies

DECIMALS = 6
"""Both objectives are compared to so many decimals: networks round at about that."""


def pareto_fronts(first_N: Floats, second_N: Floats) -> IndexArray:
    """Number (N,) of the front of each point, 0 for those that no point beats: larger is better in both.

    A point beats another if it is at least as good in both and better in one. N log N: taken by falling `first_N`,
    a point belongs to the first front whose best `second_N` so far is below its own.
    """
    pairs_U2, which_N = np.unique(np.stack([first_N, second_N], axis=1), axis=0, return_inverse=True)
    front_U = np.empty(len(pairs_U2), dtype=np.int64)
    best: list[float] = []  # minus the best second objective of each front: ascending
    for position in range(len(pairs_U2) - 1, -1, -1):
        value = -float(pairs_U2[position, 1])
        front = bisect_right(best, value)
        front_U[position] = front
        best[front : front + 1] = [value]
    fronts: IndexArray = front_U[which_N.ravel()]
    return fronts


def ranks(values_N: Floats) -> Floats:
    """Share (N,) of the other images with a smaller value, in [0, 1); equal values have equal ranks."""
    result: Floats = np.searchsorted(np.sort(values_N), values_N) / max(len(values_N), 1)
    return result


def front_scores(first_N: Floats, second_N: Floats) -> Floats:
    """Scores (N,), larger is better: the mean of both ranks minus the number of the front."""
    # Ranks are below 1, so that they never outweigh a front.
    scores: Floats = (ranks(first_N) + ranks(second_N)) / 2 - pareto_fronts(first_N, second_N)
    return scores


def likeness(
    features_ND: NDArray[np.float32], labelled_LD: NDArray[np.float32], labels_L: IndexArray, num_classes: int
) -> Floats:
    """Minus the smallest squared Mahalanobis distance (N,) to the mean of a class; zeros without a labelled image."""
    learnt = learn_mahalanobis(
        Labelled(features_LD=torch.tensor(labelled_LD), classes_L=torch.tensor(labels_L), num_classes=num_classes)
    )
    if learnt is None:
        return np.zeros(len(features_ND))
    distances: Floats = learnt.score(torch.tensor(features_ND)).numpy().astype(np.float64)
    return distances


class Poal(Strategy):
    """Picks front by front the images that no other beats in both entropy and likeness to labelled ID images.

    Costs one pass of the classifier over the pool and the labelled images, one factorisation of D x D, and a sort.
    Departures from the paper: whole fronts are taken in turn, and the last one by the sum of both ranks (there a subset
    is sought by random changes, which favours the same images without a bound on its time), and the shared covariance
    is shrunk (there it needs more labelled images than features).
    """

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return min(budget, N) images; the score is minus the number of the front, plus the mean rank in it."""
        outputs, labelled = view.outputs(), view.labelled_outputs()
        doubt_N = np.round(entropies(outputs.logits_NK), DECIMALS)
        alike_N = np.round(
            likeness(outputs.features_ND, labelled.features_ND, view.labelled_id_labels, len(view.class_names)),
            DECIMALS,
        )
        scores_N = front_scores(doubt_N, alike_N)
        return view.pick(np.argsort(-scores_N, kind="stable")[:budget].astype(np.int64), scores_N)
