"""MQNet's meta-network: two scores in, one out, never lower if both are higher (Park et al., NeurIPS 2022).

score = relu(W2) . sigmoid(relu(W1) x + b1) + b2 for x = (informativeness, purity). The weights pass a ReLU, so the
score grows with both (the skyline constraint). Its gradient is written by hand: the network is so small that automatic
differentiation takes ten times as long. Float64.

Shapes: N images, B batch, H hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
HIDDEN = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryNetwork:
    """Weights of the meta-network, before their ReLU."""

    inner_2H: Floats
    bias_H: Floats
    outer_H: Floats
    bias: float
    """Last bias; it changes no order and no loss, and is kept because the original has it."""

    @classmethod
    def random(cls, rng: np.random.Generator) -> QueryNetwork:
        """Network with all weights and biases uniform in [0, 1), the start of the original."""
        return cls(
            inner_2H=rng.random((2, HIDDEN)), bias_H=rng.random(HIDDEN), outer_H=rng.random(HIDDEN), bias=rng.random()
        )

    def scores(self, inputs_N2: NDArray[np.floating]) -> Floats:
        """Scores (N,), higher for images more worth a label; inputs are (informativeness, purity), standardised."""
        hidden_NH = _sigmoid(inputs_N2.astype(np.float64) @ np.maximum(self.inner_2H, 0) + self.bias_H)
        result: Floats = hidden_NH @ np.maximum(self.outer_H, 0) + self.bias
        return result

    def to_memory(self) -> dict[str, list[float]]:
        """Named numbers from which `from_memory` restores the network to the bit."""
        return {
            "inner": self.inner_2H.ravel().tolist(),
            "bias": self.bias_H.tolist(),
            "outer": self.outer_H.tolist(),
            "last_bias": [self.bias],
        }

    @classmethod
    def from_memory(cls, memory: Mapping[str, Sequence[float]]) -> QueryNetwork:
        """Restore the network from the result of `to_memory`."""
        bias_H = np.array(memory["bias"])
        return cls(
            inner_2H=np.array(memory["inner"]).reshape(2, len(bias_H)),
            bias_H=bias_H,
            outer_H=np.array(memory["outer"]),
            bias=float(memory["last_bias"][0]),
        )


def train_query_network(
    network: QueryNetwork,
    inputs_N2: Floats,
    targets: Floats,
    *,
    epochs: int,
    learning_rate: float,
    margin: float = 1.0,
    batch_size: int = 32,
    min_steps: int = 100,
) -> QueryNetwork:
    """The network after SGD on the ranking of the targets; the rate falls to a tenth after half of the epochs.

    An epoch is as many whole passes over the inputs, in order and in batches, as give at least `min_steps` steps.
    `targets` is (N,), or (passes, N) with another row for each pass in turn. A pair (i, B - 1 - i) of a batch is to be
    ranked as its targets are, by at least the margin; equal targets count as "not greater", as in the original.
    """
    targets_PN = np.atleast_2d(targets)
    starts = range(0, len(inputs_N2), batch_size)
    passes_an_epoch = -(-min_steps // len(starts))
    inner, bias_H, outer = network.inner_2H.copy(), network.bias_H.copy(), network.outer_H.copy()
    number = 0
    for epoch in range(epochs):
        rate = learning_rate * (0.1 if epoch >= epochs // 2 else 1.0)
        for _ in range(passes_an_epoch):
            targets_N = targets_PN[number % len(targets_PN)]
            number += 1
            for start in starts:
                batch = slice(start, start + batch_size)
                gradients = ranking_gradients(inner, bias_H, outer, inputs_N2[batch], targets_N[batch], margin)
                inner -= rate * gradients[0]
                bias_H -= rate * gradients[1]
                outer -= rate * gradients[2]
    return QueryNetwork(inner_2H=inner, bias_H=bias_H, outer_H=outer, bias=network.bias)


def ranking_gradients(
    inner_2H: Floats, bias_H: Floats, outer_H: Floats, inputs_B2: Floats, targets_B: Floats, margin: float
) -> tuple[Floats, Floats, Floats, float]:
    """Gradients of the mean hinge over the batch's pairs by the three weights, and the loss; zeros without a pair."""
    hidden_BH = _sigmoid(inputs_B2 @ np.maximum(inner_2H, 0) + bias_H)
    scores_B = hidden_BH @ np.maximum(outer_H, 0)
    num_pairs = len(targets_B) // 2
    if not num_pairs:
        return np.zeros_like(inner_2H), np.zeros_like(bias_H), np.zeros_like(outer_H), 0.0
    first, second = np.arange(num_pairs), len(targets_B) - 1 - np.arange(num_pairs)
    # Equal targets count as "not greater", as in the original; skipping such pairs would train another network.
    sign = np.where(targets_B[first] > targets_B[second], 1.0, -1.0)
    hinge = margin - sign * (scores_B[first] - scores_B[second])
    slope_B = np.zeros(len(targets_B))
    slope_B[first] = np.where(hinge > 0, -sign, 0.0) / num_pairs
    slope_B[second] = -slope_B[first]
    outer_slope_H = (slope_B @ hidden_BH) * (outer_H > 0)
    back_BH = slope_B[:, None] * np.maximum(outer_H, 0) * hidden_BH * (1.0 - hidden_BH)
    inner_slope_2H = (inputs_B2.T @ back_BH) * (inner_2H > 0)
    return inner_slope_2H, back_BH.sum(axis=0), outer_slope_H, float(np.maximum(hinge, 0).mean())


def exponential_scores(values_N: NDArray[np.floating], of_M: NDArray[np.floating] | None = None) -> Floats:
    """Scores exp((v - mean) / deviation), above 0; mean and (population) deviation are those of `of_M`, or of v.

    Values that do not vary give 1.
    """
    values, reference = values_N.astype(np.float64), (values_N if of_M is None else of_M).astype(np.float64)
    if not reference.max() > reference.min():
        return np.ones(len(values))
    result: Floats = np.exp((values - reference.mean()) / reference.std())
    return result


def _sigmoid(values: Floats) -> Floats:
    result: Floats = 1.0 / (1.0 + np.exp(-values))
    return result
