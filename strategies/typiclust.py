"""TypiClust: the most typical image of each cluster, clusters without labels first (Hacohen, Dekel and Weinshall 2022).

Source: Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets, ICML 2022.

Shapes: N points (labelled and unlabelled), D features, B a block, Q picks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from strategies.base import IndexArray, PoolView, Selection, Strategy
from strategies.numeric.cosines import DIGITS, Floats

MAX_CLUSTERS = 500
SMALL = 5
"""Clusters of at most so many points hold outliers; they are used only when all others are exhausted."""
NEIGHBOURS = 20
"""Nearest members of the own cluster, by whose mean distance typicality is measured."""
CLOSEST = 1e-5
"""Floor of a mean distance, so that the typicality of equal points is finite."""
BLOCK = 1024
"""Members of a cluster whose distances to all members are held at a time."""

Features = Callable[[IndexArray], NDArray[np.float32]]
"""Features (n, D) of training images, in the order of their indices."""


def typicalities(points_ND: NDArray[np.floating], clusters_N: IndexArray) -> Floats:
    """One over the mean distance (N,) of each unit row to its nearest neighbours in its cluster, at most 1e5.

    A point alone in its cluster has no neighbour: its typicality is 0.
    """
    typicality_N = np.zeros(len(points_ND))
    order = np.argsort(clusters_N, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(clusters_N[order])) + 1):
        num_neighbours = min(NEIGHBOURS, len(members) - 1)
        if num_neighbours < 1:
            continue
        rows_MD = points_ND[members].astype(np.float64)
        for start in range(0, len(members), BLOCK):
            # Rounded, so that equal rows, whose products differ in the last bits, tie.
            cosines_BM = np.round(rows_MD[start : start + BLOCK] @ rows_MD.T, DIGITS)
            squared_BM = np.maximum(2.0 - 2.0 * cosines_BM, 0.0)
            own = np.arange(len(squared_BM))
            squared_BM[own, start + own] = np.inf  # a point is not its own neighbour
            nearest_BQ = np.sqrt(np.partition(squared_BM, num_neighbours - 1, axis=1)[:, :num_neighbours])
            typicality_N[members[start : start + BLOCK]] = 1.0 / np.maximum(nearest_BQ.mean(axis=1), CLOSEST)
    return typicality_N


def round_the_clusters(
    clusters_N: IndexArray, typicality_N: Floats, is_labelled_N: NDArray[np.bool_], count: int
) -> IndexArray:
    """Positions (Q,) of unlabelled points, Q = min(count, unlabelled), in the order taken.

    The clusters take turns, those with fewest labelled points first, then the largest; each gives its most typical
    point left. Clusters of at most `SMALL` points follow when the others are exhausted, in the same way. Ties go to
    the lowest position, among clusters to the one whose first point is lowest.
    """
    _, first_C, cluster_N = np.unique(clusters_N, return_index=True, return_inverse=True)
    size_C = np.bincount(cluster_N)
    labelled_C = np.bincount(cluster_N[is_labelled_N], minlength=len(size_C))
    turn_C = np.empty(len(size_C), dtype=np.int64)
    turn_C[np.lexsort((first_C, -size_C, labelled_C))] = np.arange(len(size_C))
    free = np.flatnonzero(~is_labelled_N)
    free = free[np.lexsort((free, -typicality_N[free], cluster_N[free]))]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(cluster_N[free])) + 1])
    rank = np.arange(len(free)) - np.repeat(starts, np.diff([*starts, len(free)]))
    order = np.lexsort((turn_C[cluster_N[free]], rank, size_C[cluster_N[free]] <= SMALL))
    return free[order][:count].astype(np.int64)


def typical_points(
    points_ND: NDArray[np.floating], num_labelled: int, count: int, rng: np.random.Generator
) -> tuple[IndexArray, Floats]:
    """Positions (Q,) of the picks in order, and their typicality (Q,); Q = min(count, N - num_labelled).

    `points_ND` are rows of unit length, the labelled ones first; there need not be any. k-means of all of them gives
    a cluster for each label, bought or to be bought, up to `MAX_CLUSTERS`.
    """
    num = len(points_ND)
    count = min(count, num - num_labelled)
    if count < 1:
        return np.empty(0, dtype=np.int64), np.empty(0)
    clusters_N = _k_means(points_ND, min(num_labelled + count, MAX_CLUSTERS), rng)
    typicality_N = typicalities(points_ND, clusters_N)
    picks = round_the_clusters(clusters_N, typicality_N, np.arange(num) < num_labelled, count)
    return picks, typicality_N[picks]


def _k_means(points_ND: NDArray[np.floating], num_clusters: int, rng: np.random.Generator) -> IndexArray:
    """Cluster numbers (N,) of k-means from the best of three starts; fewer if fewer points are distinct."""
    from sklearn.cluster import MiniBatchKMeans  # a second of imports, which planning does without

    # Equal points count once: between equal centres rounding would decide, and equal images would not tie.
    distinct_UD, which_N = np.unique(points_ND, axis=0, return_inverse=True)
    clustering = MiniBatchKMeans(
        n_clusters=min(num_clusters, len(distinct_UD)),
        batch_size=4096,
        n_init=3,
        random_state=int(rng.integers(2**31)),
    )
    clusters_U: IndexArray = clustering.fit_predict(distinct_UD).astype(np.int64)
    clusters_N: IndexArray = clusters_U[which_N.ravel()]
    return clusters_N


class TypiClust(Strategy):
    """Picks the image in the densest place of each cluster, from the clusters with fewest labels.

    Works without any label, so that a first set can be chosen for a folder of photos. Costs a k-means of all images
    (L + Q clusters, 500 at most) and the distances within clusters. Departures from the original code: features of
    the purity step's frozen image tower (there: SimCLR's, trained for each data set), k-means in small batches for any
    number of clusters, typicality is one over the mean distance, as in the paper (there: over the mean of the squared
    distances, which is what its index returns), and is computed once for each cluster with its labelled images (there:
    anew at each visit, without them, and with half of the members if these are fewer than 40), labelled OOD images
    count as labels of their cluster, and clusters of at most five images, which are left out there, follow when the
    others are exhausted, so that the budget is spent.
    """

    def __init__(self, features: Features) -> None:
        """Keep the function that returns frozen features; it is called once per query."""
        self._features = features

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return min(budget, N) images in the order picked; the score is the typicality."""
        labelled = np.concatenate([view.labelled_id_idx, view.labelled_ood_idx])
        rows = np.concatenate([labelled, view.unlabelled_idx])
        picks, typicality_Q = typical_points(self._features(rows), len(labelled), budget, rng)
        return Selection(idx=rows[picks].astype(np.int64), scores=typicality_Q)
