"""AlphaMix: images whose prediction flips when labelled features are mixed into theirs (Parvaneh et al., CVPR 2022).

Shapes: N unlabelled images, K ID classes, D features, A anchors, C candidates.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from models.outputs import ClassifierOutputs, LinearHead
from strategies.base import IndexArray, PoolView, Selection, Strategy, highest_first
from strategies.confidence import least_confidence
from strategies.options import AlphaMixOptions
from strategies.uncertainty import log_softmax

TINY = np.finfo(np.float64).tiny


class AlphaMix(Strategy):
    """Candidates by mixing, then the ones nearest to the centres of as many clusters as there are labels to buy.

    Costs one pass of the classifier over pool and labelled images, K products with the last layer for each step of the
    mixing, and a k-means of the candidates. Departures from the original code: where the candidates are too few, the
    least confident images fill up (there: random ones), so that nothing depends on chance but the clustering's start.
    """

    def __init__(self, options: AlphaMixOptions) -> None:
        self._options = options

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """min(budget, N) images; the score is the confidence lost (1 - max softmax)."""
        outputs = view.outputs()
        wanted = min(budget, len(view.unlabelled_idx))
        unsure_N = least_confidence(outputs.logits_NK)
        anchors_AD = _anchors(view, outputs.features_ND.shape[1])
        flips_N, mixing = _candidates(outputs, anchors_AD, wanted, self._options.step)
        candidates = np.flatnonzero(flips_N)
        picks = candidates
        if len(candidates) > wanted:
            picks = candidates[nearest_to_centres(outputs.features_ND[candidates], wanted, rng)]
        rest = np.setdiff1d(np.arange(len(unsure_N)), picks)
        fill = rest[highest_first(unsure_N[rest], wanted - len(picks))]
        picks = np.concatenate([picks, fill])
        return Selection(
            idx=view.unlabelled_idx[picks],
            scores=unsure_N[picks],
            diagnostics={"num_candidates": len(candidates), "num_filled": len(fill), "mixing": mixing},
        )


def flipped(
    features_ND: NDArray[np.float64],
    predicted_N: IndexArray,
    anchor_D: NDArray[np.float64],
    head: LinearHead,
    eps: float,
) -> NDArray[np.bool_]:
    """Whether the prediction changes when features move by eps |anchor - features| along the loss's gradient.

    That is the mixing with an anchor that raises the loss most, to first order and for a bounded mixing ratio (the
    paper's closed form). The loss is the cross entropy of the predicted class.
    """
    weight_KD = head.weight_KD.astype(np.float64)
    excess_NK = np.exp(log_softmax(features_ND @ weight_KD.T + head.bias_K))
    excess_NK[np.arange(len(predicted_N)), predicted_N] -= 1.0
    gradient_ND = excess_NK @ weight_KD
    length_N = np.linalg.norm(anchor_D - features_ND, axis=1) / np.maximum(np.linalg.norm(gradient_ND, axis=1), TINY)
    mixed_ND = features_ND + eps * length_N[:, None] * gradient_ND
    result: NDArray[np.bool_] = (mixed_ND @ weight_KD.T + head.bias_K).argmax(axis=1) != predicted_N
    return result


def nearest_to_centres(features_CD: NDArray[np.floating], count: int, rng: np.random.Generator) -> IndexArray:
    """At most `count` distinct positions: of each of `count` k-means clusters the member nearest to its centre.

    Features are of unit length first. Fewer where points coincide.
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


def _candidates(
    outputs: ClassifierOutputs, anchors_AD: NDArray[np.float64], wanted: int, step: float
) -> tuple[NDArray[np.bool_], float]:
    """Who flips for some anchor (N,), at the least mixing that gives `wanted` of them, or at 1; and that mixing."""
    assert outputs.head is not None, "AlphaMix needs a classifier with a single last layer"
    features_ND = outputs.features_ND.astype(np.float64)
    predicted_N = outputs.logits_NK.argmax(axis=1).astype(np.int64)
    flips_N, mixing = np.zeros(len(features_ND), dtype=bool), 0.0
    while mixing < 1.0 and flips_N.sum() < wanted:
        mixing = min(1.0, mixing + step)
        for anchor_D in anchors_AD:
            flips_N |= flipped(features_ND, predicted_N, anchor_D, outputs.head, mixing / np.sqrt(features_ND.shape[1]))
    return flips_N, mixing
