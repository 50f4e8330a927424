"""FINCH: a hierarchy of clusters from first neighbours alone (Sarfraz, Sharma and Stiefelhagen, CVPR 2019).

Two variants, by the released versions whose results they give: "0.2.3" (the default), which links every point to
its nearest neighbour, and "0.1.9", which the EOAL study pins: it also links points that have the same nearest one, and
from the second level on drops links longer than all of the first level. No matrix of all distances is held for the
points; only merging to an exact number of clusters holds one of clusters.

Shapes: N points, D features, C clusters, L levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from strategies.numeric.cosines import Floats, unit_rows

Labels = NDArray[np.int64]
Version = Literal["0.1.9", "0.2.3"]
BLOCK = 1024
"""Largest number of points whose cosines to all others are held at a time."""
HELD = 2**24
"""Largest number of cosines held at a time: 128 MiB."""


def finch(points_ND: NDArray[np.floating], version: Version = "0.2.3") -> list[Labels]:
    """Cluster numbers (N,) of each level, finest first; a cluster is numbered by its lowest member.

    Nearest is by cosine; among equals the lowest point. Fewer than two points give one level with one cluster.
    """
    points = points_ND.astype(np.float64)
    labels = np.arange(len(points), dtype=np.int64)
    if len(points) < 2:
        return [np.zeros(len(points), dtype=np.int64)]
    levels: list[Labels] = []
    longest = np.inf
    while True:
        centres_CD = cluster_means(points, labels)
        nearest_C, distances_C = first_neighbours(centres_CD)
        keep_C, shared_E2 = np.ones(len(nearest_C), dtype=bool), np.empty((0, 2), dtype=np.int64)
        if version == "0.1.9":
            mutual_C = nearest_C[nearest_C] == np.arange(len(nearest_C))
            lengths_C = distances_C * np.where(mutual_C, 2.0, 1.0)
            if levels:
                keep_C = lengths_C <= longest
                shared_E2 = _shared_links(centres_CD, nearest_C, ~keep_C, longest)
            else:
                longest = max(float(lengths_C.max()), _longest_shared(centres_CD, nearest_C))
        merged = _components(nearest_C, keep_C, shared_E2)[labels]
        before, after = int(labels.max()) + 1, int(merged.max()) + 1
        if levels and (after <= 1 or after >= before):
            return levels
        labels = merged
        levels.append(labels)
        if after <= 1 or (version == "0.1.9" and before - after == 1):
            return levels


def clusters_of_number(points_ND: NDArray[np.floating], num_clusters: int, version: Version = "0.2.3") -> Labels:
    """Cluster numbers (N,) of exactly `num_clusters` clusters, or of the finest level if that has fewer.

    If no level has that many, the coarsest with more is merged, the two most similar means at a time.
    """
    levels = finch(points_ND, version)
    enough = [labels for labels in levels if labels.max() + 1 >= num_clusters]
    if not enough:
        return levels[0]
    return _merge(points_ND.astype(np.float64), enough[-1], num_clusters)


def first_neighbours(points_ND: Floats) -> tuple[Labels, Floats]:
    """Nearest other point (N,) of each point by cosine, and the cosine distance (N,) to it, in [0, 2]."""
    unit_ND = unit_rows(points_ND)
    nearest_N = np.empty(len(points_ND), dtype=np.int64)
    distances_N = np.empty(len(points_ND))
    # With many points a block of 1,024 rows would exceed HELD: the memory is bounded, not the number of rows.
    size = max(1, min(BLOCK, HELD // len(unit_ND)))
    for start in range(0, len(unit_ND), size):
        cosines_BN = unit_ND[start : start + size] @ unit_ND.T
        rows = np.arange(len(cosines_BN))
        cosines_BN[rows, rows + start] = -np.inf
        best = cosines_BN.argmax(axis=1)
        nearest_N[start : start + size] = best
        distances_N[start : start + size] = 1.0 - cosines_BN[rows, best]
    return nearest_N, np.maximum(distances_N, 0.0)


def cluster_means(points_ND: Floats, labels_N: Labels) -> Floats:
    """Mean (C, D) of each cluster's points."""
    num_clusters = int(labels_N.max()) + 1
    member = coo_matrix((np.ones(len(labels_N)), (labels_N, np.arange(len(labels_N)))), (num_clusters, len(labels_N)))
    sums: Floats = np.asarray(member.tocsr() @ points_ND)
    return sums / np.bincount(labels_N)[:, None]


def _sharing(
    points_ND: Floats, nearest_N: Labels, asking_N: NDArray[np.bool_]
) -> Iterator[tuple[Labels, Labels, Floats]]:
    """Points (B,) of `asking_N`, those (M,) that share their nearest point, themselves included, and the cosine
    distances (B, M) between them, in blocks."""
    unit_ND = unit_rows(points_ND)
    order = np.argsort(nearest_N, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(nearest_N[order])) + 1):
        asking = members[asking_N[members]]
        size = max(1, HELD // len(members))
        for start in range(0, len(asking) if len(members) > 1 else 0, size):
            rows = asking[start : start + size]
            yield rows, members, np.maximum(1.0 - unit_ND[rows] @ unit_ND[members].T, 0.0)


def _longest_shared(points_ND: Floats, nearest_N: Labels) -> float:
    """The largest cosine distance of two points with the same nearest point; 0 without any."""
    everyone = np.ones(len(nearest_N), dtype=bool)
    return max((float(distances.max()) for *_, distances in _sharing(points_ND, nearest_N, everyone)), default=0.0)


def _shared_links(points_ND: Floats, nearest_N: Labels, cut_N: NDArray[np.bool_], longest: float) -> Labels:
    """Pairs (E, 2) of points with the same nearest point, at most `longest` apart, of which one is `cut_N` off it.

    Pairs of which none is cut off are linked by their nearest point.
    """
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for rows, members, distances_BM in _sharing(points_ND, nearest_N, cut_N):
        first, second = np.nonzero(distances_BM <= longest)
        pairs.append(np.stack([rows[first], members[second]], axis=1))
    return np.concatenate(pairs)


def _components(nearest_N: Labels, keep_N: NDArray[np.bool_], pairs_E2: Labels) -> Labels:
    """Connected components of the links from each point to its nearest, where kept, and between pairs, numbered by
    their lowest member."""
    num = len(nearest_N)
    start = np.flatnonzero(keep_N)
    starts, ends = np.append(start, pairs_E2[:, 0]), np.append(nearest_N[start], pairs_E2[:, 1])
    links = coo_matrix((np.ones(len(starts)), (starts, ends)), (num, num))
    _, found = connected_components(links, directed=False)
    return _numbered_by_lowest(found)


def _numbered_by_lowest(labels_N: NDArray[np.integer]) -> Labels:
    """Cluster numbers replaced by ranks in the order in which the clusters first appear."""
    _, first, inverse = np.unique(labels_N, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _merge(points_ND: Floats, labels_N: Labels, num_clusters: int) -> Labels:
    """Join the two clusters of most similar means (the first such pair) until `num_clusters` are left."""
    labels = labels_N.copy()
    while labels.max() + 1 > num_clusters:
        unit_CD = unit_rows(cluster_means(points_ND, labels))
        cosines_CC = unit_CD @ unit_CD.T
        cosines_CC[np.tril_indices(len(cosines_CC))] = -np.inf
        first, second = np.unravel_index(cosines_CC.argmax(), cosines_CC.shape)
        labels = _numbered_by_lowest(np.where(labels == second, first, labels))
    return labels
