"""LfOSA: a detector with one class more, and a mixture of each class's activations (Ning et al., CVPR 2022).

Shapes: N unlabelled images, K ID classes, L labelled images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.classifier.fit import CrossEntropy
from models.classifier.outputs import ClassifierOutputs
from strategies.base import IndexArray, PoolView, Selection, Strategy, checked_outputs, highest_first
from strategies.numeric.gaussian_mixture import fit_mixtures
from strategies.options import LfosaOptions


def known_log_odds(logits_NK1: NDArray[np.floating], num_known: int) -> NDArray[np.float64]:
    """Log posterior odds (N,) that each image belongs to its predicted known class, by that class's mixture.

    The mixture is fitted to the largest activations of the images predicted to be in the class. NaN for images
    predicted unknown, and for a class with one image.
    """
    predicted_N = logits_NK1.argmax(axis=1).astype(np.int64)
    activations = logits_NK1.max(axis=1).astype(np.float64)
    return fit_mixtures(activations, predicted_N, num_known).log_odds_N


class Lfosa(Strategy):
    """Picks the images with the highest log odds of the detector's mixtures, over all known classes together.

     Costs the training of a detector each round (a ResNet-18 of K + 1 classes, on labelled ID and OOD images), one pass
     of it over the pool, and a mixture per class. Departures from the original code: queried OOD images leave the pool
    , the pool is scored without augmentation, the mixtures start from the best split of the activations and
     images are ranked by log odds, and the detector is the common ResNet-18. If too few images are
     predicted known in a class of two or more, those of largest margin over the OOD class fill up.
    """

    def __init__(self, options: LfosaOptions) -> None:
        self._options = options

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return min(budget, N) images; the score is the log odds, for fill-ups the margin over OOD minus 1e6."""
        num_known = len(view.class_names)
        logits_NK1 = self._detect(view).logits_NK.astype(np.float64)
        log_odds_N = known_log_odds(logits_NK1, num_known)
        is_known_N = logits_NK1.argmax(axis=1) < num_known
        margin_N = logits_NK1[:, :num_known].max(axis=1) - logits_NK1[:, num_known]
        scores_N = np.where(np.isnan(log_odds_N), margin_N - FILL, log_odds_N)
        best = highest_first(scores_N, budget)
        return Selection(
            idx=view.unlabelled_idx[best],
            scores=scores_N[best],
            judged_id_idx=view.unlabelled_idx[is_known_N],
            diagnostics={
                "num_judged_id": int(is_known_N.sum()),
                "num_filled": int(np.isnan(log_odds_N[best]).sum()),
            },
        )

    def _detect(self, view: PoolView) -> ClassifierOutputs:
        """Outputs on the pool of a detector trained on all labelled images."""
        shop, num_known = view.workshop, len(view.class_names)
        idx, labels = labelled_with_ood(view)
        recipe = self._options.recipe(shop.recipe)
        network = shop.new_network(num_known + 1, recipe, "lfosa")
        detector = shop.train(
            idx, labels, network=network, recipe=recipe, name="lfosa", objective=CrossEntropy(self._options.temperature)
        )
        return checked_outputs(shop.predict(detector, view.unlabelled_idx), view.unlabelled_idx, "unlabelled")


FILL = 1e6
"""Puts images without log odds behind all others."""


def labelled_with_ood(view: PoolView) -> tuple[IndexArray, IndexArray]:
    """All labelled images (L,), ID before OOD, and their labels, OOD as K."""
    idx = np.concatenate([view.labelled_id_idx, view.labelled_ood_idx])
    ood = np.full(len(view.labelled_ood_idx), len(view.class_names), dtype=np.int64)
    return idx, np.concatenate([view.labelled_id_labels, ood])
