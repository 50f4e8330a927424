"""MQNet: a small network learns in each round how to weigh purity against informativeness (Park et al., NeurIPS 2022).

Shapes: N unlabelled images, M labelled ID images, Q images queried, K ID classes, D features, P passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from strategies.base import IndexArray, LearningStrategy, Memory, PoolView, Selection, highest_first
from strategies.numeric.cosines import Floats, nearest_by_cosine
from strategies.numeric.query_network import QueryNetwork, exponential_scores, train_query_network
from strategies.options import MqnetOptions
from strategies.uncertainty import least_confidence, log_softmax

Features = Callable[[], NDArray[np.float32]]


def highest_cosine(features_ND: NDArray[np.floating], labelled_MD: NDArray[np.floating]) -> Floats:
    """MQNet's purity (N,): the highest cosine of each image with a labelled ID image, in [-1, 1]; -1 without one."""
    # Before the first labelled ID image there is nothing to be similar to: every image is equally impure.
    if not len(labelled_MD):
        return np.full(len(features_ND), -1.0)
    return nearest_by_cosine(features_ND, labelled_MD)[0]


def masked_losses(logits_PQK: NDArray[np.floating], answers_Q: IndexArray) -> Floats:
    """Cross entropy (P, Q) of ID images; 0 for OOD ones (answer K)."""
    _, num, num_classes = logits_PQK.shape
    logs = log_softmax(logits_PQK.reshape(-1, num_classes)).reshape(logits_PQK.shape)
    is_id_Q = answers_Q < num_classes
    labels_Q = np.where(is_id_Q, answers_Q, 0)
    losses: Floats = -logs[:, np.arange(num), labels_Q]
    return np.where(is_id_Q, losses, 0.0)


class Mqnet(LearningStrategy):
    """Picks by the score of a meta-network on informativeness and purity, both standardised over the pool.

    Costs one pass of the classifier over the pool, cosines of frozen features, and after each query some 11,000 steps
    of a 2-64-1 network and P augmented passes over the queried images. Departures from the original code:
    informativeness is standardised by the pool's own figures, features of labelled images are clean, the encoder
    sees images in [0, 1] and is trained once per data set, and the targets of the meta-training are a table
    of P augmented passes instead of a new augmentation in every step.
    """

    def __init__(
        self, features: Features, options: MqnetOptions, *, informativeness: Literal["ll", "conf"] = "ll"
    ) -> None:
        """`features` returns those of all training images, by index; `informativeness`: predicted loss or CONF's."""
        self._features = features
        self._options = options
        self._from_losses = informativeness == "ll"

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return the min(budget, N) images of highest score; at the first query the sum of both standardised scores."""
        informativeness, purity = self._informativeness(view), self._purity(view, view.unlabelled_idx)
        inputs_N2 = np.stack([exponential_scores(informativeness), exponential_scores(purity)], axis=1)
        if view.memory:
            scores_N = QueryNetwork.from_memory(view.memory).scores(inputs_N2)
        else:
            first = inputs_N2[:, 0] if self._from_losses else informativeness
            scores_N = first + inputs_N2[:, 1]
        best = highest_first(scores_N, budget)
        return view.pick(best, scores_N)

    def learn(self, view: PoolView, selection: Selection, answers_Q: IndexArray, rng: np.random.Generator) -> Memory:
        """Return a new meta-network, trained to rank the queried images by the classifier's losses, OOD lowest."""
        options = self._options
        positions = np.searchsorted(view.unlabelled_idx, selection.idx)
        informativeness = self._informativeness(view)
        if self._from_losses:
            # By the pool's predicted losses: the original takes the pool's 1 - confidence by mistake.
            first = exponential_scores(informativeness[positions], informativeness)
        else:
            first = exponential_scores(informativeness[positions])
        second = exponential_scores(self._purity(view, selection.idx))
        if options.target_passes is None:
            logits_PQK = view.outputs().logits_NK[positions][None]
        else:
            logits_PQK = view.workshop.augmented_logits(selection.idx, options.target_passes, "mqnet targets")
        network = train_query_network(
            QueryNetwork.random(rng),
            np.stack([first, second], axis=1),
            masked_losses(logits_PQK, answers_Q),
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            margin=options.margin,
        )
        return network.to_memory()

    def _informativeness(self, view: PoolView) -> Floats:
        outputs = view.outputs()
        if not self._from_losses:
            return least_confidence(outputs.logits_NK)
        assert outputs.predicted_losses_N is not None, "MQNet in LL mode needs a classifier with a loss-prediction head"
        return outputs.predicted_losses_N.astype(np.float64)

    def _purity(self, view: PoolView, idx: IndexArray) -> Floats:
        features = self._features()
        return highest_cosine(features[idx], features[view.labelled_id_idx])
