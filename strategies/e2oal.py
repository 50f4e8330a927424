"""E2OAL: hidden OOD classes, an evidential head, and a query whose width meets a target precision (Zong et al., 2026).

Shapes: N unlabelled images, K ID classes, U hidden classes, A = K + U, D features, Q images queried.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from data.files import content_hash
from models.classifier.evidential import EvidentialClassifier, EvidentialObjective, add_evidence
from models.classifier.target import Lesson, RoundLabels, Target
from strategies.base import (
    IndexArray,
    LearningStrategy,
    Memory,
    PoolView,
    Selection,
    checked_outputs,
    highest_first,
)
from strategies.numeric.gaussian_mixture import top_posteriors
from strategies.numeric.hidden_classes import HiddenClasses, find_hidden_classes
from strategies.options import E2oalOptions
from strategies.uncertainty import log_softmax

Floats = NDArray[np.float64]
Divergence = Literal["official", "jensen-shannon"]
Rows = Callable[[IndexArray], NDArray[np.float32]]
"""A function that returns the frozen unit features (n, D) of training images."""
SMOOTHING = 1e-8
"""Added to every probability before a divergence."""
USUAL_PASSES = 200
"""Passes that the divergence's weight is counted in for a recipe of steps, which has no passes."""
EXACT = 2**120
"""Posteriors are added as whole numbers of 1 / this: a sum that runs over the whole pool gathers no rounding."""


def divergence(p_NK: Floats, r_NK: Floats, kind: Divergence) -> Floats:
    """Divergence (N,) of two distributions in nats, after smoothing.

    The official code calls its own Jensen-Shannon, but exchanges the arguments of both Kullback-Leibler terms: it takes
    1/2 [KL(m || p) + KL(m || r)] with the mean m, where Jensen-Shannon takes 1/2 [KL(p || m) + KL(r || m)]. Between
    p = (.5, .5, 0) and p = (.6, .3, .1) the scores differ by a factor of 31 with the first and 3.3 with the second.
    """
    p, r = (part + SMOOTHING for part in (p_NK, r_NK))
    p, r = p / p.sum(axis=1, keepdims=True), r / r.sum(axis=1, keepdims=True)
    middle = (p + r) / 2
    pairs = ((middle, p), (middle, r)) if kind == "official" else ((p, middle), (r, middle))
    result: Floats = sum(((a * np.log(a / b)).sum(axis=1) for a, b in pairs), start=np.zeros(len(p))) / 2
    return result


def informativeness(probs_NK: Floats, kind: Divergence) -> Floats:
    """Informativeness (N,): the divergence from the predicted class times the divergence from the uniform."""
    num_known = probs_NK.shape[1]
    certain_NK = np.eye(num_known)[probs_NK.argmax(axis=1)]
    uniform_NK = np.full_like(probs_NK, 1 / num_known)
    return divergence(probs_NK, certain_NK, kind) * divergence(probs_NK, uniform_NK, kind)


def candidate_size(known_N: Floats, informative_N: Floats, count: int, target: float) -> int:
    """The number n of images to choose from, for images in order of how surely they are known, surest first.

    The smallest n >= `count` for which the `count` most informative of the first n are expected to hold at most
    `target` x `count` known ones (whole images of the sum of `known_N`); N if there is none, or if `target` is 0.
    """
    num = len(known_N)
    if target <= 0 or num <= count:
        return num
    weights = [round(known * EXACT) for known in known_N.tolist()]
    # The most informative so far; of equals the later one is the first to go, as in a stable sort.
    best = [(value, -place) for place, value in enumerate(informative_N[:count].tolist())]
    heapq.heapify(best)
    total = sum(weights[:count])
    for place in range(count, num + 1):
        if math.floor(total / EXACT) <= target * count:
            return place
        if place < num and informative_N[place] > best[0][0]:
            _, gone = heapq.heapreplace(best, (float(informative_N[place]), -place))
            total += weights[place] - weights[-gone]
    return num


def query(
    margins_N: Floats,
    predicted_N: IndexArray,
    informative_N: Floats,
    num_known: int,
    *,
    size: int,
    count: int,
    rng: np.random.Generator,
) -> tuple[IndexArray, int]:
    """Positions (Q,) to query, most wanted first, and how many of them were filled up by margin.

    Of the images predicted to be in each known class the ceil(size / K) of largest margin, of these the ceil(count / K)
    most informative. `rng` says which of too many are left out; if there are too few, the largest margins of all others
    fill up.
    """
    per_class, wanted = -(-size // num_known), -(-count // num_known)
    union: list[int] = []
    for label in range(num_known):
        members = np.flatnonzero(predicted_N == label)
        near = members[highest_first(margins_N[members], per_class)]
        near.sort()  # ties of the informativeness go to the lowest index, not to the largest margin
        union.extend(near[highest_first(informative_N[near], wanted)].tolist())
    chosen = np.sort(rng.permutation(np.sort(np.array(union, dtype=np.int64)))[:count])
    chosen = chosen[highest_first(informative_N[chosen], count)]
    others = np.setdiff1d(np.arange(len(margins_N)), chosen)
    fill = others[highest_first(margins_N[others], min(count, len(margins_N)) - len(chosen))]
    return np.concatenate([chosen, fill]).astype(np.int64), len(fill)


class E2oalTarget(Target):
    """Lessons of E2OAL's target network: all labelled images, the OOD ones by hidden class."""

    def __init__(self, rows: Rows, *, temperature: float) -> None:
        """`rows` are the frozen features, `temperature` that of the cross entropy on the ID images."""
        self._rows, self._temperature = rows, temperature

    def lesson(self, labels: RoundLabels) -> Lesson:
        """The training images with their labels 0..K+U-1, the two-headed network, and its objective."""
        idx = np.concatenate([labels.id_idx, labels.ood_idx])
        hidden = self.hidden_classes(labels)
        labels_N = np.concatenate([labels.id_labels, labels.num_known + hidden.labels])
        return Lesson(
            idx=idx,
            labels_N=labels_N,
            wrap=lambda network, seed: add_evidence(
                network, num_known=labels.num_known, num_hidden=hidden.num_hidden, weights_seed=seed
            ),
            objective=lambda recipe, device: EvidentialObjective(
                passes=recipe.epochs or USUAL_PASSES, temperature=self._temperature, device=device
            ),
            # The labels hold all that the features decide.
            identity={
                "e2oal": content_hash([labels_N.tolist(), hidden.num_hidden]),
                "temperature": self._temperature,
            },
        )

    def hidden_classes(self, labels: RoundLabels) -> HiddenClasses:
        """The hidden classes of the labelled OOD images."""
        idx = np.concatenate([labels.id_idx, labels.ood_idx])
        known_or_ood = np.concatenate([labels.id_labels, np.full(len(labels.ood_idx), labels.num_known)])
        features_ND = self._rows(idx) if len(labels.ood_idx) else np.empty((len(idx), 0), dtype=np.float32)
        return find_hidden_classes(features_ND, known_or_ood, labels.num_known, seed=labels.seed % 2**32)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What the target network says of some images."""

    margins_N: Floats
    """Largest known minus largest hidden logit of the evidential head; without hidden classes the largest logit."""
    predicted_N: IndexArray
    """Class of the largest logit, 0..A-1."""
    probs_NK: Floats
    """Probabilities of the base head."""


def _look(network: nn.Module, features_ND: NDArray[np.floating]) -> _Look:
    """Both heads' view of images, from their features."""
    assert isinstance(network, EvidentialClassifier)
    heads = [
        (head.weight.detach().double().cpu().numpy(), head.bias.detach().double().cpu().numpy())
        for head in (network.evidence, network.network.head)
    ]
    evidence_NA, base_NK = (features_ND.astype(np.float64) @ weight.T + bias for weight, bias in heads)
    known_N = evidence_NA[:, : network.num_known].max(axis=1)
    hidden_NU = evidence_NA[:, network.num_known :]
    return _Look(
        margins_N=known_N - hidden_NU.max(axis=1) if hidden_NU.shape[1] else known_N,
        predicted_N=evidence_NA.argmax(axis=1).astype(np.int64),
        probs_NK=np.exp(log_softmax(base_NK)),
    )


class E2oal(LearningStrategy):
    """Images that the evidential head separates from hidden OOD classes, and of these the most informative.

    Costs, each round, about 25 k-means of the labelled images' frozen features, the training of a network with two
    heads on all labelled images (for `e2oal-own` that network is the round's classifier), and a pass of it over pool
    and labelled images. Departures from the original code: the round's common classifier is judged and this network
    only queries (`e2oal-own` is judged by it, by the evidential head on the ID classes, as the paper reports, with the
    trial's recipe); the features are the purity step's, not CLIP ViT-B/32's; at most half as many clusters as labelled
    images are tried, and K + 1 always; k-means is seeded by the trial, not by 0; a clustering with a class that has no
    image in its cluster has an agreement of 0 (there NaN, after which the search goes down); hidden classes from the
    first labelled OOD image on; a batch without ID images counts 0 instead of NaN; the mixture starts from k-means of
    the best splits (there of random points); equal posteriors are ordered by margin; the search for the candidates'
    number takes N log Q steps instead of N^2 log N, with the same result; too few candidates are filled up by margin
    instead of under-spending. "official" in `options.e2oal.divergence` is the original's own, which is not
    Jensen-Shannon.
    """

    def __init__(self, rows: Rows, options: E2oalOptions, *, is_own: bool) -> None:
        """`rows` are the frozen features; `is_own`: the round's classifier is the target network."""
        self._rows, self._options, self._is_own = rows, options, is_own

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return min(budget, N) images; the score is the informativeness, for fill-ups the margin minus 1e6."""
        network = view.workshop.classifier if self._is_own else self._train(view, int(rng.integers(2**32)))
        assert isinstance(network, EvidentialClassifier), "E2OAL's query needs its own network"
        num_known, count = len(view.class_names), min(budget, len(view.unlabelled_idx))
        labelled = np.concatenate([view.labelled_id_idx, view.labelled_ood_idx])
        pool, bought = (
            _look(network, checked_outputs(view.workshop.predict(network, idx), idx, kind).features_ND)
            for idx, kind in ((view.unlabelled_idx, "unlabelled"), (labelled, "labelled"))
        )
        known_N = top_posteriors(np.concatenate([bought.margins_N, pool.margins_N]), 3)[len(labelled) :]
        informative_N = informativeness(pool.probs_NK, self._options.divergence)
        target = self._target(view.memory)
        # Posteriors saturate at 1; of equal ones the larger margin comes first.
        order = np.lexsort((-pool.margins_N, -known_N))
        size = candidate_size(known_N[order], informative_N[order], count, target)
        picks, num_filled = query(
            pool.margins_N, pool.predicted_N, informative_N, num_known, size=size, count=count, rng=rng
        )
        is_id_N = pool.predicted_N < num_known
        is_filled = np.arange(len(picks)) >= len(picks) - num_filled
        return Selection(
            idx=view.unlabelled_idx[picks],
            scores=np.where(is_filled, pool.margins_N[picks] - FILL, informative_N[picks]),
            judged_id_idx=view.unlabelled_idx[is_id_N],
            diagnostics={
                "num_judged_id": int(is_id_N.sum()),
                "num_filled": num_filled,
                "num_candidates": size,
                "target_precision": target,
                "num_hidden_classes": network.evidence.out_features - num_known,
            },
        )

    def learn(self, view: PoolView, selection: Selection, answers_Q: IndexArray, rng: np.random.Generator) -> Memory:
        """Aim higher after a query that was less precise than wanted, lower after one that was more."""
        precision = float((answers_Q < len(view.class_names)).mean())
        target = self._target(view.memory) + self._options.precision - precision
        return {"target": [min(1.0, max(0.0, target))]}

    def _target(self, memory: Memory) -> float:
        """The precision to aim at in this query."""
        return float(memory["target"][0]) if "target" in memory else self._options.precision

    def _train(self, view: PoolView, seed: int) -> nn.Module:
        """Train the target network of this round."""
        shop, options = view.workshop, self._options
        recipe = options.recipe(shop.recipe)
        lesson = E2oalTarget(self._rows, temperature=options.temperature).lesson(
            RoundLabels(
                id_idx=view.labelled_id_idx,
                id_labels=view.labelled_id_labels,
                ood_idx=view.labelled_ood_idx,
                num_known=len(view.class_names),
                seed=seed,
            )
        )
        network = lesson.wrap(shop.new_network(len(view.class_names), recipe, "e2oal"), shop.weights_seed("e2oal head"))
        return shop.train(
            lesson.idx,
            lesson.labels_N,
            network=network,
            recipe=recipe,
            name="e2oal",
            objective=lesson.objective(recipe, shop.device),
        )


FILL = 1e6
"""Puts filled-up images behind all others."""
