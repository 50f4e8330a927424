"""CORESET and its class-balanced form: images that cover the pool (Sener and Savarese, ICLR 2018).

Shapes: N unlabelled images, M labelled ID images, K ID classes, D features.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.base import IndexArray, PoolView, Selection, Strategy
from strategies.numeric.kcenter import kcenter_greedy


class Coreset(Strategy):
    """CORESET: greedy k-center on the classifier's pooled features, from the labelled ID images as centres.

    Costs one pass of the classifier over the pool and the labelled images, and Q products of the pool's features with
    one vector. Departures from the official code: that code translates each pick to a neighbouring image, so that
    its picks are near random and repeat; it takes unpooled feature maps; and a distance that rounds below 0 becomes NaN
    and is picked first. The paper's CORESET figures come from that code, so these differ.
    """

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return min(budget, N) images in order; the score is the distance to the nearest centre when picked."""
        device = view.workshop.device
        pool_ND = torch.tensor(view.outputs().features_ND, device=device)
        picks, squared = kcenter_greedy(_labelled_features(view, pool_ND), pool_ND, budget)
        # Without a centre the first distance is infinite, which check_selection() refuses: cap it at float32's largest.
        distances = squared.double().clamp(min=0, max=torch.finfo(torch.float32).max).sqrt()
        return Selection(idx=view.unlabelled_idx[picks.cpu().numpy()], scores=distances.cpu().numpy())


class BalancedCoreset(Strategy):
    """Class-balanced k-center: the budget is shared among the classes that the classifier predicts.

    Each predicted class gets what brings its labelled and queried images closest to an equal number per class, at most
    what it has; within a class greedy k-center picks, from the labelled ID images of that class as centres. It costs
    the same as CORESET. Departure: Bengar et al. (WACV 2022) reach the balance by an optimisation over all picks at
    once; this gives images out one at a time to the class with fewest, which is the same aim, exact in its counts, and
    deterministic.
    """

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return min(budget, N) images, class by class; the score is the distance to the nearest centre when picked."""
        outputs = view.outputs()
        predicted_N = outputs.logits_NK.argmax(axis=1)
        num_classes = outputs.logits_NK.shape[1]
        quotas = balanced_quotas(
            np.bincount(view.labelled_id_labels, minlength=num_classes),
            np.bincount(predicted_N, minlength=num_classes),
            budget,
        )
        device = view.workshop.device
        pool_ND = torch.tensor(outputs.features_ND, device=device)
        labelled_MD = _labelled_features(view, pool_ND)
        idx, scores = [], []
        for label in range(num_classes):
            members = np.flatnonzero(predicted_N == label)
            own = torch.from_numpy(np.flatnonzero(view.labelled_id_labels == label)).to(device)
            picks, squared = kcenter_greedy(
                labelled_MD[own], pool_ND[torch.from_numpy(members).to(device)], int(quotas[label])
            )
            idx.append(view.unlabelled_idx[members[picks.cpu().numpy()]])
            scores.append(squared.double().clamp(min=0, max=torch.finfo(torch.float32).max).sqrt().cpu().numpy())
        return Selection(idx=np.concatenate(idx), scores=np.concatenate(scores))


def balanced_quotas(labelled_K: NDArray[np.int64], present_K: NDArray[np.int64], budget: int) -> IndexArray:
    """Numbers (K,) of images to take per class, given one at a time to the class with fewest, at most those present.

    `labelled_K` are labelled already. Their sum is min(budget, number present); ties go to the lowest class.
    """
    quotas = np.zeros(len(labelled_K), dtype=np.int64)
    for _ in range(min(budget, int(present_K.sum()))):
        have = np.where(quotas < present_K, (labelled_K + quotas).astype(np.float64), np.inf)
        quotas[have.argmin()] += 1
    return quotas


def _labelled_features(view: PoolView, pool_ND: torch.Tensor) -> torch.Tensor:
    """Features (M, D) of the labelled ID images, on the device of the pool's; (0, D) if none is labelled."""
    if not len(view.labelled_id_idx):
        return pool_ND[:0]
    return torch.tensor(view.labelled_outputs().features_ND, device=pool_ND.device)
