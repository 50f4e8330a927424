"""Hidden classes among labelled OOD images: the number of clusters in which the known classes show best (E2OAL).

Source: Zong et al., CVPR 2026, step A.

Shapes: N labelled images, D features, K ID classes, C clusters, U hidden classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IndexArray = NDArray[np.int64]
Floats = NDArray[np.floating]
MOST_CLUSTERS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenClasses:
    """Hidden classes of the labelled OOD images."""

    labels: IndexArray
    """(O,) 0..U-1 for each labelled OOD image, in order."""
    num_hidden: int
    """U; 0 without OOD images."""
    objective: float
    """The agreement of clusters and labels that was reached, in [0, 1]; 0 without a clustering."""


def agreement(clusters_N: IndexArray, labels_N: IndexArray, num_known: int) -> tuple[float, dict[int, int]]:
    """Agreement of clusters with labels (0..K-1, OOD K) in [0, 1], and the known class -> its cluster.

    Clusters are matched with labels so that as many images as possible agree. The agreement is the geometric mean of
    K + 1 F1 values: of each known class with its cluster, and of OOD with all clusters that no known class has. 0 if
    one of them is 0 or not defined.
    """
    from scipy.optimize import linear_sum_assignment

    num_clusters = int(clusters_N.max()) + 1
    counts_CK1 = np.zeros((num_clusters, num_known + 1), dtype=np.int64)
    np.add.at(counts_CK1, (clusters_N, labels_N), 1)
    rows, columns = linear_sum_assignment(counts_CK1, maximize=True)
    match = {int(label): int(cluster) for cluster, label in zip(rows, columns, strict=True) if label < num_known}
    if len(match) < num_known:
        return 0.0, match
    sizes_C, of_label = counts_CK1.sum(axis=1), counts_CK1.sum(axis=0)
    # F1 = 2 hits / (size of the cluster + size of the class), the harmonic mean of precision and recall.
    scores = [2 * counts_CK1[i, j] / (sizes_C[i] + of_label[j]) for j, i in sorted(match.items()) if of_label[j]]
    is_free_C = ~np.isin(np.arange(num_clusters), list(match.values()))
    outside, ood = sizes_C[is_free_C].sum(), of_label[num_known]
    if len(scores) < num_known or not outside or not ood:
        return 0.0, match
    scores.append(2 * counts_CK1[is_free_C, num_known].sum() / (outside + ood))
    if min(scores) == 0:
        return 0.0, match
    return float(np.exp(np.mean(np.log(scores)))), match


def ternary_search(objective: Callable[[int], float], low: int, high: int) -> int:
    """The number in low..high that a ternary search ends at, with `low` itself as a rival: the first best of the last.

    The objective has more than one peak in practice, so this is a good number and not the best.
    """
    first = low
    while high - low > 2:
        third = (high - low) // 3
        left, right = low + third, high - third
        if objective(left) < objective(right):
            low = left
        else:
            high = right
    # max() keeps the first of equals, so `first` comes after the numbers that the search found.
    best: int = max([*range(low, high + 1), first], key=objective)
    return best


def find_hidden_classes(features_ND: Floats, labels_N: IndexArray, num_known: int, *, seed: int) -> HiddenClasses:
    """Hidden classes of the images labelled K (OOD) among all labelled images, by their unit features.

    k-means with k in K + 1..min(1000, N // 2) clusters, by `ternary_search` for the best `agreement`; each OOD image
    then belongs to the nearest of the clusters that no known class has. One hidden class if there are too few different
    images to cluster. Equal arguments give equal answers.
    """
    from sklearn.cluster import KMeans

    is_ood_N = labels_N == num_known
    num_ood = int(is_ood_N.sum())
    if not num_ood:
        return HiddenClasses(labels=np.empty(0, dtype=np.int64), num_hidden=0, objective=0.0)
    # k-means warns about, and cannot fill, more clusters than different points.
    most = min(MOST_CLUSTERS, len(labels_N) // 2, len(np.unique(features_ND, axis=0)))
    if most < num_known + 1:
        return HiddenClasses(labels=np.zeros(num_ood, dtype=np.int64), num_hidden=1, objective=0.0)
    fits: dict[int, tuple[float, dict[int, int], Floats]] = {}

    def fit(k: int) -> float:
        if k not in fits:
            model = KMeans(n_clusters=k, n_init=1, random_state=seed).fit(features_ND)
            score, match = agreement(model.labels_.astype(np.int64), labels_N, num_known)
            fits[k] = (score, match, model.cluster_centers_)
        return fits[k][0]

    score, match, centres_CD = fits[ternary_search(fit, num_known + 1, most)]
    free_UD = np.delete(centres_CD, list(match.values()), axis=0)
    # The squared distance without the image's own square, which is the same for all centres.
    gaps_OU = (free_UD**2).sum(axis=1) - 2 * features_ND[is_ood_N] @ free_UD.T
    return HiddenClasses(labels=gaps_OU.argmin(axis=1).astype(np.int64), num_hidden=len(free_UD), objective=score)
