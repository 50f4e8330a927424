"""BALD, MeanSTD and VarRatio: how much the classifier's answers differ under dropout.

Dropout lies between the pooled features and the last layer, in training and here, so that a mask costs one product
of stored features with that layer instead of a pass of the network.

Shapes: P passes, N images, K classes, D features, B block of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from models.classifier.outputs import ClassifierOutputs
from strategies.base import PoolView, Selection, Strategy, highest_first
from strategies.options import MonteCarloOptions
from strategies.uncertainty import log_softmax

Measure = Callable[[NDArray[np.float64]], NDArray[np.float64]]
BLOCK = 4096
"""Images whose masks are held at a time."""


def dropout_logits(
    outputs: ClassifierOutputs, options: MonteCarloOptions, rng: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """Logits (P, B, K) under random masks of the features, block by block of the images, in order."""
    assert outputs.head is not None, "Monte-Carlo dropout needs a classifier with a single last layer"
    weight_DK, keep = outputs.head.weight_KD.T.astype(np.float64), 1.0 - options.rate
    for start in range(0, len(outputs.features_ND), BLOCK):
        features_BD = outputs.features_ND[start : start + BLOCK].astype(np.float64)
        logits = [
            (features_BD * (rng.random(features_BD.shape, dtype=np.float32) < keep) / keep) @ weight_DK
            for _ in range(options.passes)
        ]
        yield np.stack(logits) + outputs.head.bias_K


def mutual_information(logits_PBK: NDArray[np.float64]) -> NDArray[np.float64]:
    """BALD (B,): entropy of the mean prediction minus mean entropy, nats, at least 0 (Houlsby et al. 2011)."""
    logs = _log_probs(logits_PBK)
    probs = np.exp(logs)
    mean_BK = probs.mean(axis=0)
    total = -np.sum(mean_BK * np.log(np.maximum(mean_BK, np.finfo(np.float64).tiny)), axis=1)
    expected = -(probs * logs).sum(axis=2).mean(axis=0)
    # Rounding makes the difference of two equal entropies slightly negative; mutual information is at least 0.
    result: NDArray[np.float64] = np.maximum(total - expected, 0.0)
    return result


def mean_deviation(logits_PBK: NDArray[np.float64]) -> NDArray[np.float64]:
    """MeanSTD (B,): deviation of each class's probability over the passes, mean over classes (Kampffmeyer 2016)."""
    result: NDArray[np.float64] = np.exp(_log_probs(logits_PBK)).std(axis=0).mean(axis=1)
    return result


def variation_ratio(logits_PBK: NDArray[np.float64]) -> NDArray[np.float64]:
    """VarRatio (B,): share of the passes that do not predict the most frequent class, in [0, 1) (Freeman 1965)."""
    num_passes, _, num_classes = logits_PBK.shape
    predicted_PB = logits_PBK.argmax(axis=2)
    votes_BK = np.stack([(predicted_PB == label).sum(axis=0) for label in range(num_classes)], axis=1)
    result: NDArray[np.float64] = 1.0 - votes_BK.max(axis=1) / num_passes
    return result


class MonteCarlo(Strategy):
    """Picks the images on which the classifier disagrees most with itself under dropout, by one of the measures above.

    Costs one pass of the classifier over the pool and P products with its last layer; the classifier is trained with
    the same dropout. Departure: Gal et al. (ICML 2017) have dropout in several layers and run the network P times; here
    it lies before the last layer only.
    """

    def __init__(self, measure: Measure, options: MonteCarloOptions) -> None:
        self._measure = measure
        self._options = options

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return the min(budget, N) images of largest disagreement; the score is the measure."""
        blocks = dropout_logits(view.outputs(), self._options, rng)
        scores = np.concatenate([self._measure(logits_PBK) for logits_PBK in blocks])
        best = highest_first(scores, budget)
        return view.pick(best, scores)


def _log_probs(logits_PBK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms (P, B, K) of the softmax."""
    num_classes = logits_PBK.shape[2]
    return log_softmax(logits_PBK.reshape(-1, num_classes)).reshape(logits_PBK.shape)
