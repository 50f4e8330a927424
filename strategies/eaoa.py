"""EAOA: known by a detector's energy and by reverse neighbours, then the least certain (Zong and Huang, CVPR 2025).

Shapes: N unlabelled images, L labelled images, K ID classes, D features, C = K or K + 1 classes, Q images queried.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.classifier.energy import EnergyObjective
from strategies.base import IndexArray, LearningStrategy, Memory, PoolView, Selection, checked_outputs
from strategies.lfosa import labelled_with_ood
from strategies.numeric.cosines import Floats, unit_rows
from strategies.numeric.gaussian_mixture import fit_mixtures
from strategies.numeric.nearest import nearest_rows
from strategies.options import EaoaOptions

EQUAL = 1e-6
"""Values whose range is smaller are equal: networks round at about that."""


def log_sum_exp(values_NC: NDArray[np.floating]) -> Floats:
    """Logarithm (N,) of the sum of exponentials of each row; minus infinity without a column."""
    values = values_NC.astype(np.float64)
    top_N = values.max(axis=1, initial=-1e300)
    with np.errstate(divide="ignore"):
        result: Floats = top_N + np.log(np.exp(values - top_N[:, None]).sum(axis=1))
    return result


def softplus(values_N: NDArray[np.floating]) -> Floats:
    """Logarithm (N,) of 1 + e^x; the original's form overflows in float32 from x = 89."""
    result: Floats = np.logaddexp(0.0, values_N.astype(np.float64))
    return result


def detector_energies(logits_NK1: NDArray[np.floating]) -> Floats:
    """Energy (N,) of the known logits plus softplus of the OOD logit; low for images that look known."""
    return softplus(logits_NK1[:, -1]) - log_sum_exp(logits_NK1[:, :-1])


def reverse_counts(
    pool_ND: NDArray[np.floating], labelled_LD: NDArray[np.floating], labels_L: IndexArray, num_classes: int, reach: int
) -> NDArray[np.int64]:
    """Number (N, C) of labelled images of each class that have the image among their `reach` nearest of the pool."""
    counts_NC = np.zeros((len(pool_ND), num_classes), dtype=np.int64)
    rows_ND, rows_LD = (unit_rows(part).astype(np.float32) for part in (pool_ND, labelled_LD))
    for part, nearest_Bk, _ in nearest_rows(rows_LD, rows_ND, min(reach, len(pool_ND))):
        np.add.at(counts_NC, (nearest_Bk, labels_L[part, None]), 1)
    return counts_NC


def neighbour_energies(counts_NC: NDArray[np.int64], num_labelled_C: IndexArray) -> Floats:
    """Energy (N,) of the reverse neighbours' counts over the K ID classes and OOD, each relative to the class's size.

    `num_labelled_C` (K + 1,) are the labelled images of each class, OOD last; the size is relative to the ID classes'
    mean. A class without a labelled image counts 0, and while no OOD image is labelled its term is absent.
    """
    sizes_C = num_labelled_C / max(num_labelled_C[:-1].mean(), EQUAL)
    relative_NC = np.where(num_labelled_C > 0, counts_NC / np.where(num_labelled_C > 0, sizes_C, 1.0), 0.0)
    energy_N = -log_sum_exp(relative_NC[:, :-1])
    return energy_N + softplus(relative_NC[:, -1]) if num_labelled_C[-1] else energy_N


def aleatoric(logits_NK: NDArray[np.floating]) -> Floats:
    """Logarithm (N,) of 1 minus the largest probability; 0 for all images if there is one class."""
    if logits_NK.shape[1] == 1:
        return np.zeros(len(logits_NK))
    logits = logits_NK.astype(np.float64)
    others_NK = np.sort(logits, axis=1)[:, :-1]
    return log_sum_exp(others_NK) - log_sum_exp(logits)


def posteriors(values_N: Floats, *, of_larger: bool) -> Floats:
    """Posterior (N,) of the component with the larger (or smaller) mean of two Gaussians; 0.5 if all are equal."""
    spread = float(np.ptp(values_N)) if len(values_N) else 0.0
    if spread <= EQUAL:
        return np.full(len(values_N), 0.5)
    scaled_N = (values_N - values_N.min()) / spread
    odds_N = fit_mixtures(scaled_N, np.zeros(len(values_N), dtype=np.int64), 1).log_odds_N
    result: Floats = np.exp(-softplus(-odds_N if of_larger else odds_N))
    return result


def class_candidates(
    predicted_N: IndexArray, known_N: Floats, doubt_N: Floats, tie_N: Floats, *, share: int, width: int
) -> IndexArray:
    """Positions of, in each predicted class, the `share` most doubtful of its `share * width` most surely known.

    Equal doubts are decided by `tie_N`, then by the lowest position; classes follow one another.
    """
    taken = []
    for label in np.unique(predicted_N):
        members = np.flatnonzero(predicted_N == label)
        surest = members[np.argsort(-known_N[members], kind="stable")][: share * width]
        taken.append(surest[np.lexsort((surest, -tie_N[surest], -doubt_N[surest]))][:share])
    return np.concatenate(taken)


class Eaoa(LearningStrategy):
    """Picks, in each predicted class, the least certain of the images that most surely are known.

    How many images count as surely known follows the precision of the last query. Costs the training of a detector
    each round (K + 1 classes, on labelled ID and OOD images), one pass of it over the pool and the labelled images,
    one product of their features, and three mixtures of two Gaussians. Its aleatoric part is exactly ln(1 - p) of the
    best class, so CONF's order. Departures from the original code: a batch without ID or without OOD images counts 0
    for that part (there NaN), the energies are computed by softplus (there they overflow), the labelled images'
    features are clean (there augmented), mixtures start from the best split (there from chance), saturated posteriors
    are ranked by the uncertainty itself, a class without labels counts 0 (there 0 / 0), a class's size is relative to
    the mean of the K ID classes also while no OOD image is labelled (there to that of K + 1, one of them empty, so that
    the first query's counts are smaller by K / (K + 1) than the later ones'), a small predicted class gives what it has
    and the budget is filled up by the purity (there the query ends in an error or stays short), and the detector is the
    common ResNet-18.
    """

    def __init__(self, options: EaoaOptions) -> None:
        self._options = options

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return min(budget, N) images, the most doubtful first; the score is the posterior of doubt.

        The score of an image that fills up is its purity minus 1, at most 0.
        """
        logits_NK = view.outputs().logits_NK
        energy_N, reverse_N = self._energies(view)
        known_N = posteriors(energy_N, of_larger=False) * posteriors(reverse_N, of_larger=False)
        tie_N = aleatoric(logits_NK)
        doubt_N = posteriors(tie_N, of_larger=True)
        width, share = self._width(view.memory), -(-budget // len(view.class_names))
        picks = class_candidates(
            logits_NK.argmax(axis=1).astype(np.int64), known_N, doubt_N, tie_N, share=share, width=width
        )
        if len(picks) > budget:  # K shares are rounded up
            picks = rng.permutation(picks)[:budget]
        picks = picks[np.lexsort((picks, -tie_N[picks], -doubt_N[picks]))]
        others = np.setdiff1d(np.arange(len(known_N)), picks)
        fill = others[np.argsort(-known_N[others], kind="stable")][: budget - len(picks)]
        return Selection(
            idx=view.unlabelled_idx[np.concatenate([picks, fill])],
            scores=np.concatenate([doubt_N[picks], known_N[fill] - 1.0]),
            diagnostics={"width": width, "num_filled": len(fill)},
        )

    def learn(self, view: PoolView, selection: Selection, answers_Q: IndexArray, rng: np.random.Generator) -> Memory:
        """Return the width of the next candidate set: wider after a query of high precision, narrower after a low."""
        width, options = self._width(view.memory), self._options
        # Rounded: 0.65 - 0.6 is more than 0.05 in binary, and that precision is within the tolerance.
        excess = round(float(np.mean(answers_Q < len(view.class_names))) - options.precision, 9)
        if abs(excess) > options.tolerance:
            width = width + 1 if excess > 0 else max(1, width - 1)
        return {"kt": [float(width)]}

    def _width(self, memory: Memory) -> int:
        return int(memory["kt"][-1]) if memory else self._options.width

    def _energies(self, view: PoolView) -> tuple[Floats, Floats]:
        """Both parts (N,) of the epistemic uncertainty, by a detector trained on all labelled images."""
        shop, options, num_known = view.workshop, self._options, len(view.class_names)
        idx, labels_L = labelled_with_ood(view)
        recipe = options.recipe(shop.recipe)
        has_ood = len(view.labelled_ood_idx) > 0
        objective = EnergyObjective(
            weight=options.energy_weight if has_ood else 0.0,
            known=options.known_energy,
            unknown=options.unknown_energy,
            temperature=options.temperature,
        )
        network = shop.new_network(num_known + 1, recipe, "eaoa")
        detector = shop.train(idx, labels_L, network=network, recipe=recipe, name="eaoa", objective=objective)
        pool = checked_outputs(shop.predict(detector, view.unlabelled_idx), view.unlabelled_idx, "unlabelled")
        labelled = checked_outputs(shop.predict(detector, idx), idx, "labelled")
        counts_NC = reverse_counts(pool.features_ND, labelled.features_ND, labels_L, num_known + 1, options.neighbours)
        sizes_C = np.bincount(labels_L, minlength=num_known + 1)
        return detector_energies(pool.logits_NK), neighbour_energies(counts_NC, sizes_C)
