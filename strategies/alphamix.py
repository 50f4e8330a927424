"""AlphaMix: images whose prediction flips when labelled features are mixed into theirs (Parvaneh et al., CVPR 2022).

Shapes: N unlabelled images, K ID classes, D features, A anchors, C candidates.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from models.classifier.outputs import LinearHead
from strategies.base import IndexArray, PoolView, Selection, Strategy, highest_first
from strategies.options import AlphaMixOptions
from strategies.uncertainty import least_confidence

TINY = np.finfo(np.float64).tiny


class AlphaMix(Strategy):
    """Picks from the images whose prediction flips by mixing the ones nearest to k-means centres, a cluster per label.

    Costs one pass of the classifier over pool and labelled images, three products with the last layer, distances to K
    anchors, and a k-means of the candidates. Departures from the original code: if there are too few candidates, the
    least confident images fill up (there: random ones), so that nothing depends on chance but the clustering's start;
    gradients keep their direction when the softmax rounds to 1 (there they vanish).
    """

    def __init__(self, options: AlphaMixOptions) -> None:
        self._options = options

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return min(budget, N) images; the score is the confidence lost (1 - max softmax)."""
        outputs = view.outputs()
        wanted = min(budget, len(view.unlabelled_idx))
        unsure_N = least_confidence(outputs.logits_NK)
        anchors_AD = _anchors(view, outputs.features_ND.shape[1])
        assert outputs.head is not None, "AlphaMix needs a classifier with a single last layer"
        predicted_N = outputs.logits_NK.argmax(axis=1).astype(np.int64)
        mixing_N = mixing_to_flip(outputs.features_ND.astype(np.float64), predicted_N, anchors_AD, outputs.head)
        mixing = least_step(mixing_N, wanted, self._options.step)
        candidates = np.flatnonzero(mixing_N < mixing)
        picks = candidates
        if len(candidates) > wanted:
            picks = candidates[nearest_to_centres(outputs.features_ND[candidates], wanted, rng)]
        rest = np.setdiff1d(np.arange(len(unsure_N)), picks)
        # Too few candidates: the original fills up at random, which would make the picks depend on chance.
        fill = rest[highest_first(unsure_N[rest], wanted - len(picks))]
        picks = np.concatenate([picks, fill])
        return Selection(
            idx=view.unlabelled_idx[picks],
            scores=unsure_N[picks],
            diagnostics={"num_candidates": len(candidates), "num_filled": len(fill), "mixing": mixing},
        )


def mixing_to_flip(
    features_ND: NDArray[np.float64], predicted_N: IndexArray, anchors_AD: NDArray[np.float64], head: LinearHead
) -> NDArray[np.float64]:
    """Smallest mixing (N,) above which some anchor changes the prediction; infinite if none ever does.

    At mixing m features move by m |anchor - features| / sqrt(D) along the loss's gradient. That is the mixing with an
    anchor that raises the loss most, to first order and for a bounded ratio (the paper's closed form); the loss is the
    cross entropy of the predicted class. Along a straight line the logits are linear, so the point at which the first
    class overtakes the predicted one needs no search, and the farthest anchor reaches it first.
    """
    weight_KD = head.weight_KD.astype(np.float64)
    logits_NK = features_ND @ weight_KD.T + head.bias_K
    own_N1 = predicted_N[:, None]
    # With one class there is no other to flip to.
    if len(weight_KD) == 1:
        return np.full(len(features_ND), np.inf)
    others_NK = logits_NK.copy()
    np.put_along_axis(others_NK, own_N1, -np.inf, axis=1)
    # Softmax minus one-hot, times what makes its largest entry 1: the direction outlasts a softmax that rounds to 1.
    excess_NK = np.exp(others_NK - others_NK.max(axis=1, keepdims=True))
    np.put_along_axis(excess_NK, own_N1, -excess_NK.sum(axis=1, keepdims=True), axis=1)
    gradient_ND = excess_NK @ weight_KD
    slope_NK = gradient_ND @ weight_KD.T / np.maximum(np.linalg.norm(gradient_ND, axis=1, keepdims=True), TINY)
    gap_NK = np.take_along_axis(logits_NK, own_N1, axis=1) - logits_NK
    rise_NK = slope_NK - np.take_along_axis(slope_NK, own_N1, axis=1)
    length_N = np.where(rise_NK > 0, gap_NK / np.where(rise_NK > 0, rise_NK, 1.0), np.inf).min(axis=1)
    reach_N = np.zeros(len(features_ND))
    for anchor_D in anchors_AD:
        np.maximum(reach_N, np.linalg.norm(anchor_D - features_ND, axis=1), out=reach_N)
    mixing_N = np.full(len(features_ND), np.inf)
    np.divide(length_N * np.sqrt(features_ND.shape[1]), reach_N, out=mixing_N, where=reach_N > 0)
    return mixing_N


def least_step(mixing_N: NDArray[np.float64], wanted: int, step: float) -> float:
    """The least multiple of `step`, at most 1, above the mixing of at least `wanted` images; 1 if there is none."""
    needed = float(np.sort(mixing_N)[wanted - 1])
    return min(1.0, (np.floor(needed / step) + 1) * step) if needed < 1 else 1.0


def nearest_to_centres(features_CD: NDArray[np.floating], count: int, rng: np.random.Generator) -> IndexArray:
    """Positions of the members nearest to the centres of `count` k-means clusters, one per cluster, all distinct.

    Features are scaled to unit length first. There are fewer positions if points coincide.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    unit_CD = features_CD / np.maximum(np.linalg.norm(features_CD, axis=1, keepdims=True), TINY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal points; the caller fills up
        clusters = KMeans(n_clusters=count, n_init=1, random_state=int(rng.integers(2**31))).fit(unit_CD)
    distances_C = np.linalg.norm(unit_CD - clusters.cluster_centers_[clusters.labels_], axis=1)
    order = np.lexsort((np.arange(len(unit_CD)), distances_C, clusters.labels_))
    _, first = np.unique(clusters.labels_[order], return_index=True)
    return order[first].astype(np.int64)


def _anchors(view: PoolView, num_dims: int) -> NDArray[np.float64]:
    """Mean features (A, D) of the labelled images of each class that has any."""
    if not len(view.labelled_id_idx):
        return np.empty((0, num_dims))
    features_MD = view.labelled_outputs().features_ND.astype(np.float64)
    return np.stack(
        [features_MD[view.labelled_id_labels == c].mean(axis=0) for c in np.unique(view.labelled_id_labels)]
    )
