"""CONF: the images whose most likely class is least likely (Lewis and Gale 1994, least confidence)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from strategies.base import PoolView, Selection, Strategy, highest_first


def least_confidence(logits_NK: NDArray[np.floating]) -> NDArray[np.float64]:
    """1 - the largest softmax probability of each of N images, in [0, 1 - 1/K]."""
    logits = logits_NK.astype(np.float64)
    top = logits.argmax(axis=1, keepdims=True)
    odds = np.exp(logits - np.take_along_axis(logits, top, axis=1))
    # Summing without the top class keeps apart scores that 1 - p would round to 0.
    np.put_along_axis(odds, top, 0.0, axis=1)
    others: NDArray[np.float64] = odds.sum(axis=1)
    return others / (1.0 + others)


class LeastConfidence(Strategy):
    """The largest 1 - max softmax of this round's classifier.

    Costs one pass of the classifier over the pool. Departure from the official code: a stable sort, so that ties go
    to the lowest index.
    """

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """The min(budget, N) least confident images; the score is 1 - max softmax."""
        scores = least_confidence(view.outputs().logits_NK)
        best = highest_first(scores, budget)
        return Selection(idx=view.unlabelled_idx[best], scores=scores[best])
