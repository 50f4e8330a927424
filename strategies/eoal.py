"""EOAL: low entropy of the known classes' classifiers, high entropy over OOD clusters (Safaei et al., AAAI 2024).

Shapes: N unlabelled images, K ID classes, D features, C clusters, Q images queried.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.classifier.open_set import OpenSetDetector, OpenSetObjective, build_detector
from models.classifier.outputs import ClassifierOutputs
from strategies.base import IndexArray, PoolView, Selection, Strategy, checked_outputs
from strategies.lfosa import labelled_with_ood
from strategies.numeric.finch import cluster_means, clusters_of_number, finch
from strategies.options import EoalOptions
from strategies.uncertainty import entropies

Floats = NDArray[np.float64]


def known_entropies(binary_N2K: NDArray[np.floating]) -> Floats:
    """Mean entropy (N,) of the K binary classifiers' logits (N, 2, K) in nats, in [0, ln 2]."""
    num, _, num_known = binary_N2K.shape
    pairs = binary_N2K.transpose(0, 2, 1).reshape(-1, 2)
    result: Floats = entropies(pairs).reshape(num, num_known).mean(axis=1)
    return result


def unknown_entropies(features_ND: NDArray[np.floating], centres_CD: NDArray[np.floating]) -> Floats:
    """Entropy (N,) of softmax(-distance to the centres of OOD clusters) in nats, in [0, ln C]."""
    features, centres = features_ND.astype(np.float64), centres_CD.astype(np.float64)
    distances_NC = np.stack([np.linalg.norm(features - centre_D, axis=1) for centre_D in centres], axis=1)
    return entropies(-distances_NC)


def query_scores(known_N: Floats, unknown_N: Floats | None, num_clusters: int) -> Floats:
    """Scores (N,), the lowest queried first: known entropy / ln 2 minus unknown entropy / ln C.

    `unknown_N` is None without OOD images; with a single cluster it counts as 0.
    """
    scores: Floats = known_N / np.log(2)
    # ln 1 = 0: a single cluster has no entropy to divide by it.
    if unknown_N is not None and num_clusters > 1:
        scores = scores - unknown_N / np.log(num_clusters)
    return scores


def lowest_known_first(
    scores_N: Floats, is_known_N: NDArray[np.bool_], count: int, levels: Sequence[IndexArray] | None
) -> IndexArray:
    """Positions (Q,) of the query in the order taken; Q = min(count, N).

    `levels` are the cluster numbers of the images predicted known at each level, finest first: the query goes round the
    clusters of the finest level with at most `count`, from each taking its share of the lowest scores; None: by score
    only. Images predicted unknown fill up, by score. Ties go to the lowest position.
    """
    known = np.flatnonzero(is_known_N)
    count = min(count, len(scores_N))
    by_score = known[np.argsort(scores_N[known], kind="stable")]
    taken = by_score[:count]
    if levels is not None and len(known):
        fitting = [labels for labels in levels if labels.max() + 1 <= count]
        if fitting:
            taken = _round_the_clusters(scores_N, known, fitting[0], min(count, len(known)))
    others = np.flatnonzero(~is_known_N)
    fill = others[np.argsort(scores_N[others], kind="stable")][: count - len(taken)]
    return np.concatenate([taken, fill]).astype(np.int64)


def _round_the_clusters(scores_N: Floats, known: IndexArray, labels: IndexArray, count: int) -> IndexArray:
    """Positions taken in turns: from each cluster, in order of number, the next few of lowest score."""
    num_clusters = int(labels.max()) + 1
    share = count // num_clusters
    members = [known[labels == number] for number in range(num_clusters)]
    waiting = [list(group[np.argsort(scores_N[group], kind="stable")]) for group in members]
    taken: list[int] = []
    while len(taken) < count:
        for queue in waiting:
            num = min(share, count - len(taken))
            taken.extend(queue[:num])
            del queue[:num]
    return np.array(taken, dtype=np.int64)


class Eoal(Strategy):
    """The lowest closed-set minus distance-based entropy, going round clusters of the images predicted known.

    Costs the training of a detector with binary classifiers each round (on labelled ID and OOD images, with a
    clustering of the OOD features before every pass), one pass of it over the pool, and a clustering of the images
    predicted known. Departures from the original code: a batch without OOD or without ID images counts 0 for that part
    instead of NaN, fewer clusters than K are accepted, the pool and the OOD images are scored without
    augmentation, the centres are those after the last pass, FINCH is the variant of release 0.2.3
    (`options.eoal.finch`), a single cluster of OOD images has an unknown entropy of 0 (there 0 / 0), and the detector
    is the common ResNet-18. Without labelled OOD images there is no unknown entropy.
    """

    def __init__(self, options: EoalOptions) -> None:
        self._options = options

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return min(budget, N) images in the order taken; the score is the (lowest first) difference of entropies."""
        num_known = len(view.class_names)
        detector = self._train(view)
        outputs = checked_outputs(
            view.workshop.predict(detector, view.unlabelled_idx), view.unlabelled_idx, "unlabelled"
        )
        known_N = known_entropies(_binary_logits(detector, outputs, num_known))
        unknown_N, num_clusters = None, 0
        if len(view.labelled_ood_idx):
            ood_ND = view.workshop.predict(detector, view.labelled_ood_idx).features_ND
            # Clustered again after the last pass: the centres that the training used are those before it.
            centres_CD, _ = self._cluster(ood_ND, num_known)
            unknown_N, num_clusters = unknown_entropies(outputs.features_ND, centres_CD), len(centres_CD)
        scores_N = query_scores(known_N, unknown_N, num_clusters)
        is_known_N = outputs.logits_NK.argmax(axis=1) < num_known
        levels = None
        if self._options.diversity and is_known_N.any():
            levels = finch(outputs.features_ND[is_known_N], self._options.finch)
        picks = lowest_known_first(scores_N, is_known_N, budget, levels)
        return Selection(
            idx=view.unlabelled_idx[picks],
            scores=scores_N[picks],
            judged_id_idx=view.unlabelled_idx[is_known_N],
            diagnostics={
                "num_judged_id": int(is_known_N.sum()),
                "num_filled": int((~is_known_N[picks]).sum()),
                "num_ood_clusters": num_clusters,
            },
        )

    def _train(self, view: PoolView) -> nn.Module:
        """Train the detector of this round."""
        shop, options, num_known = view.workshop, self._options, len(view.class_names)
        idx, labels = labelled_with_ood(view)
        recipe = options.recipe(shop.recipe)
        objective = OpenSetObjective(
            num_known=num_known,
            is_ood_N=torch.from_numpy(labels == num_known).to(shop.device),
            ood_features=lambda network: torch.from_numpy(shop.predict(network, view.labelled_ood_idx).features_ND),
            cluster=lambda features: _on_device(self._cluster(features.numpy(), num_known), shop.device),
            temperature=options.temperature,
            alpha=options.alpha,
            regulariser=options.regulariser,
        )
        network = build_detector(
            shop.new_network(num_known + 1, recipe, "eoal"), num_known, weights_seed=shop.weights_seed("eoal")
        )
        return shop.train(idx, labels, network=network, recipe=recipe, name="eoal", objective=objective)

    def _cluster(self, features_ND: NDArray[np.floating], num_known: int) -> tuple[Floats, IndexArray]:
        """Centres (C, D) and cluster numbers of OOD features; as many clusters as ID classes, or what FINCH finds."""
        if not np.isfinite(features_ND).all():
            raise ArithmeticError("EOAL's detector diverged: lower options.eoal.learning_rate")
        labels = clusters_of_number(features_ND, num_known, self._options.finch)
        return cluster_means(features_ND.astype(np.float64), labels), labels


def _binary_logits(detector: nn.Module, outputs: ClassifierOutputs, num_known: int) -> NDArray[np.float32]:
    """The binary classifiers' logits (N, 2, K) from the features."""
    assert isinstance(detector, OpenSetDetector)
    weight = detector.binary.weight.detach().float().cpu().numpy()
    logits: NDArray[np.float32] = (outputs.features_ND @ weight.T).reshape(len(outputs.features_ND), 2, num_known)
    return logits


def _on_device(clusters: tuple[Floats, IndexArray], device: torch.device) -> tuple[Tensor, Tensor]:
    centres_CD, labels = clusters
    return torch.from_numpy(centres_CD).float().to(device), torch.from_numpy(labels).to(device)
