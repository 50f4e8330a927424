"""CONF, MARGIN and ENTROPY: the classifier's uncertainty by its best class, its two best classes, or all.

CONF is Lewis and Gale's (1994) least confidence.

Shapes: N images, K ID classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from strategies.base import PoolView, Selection, Strategy, highest_first


def log_softmax(logits_NK: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logarithms (N, K) of the softmax, exact even if probabilities round to 0 or 1."""
    shifted = logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def entropies(logits_NK: NDArray[np.floating]) -> NDArray[np.float64]:
    """Entropy (N,) of the softmax in nats, in [0, ln K]."""
    logs = log_softmax(logits_NK)
    # In logarithms: p ln p of a probability that rounds to 0 is NaN in the official code.
    result: NDArray[np.float64] = -(np.exp(logs) * logs).sum(axis=1)
    return result


def margins(logits_NK: NDArray[np.floating]) -> NDArray[np.float64]:
    """Largest minus second largest softmax probability (N,), in [0, 1]; 1 if there is one class."""
    probs = np.exp(log_softmax(logits_NK))
    if probs.shape[1] == 1:
        return np.ones(len(probs))
    second, first = np.partition(probs, -2, axis=1)[:, -2:].T
    result: NDArray[np.float64] = first - second
    return result


class Entropy(Strategy):
    """ENTROPY: picks the largest entropy of this round's classifier (Shannon 1948; Settles 2009).

    Costs one pass of the classifier over the pool. Departure from the official code: computed in logarithms, so that a
    probability of 0 gives no NaN, and a stable sort.
    """

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return the min(budget, N) images of largest entropy; the score is the entropy in nats."""
        scores = entropies(view.outputs().logits_NK)
        best = highest_first(scores, budget)
        return view.pick(best, scores)


class Margin(Strategy):
    """MARGIN: picks the smallest gap between the two best classes (Scheffer, Decomain and Wrobel 2001).

    Costs one pass of the classifier over the pool. Departure from the official code: a stable sort.
    """

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return the min(budget, N) images of smallest margin; the score is minus the margin."""
        scores = -margins(view.outputs().logits_NK)
        best = highest_first(scores, budget)
        return view.pick(best, scores)


def least_confidence(logits_NK: NDArray[np.floating]) -> NDArray[np.float64]:
    """Least confidence (N,): 1 minus the largest softmax probability of each image, in [0, 1 - 1/K]."""
    logits = logits_NK.astype(np.float64)
    top = logits.argmax(axis=1, keepdims=True)
    odds = np.exp(logits - np.take_along_axis(logits, top, axis=1))
    # Summing without the top class keeps apart scores that 1 - p would round to 0.
    np.put_along_axis(odds, top, 0.0, axis=1)
    others: NDArray[np.float64] = odds.sum(axis=1)
    return others / (1.0 + others)


class LeastConfidence(Strategy):
    """CONF: picks the largest 1 - max softmax of this round's classifier.

    Costs one pass of the classifier over the pool. Departure from the official code: a stable sort, so that ties go
    to the lowest index.
    """

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return the min(budget, N) least confident images; the score is 1 - max softmax."""
        scores = least_confidence(view.outputs().logits_NK)
        best = highest_first(scores, budget)
        return view.pick(best, scores)
