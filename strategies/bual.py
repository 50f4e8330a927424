"""BUAL: low confidence before and after negative learning, balanced by a detector (Zong et al., ECCV 2024).

Shapes: N unlabelled images, K ID classes, Q images queried.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.classifier.negative import NegativeObjective
from models.classifier.networks import Classifier
from strategies.base import IndexArray, LearningStrategy, Memory, PoolView, Selection, checked_outputs
from strategies.lfosa import labelled_with_ood
from strategies.numeric.cosines import Floats
from strategies.options import BualOptions
from strategies.uncertainty import log_softmax

EQUAL = 1e-6
"""Values whose range is smaller are equal: networks round at about that."""
DECIMALS = 6
"""Scores are compared to so many decimals, for the same reason."""
SAME = 0.01
"""Share of the picked set that may change between two checks that find it unchanged."""
REMOVED = 10.0
"""Added to the detector's probability of removed images: behind all candidates, whose scores are at most 1."""


def confidences(values_NK: Floats, measure: str) -> Floats:
    """Confidence (N,) by sums of probabilities: the largest, the largest minus the second, or minus the entropy."""
    if measure == "margin":
        second_N, first_N = np.partition(values_NK, -2, axis=1)[:, -2:].T
        gap_N: Floats = first_N - second_N
        return gap_N
    if measure == "entropy":
        logs_NK = np.log(np.where(values_NK > 0, values_NK, 1.0))
        minus_entropy_N: Floats = (values_NK * logs_NK).sum(axis=1)
        return minus_entropy_N
    largest_N: Floats = values_NK.max(axis=1)
    return largest_N


def rescaled(values_N: Floats) -> Floats:
    """Values (N,) moved and scaled to [0, 1]; zeros if all are equal."""
    spread = float(np.ptp(values_N)) if len(values_N) else 0.0
    return (values_N - values_N.min()) / spread if spread > EQUAL else np.zeros(len(values_N))


def balanced(negative_N: Floats, positive_N: Floats, unknown_N: Floats | None, precision: float | None) -> Floats:
    """Scores (N,), the lowest asked first: both confidences, and the detector's probability of OOD, each rescaled.

    At the first query (`precision` None) the negative confidence alone; without a detector (`unknown_N` None) that
    plus `precision` times the positive one.
    """
    a, b = rescaled(negative_N), rescaled(positive_N)
    if precision is None or unknown_N is None:
        score_N = a + (precision or 0.0) * b
    else:
        c = rescaled(unknown_N)
        score_N = c * a + precision * (1.0 - c) * b
    rounded: Floats = np.round(score_N, DECIMALS)
    return rounded


@dataclass(slots=True, kw_only=True)
class Patience:
    """Ends the negative training when the picked set has stayed the same for so many checks; None: never."""

    checks: int | None
    _last: frozenset[int] | None = None
    _unchanged: int = 0

    def is_out(self, picked: IndexArray) -> bool:
        """Whether the training ends with this picked set, the next in turn."""
        now = frozenset(picked.tolist())
        same = self._last is not None and len(now - self._last) < SAME * len(now)
        self._unchanged = self._unchanged + 1 if same else 0
        self._last = now
        return self.checks is not None and self._unchanged >= self.checks


class Bual(LearningStrategy):
    """Picks the images of lowest confidence after negative learning, and the more of the classifier's, the purer.

    Costs three trainings each round (a detector of K + 1 classes, a classifier, and its negative training on the
    labelled and 5,000 unlabelled images) and a pass over the pool every 5 negative epochs: the dearest strategy here.
    Departures from the original code: the negative training ends when the picked set stays the same (there when the
    number of truly known images among the picked ones does: hidden labels), the unlabelled images are drawn uniformly
    (there in the true share of known ones: hidden labels) and Q is the budget (there 1,500), the pool is scored without
    augmentation, SGD's momentum starts anew every 5 negative epochs, the second head takes the place of the first
    (which the negative loss does not train), the detector's batches are as large as the others, and if too few images
    are left by the detector those that it is least sure of follow.
    """

    def __init__(self, options: BualOptions) -> None:
        self._options = options

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return min(budget, N) images; the score is minus the balanced confidence, of removed images below -10.

        Raises ValueError if there is one ID class.
        """
        if len(view.class_names) < 2:
            raise ValueError(
                "BUAL needs two ID classes, because its negative learning draws another class than an image's own, "
                f"and there is one ({view.class_names[0]}); raise the mismatch ratio or leave bual out"
            )
        unknown_N, is_left_N = self._detect(view)
        left_idx = view.unlabelled_idx[is_left_N]
        precision = view.memory["precision"][-1] if view.memory else None
        score_N = np.full(len(is_left_N), REMOVED)
        num_checks = 0
        if len(left_idx):
            of_left = None if unknown_N is None else unknown_N[is_left_N]
            score_N[is_left_N], num_checks = self._confidences(view, left_idx, of_left, precision, budget, rng)
        if unknown_N is not None:
            score_N[~is_left_N] += np.round(unknown_N[~is_left_N], DECIMALS)
        picks = np.argsort(score_N, kind="stable")[:budget]
        return Selection(
            idx=view.unlabelled_idx[picks],
            scores=-score_N[picks],
            judged_id_idx=left_idx,
            diagnostics={
                "num_judged_id": len(left_idx),
                "num_filled": int((~is_left_N[picks]).sum()),
                "num_checks": num_checks,
            },
        )

    def learn(self, view: PoolView, selection: Selection, answers_Q: IndexArray, rng: np.random.Generator) -> Memory:
        """Return the precision of the query, the weight of the classifier's own confidence in the next one."""
        return {"precision": [float(np.mean(answers_Q < len(view.class_names)))]}

    def _detect(self, view: PoolView) -> tuple[Floats | None, NDArray[np.bool_]]:
        """The detector's probability of OOD (N,), and who is left; None and all without a labelled OOD image."""
        if not len(view.labelled_ood_idx):
            return None, np.ones(len(view.unlabelled_idx), dtype=bool)
        shop, num_known = view.workshop, len(view.class_names)
        idx, labels = labelled_with_ood(view)
        recipe = self._options.recipe(shop.recipe)
        network = shop.new_network(num_known + 1, recipe, "bual detector")
        detector = shop.train(idx, labels, network=network, recipe=recipe, name="bual detector")
        logits_NK1 = checked_outputs(
            shop.predict(detector, view.unlabelled_idx), view.unlabelled_idx, "unlabelled"
        ).logits_NK
        return np.exp(log_softmax(logits_NK1)[:, -1]), logits_NK1.argmax(axis=1) < num_known

    def _confidences(
        self,
        view: PoolView,
        left_idx: IndexArray,
        unknown_N: Floats | None,
        precision: float | None,
        budget: int,
        rng: np.random.Generator,
    ) -> tuple[Floats, int]:
        """Balanced scores of the images `left_idx` after both trainings, and the number of checks made."""
        shop, options, num_known = view.workshop, self._options, len(view.class_names)
        recipe = options.recipe(shop.recipe)
        network = shop.new_network(num_known, recipe, "bual")
        shop.train(view.labelled_id_idx, view.labelled_id_labels, network=network, recipe=recipe, name="bual")
        positive_N = confidences(self._probabilities(view, network, left_idx), options.measure)
        network.head = _new_head(network, shop.weights_seed("bual negative"))
        num_drawn = min(options.unlabelled, len(view.unlabelled_idx))
        drawn = np.sort(rng.choice(view.unlabelled_idx, size=num_drawn, replace=False))
        idx = np.concatenate([view.labelled_id_idx, drawn])
        labels = np.concatenate([view.labelled_id_labels, np.full(num_drawn, num_known, dtype=np.int64)])
        summed_NK = self._probabilities(view, network, left_idx)
        score_N = balanced(confidences(summed_NK, options.measure), positive_N, unknown_N, precision)
        patience, num_checks = Patience(checks=options.patience), 0
        for done in range(0, options.epochs, options.check_every):
            part = recipe.model_copy(update={"epochs": min(options.check_every, options.epochs - done)})
            objective = NegativeObjective(num_known)
            shop.train(idx, labels, network=network, recipe=part, name=f"bual negative {done}", objective=objective)
            summed_NK += self._probabilities(view, network, left_idx)
            score_N = balanced(confidences(summed_NK, options.measure), positive_N, unknown_N, precision)
            num_checks += 1
            if patience.is_out(np.argsort(score_N, kind="stable")[:budget]):
                break
        return score_N, num_checks

    def _probabilities(self, view: PoolView, network: nn.Module, idx: IndexArray) -> Floats:
        """Softmax (n, K) of the network's present outputs."""
        return np.exp(log_softmax(checked_outputs(view.workshop.predict(network, idx), idx, "unlabelled").logits_NK))


def _new_head(network: Classifier, weights_seed: int) -> nn.Linear:
    """A last layer like the network's, with initial weights that depend on `weights_seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights_seed)
        return nn.Linear(network.head.in_features, network.head.out_features)
