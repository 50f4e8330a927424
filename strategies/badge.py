"""BADGE: uncertain and diverse at once, by the gradients of the last layer (Ash et al., ICLR 2020).

The gradient embedding of an image is the outer product of a = softmax - one-hot of the predicted class (K) with its
features h (D). It is never written out: |a h|^2 = |a|^2 |h|^2, and products of two are (a . a') (h . h').

Shapes: N images, K ID classes, D features, Q picks.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from strategies.base import PoolView, Selection, Strategy
from strategies.numeric.kcenter import first_maximum


def gradient_factors(logits_NK: Tensor) -> Tensor:
    """Factor a (N, K) of the gradient embedding: softmax minus one-hot of the predicted class."""
    factors_NK = torch.softmax(logits_NK, dim=1)
    predicted_N1 = logits_NK.argmax(dim=1, keepdim=True)
    return factors_NK.scatter_add(1, predicted_N1, torch.full_like(predicted_N1, -1, dtype=factors_NK.dtype))


def kmeans_plus_plus(factors_NK: Tensor, features_ND: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """Positions (Q,) drawn as k-means++ draws its starts: first the longest gradient, then in proportion to D^2.

    D is the distance to the nearest pick so far. Nothing is drawn twice; if everything left coincides with picks, the
    lowest positions are taken.
    """
    count = min(count, len(features_ND))
    norms_N = factors_NK.square().sum(dim=1) * features_ND.square().sum(dim=1)
    nearest_N = torch.full_like(norms_N, float("inf"))
    free_N = torch.ones_like(norms_N, dtype=torch.bool)
    draws = rng.random(count)
    picks = []
    for number in range(count):
        pick = int(first_maximum(norms_N)) if number == 0 else _draw(nearest_N * free_N, free_N, float(draws[number]))
        picks.append(pick)
        free_N[pick] = False
        products_N = (factors_NK @ factors_NK[pick]) * (features_ND @ features_ND[pick])
        nearest_N = torch.minimum(nearest_N, (norms_N + norms_N[pick] - 2 * products_N).clamp(min=0))
    return torch.tensor(picks, dtype=torch.int64)


def _draw(weights_N: Tensor, free_N: Tensor, at: float) -> int:
    """Position drawn in proportion to the weights; the lowest free one if all weights are 0."""
    total_N = weights_N.double().cumsum(dim=0)
    if not total_N[-1] > 0:
        # Equal gradients are no error here, unlike in the original code: the lowest free position is taken.
        return int(free_N.nonzero()[0, 0])
    position = int(torch.searchsorted(total_N, at * total_N[-1], right=True).clamp(max=len(weights_N) - 1))
    return position if free_N[position] and weights_N[position] > 0 else int(weights_N.argmax())


class Badge(Strategy):
    """k-means++ on gradient embeddings of the last layer.

    Costs one pass of the classifier over the pool, and for each pick a product of the pool's features and of its
    softmax with one vector each; the embeddings (N x K D) are never held. Departures from the original code: float64,
    the trial's own random numbers, and equal gradients are no error: the lowest indices are taken.
    """

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return min(budget, N) images in the order drawn; the score is the length of the gradient embedding."""
        outputs = view.outputs()
        features_ND = torch.tensor(outputs.features_ND, device=view.workshop.device).double()
        factors_NK = gradient_factors(torch.tensor(outputs.logits_NK, device=view.workshop.device).double())
        picks = kmeans_plus_plus(factors_NK, features_ND, budget, rng)
        lengths_N = (factors_NK.norm(dim=1) * features_ND.norm(dim=1)).cpu().numpy()
        return view.pick(picks.numpy(), lengths_N)
