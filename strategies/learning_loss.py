"""LL: images for which the classifier itself predicts the largest loss (Yoo and Kweon, CVPR 2019)."""

from __future__ import annotations

import numpy as np

from strategies.base import PoolView, Selection, Strategy, highest_first
from strategies.options import LearningLossOptions


class LearningLoss(Strategy):
    """Picks the largest predicted losses within a random subset of the pool.

    Costs one pass of the classifier over the pool; its training carries the loss-prediction head
    (`models.classifier.loss_prediction`). Departures: the original study has its own training; here all strategies
    share the protocol's, from new weights in each round. The official framework looks at the whole pool
    (`options.learning_loss.subset=null`). A subset smaller than the budget is as large as the budget.
    """

    def __init__(self, options: LearningLossOptions) -> None:
        self._options = options

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return the min(budget, N) images of largest predicted loss within the subset; the score is that loss."""
        predicted_N = view.outputs().predicted_losses_N
        assert predicted_N is not None, "LL needs a classifier with a loss-prediction head"
        num = len(predicted_N)
        subset = np.arange(num)
        if self._options.subset is not None and self._options.subset < num:
            # Sorted, so that equal predictions go to the lowest index; never smaller than the budget.
            subset = np.sort(rng.choice(num, size=max(self._options.subset, min(budget, num)), replace=False))
        best = subset[highest_first(predicted_N[subset], budget)]
        return view.pick(best, predicted_N)
