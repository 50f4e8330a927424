"""E2OAL: its parts against values of the official functions (tests/golden/strategies_next), and by hand."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.classifier.evidential import EvidentialObjective, add_evidence, evidential_loss
from models.classifier.networks import build_classifier
from models.classifier.target import RoundLabels
from strategies.base import Selection
from strategies.check import RECIPE, toy_view
from strategies.e2oal import E2oal, E2oalTarget, _look, candidate_size, divergence, informativeness, query
from strategies.numeric.gaussian_mixture import _runs, top_posteriors
from strategies.numeric.hidden_classes import agreement, find_hidden_classes, ternary_search
from strategies.options import E2oalOptions

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "golden" / "strategies_next" / "check_values.json").read_text()
)


@pytest.mark.parametrize(("kind", "name"), [("official", "e2oal_js"), ("jensen-shannon", "true_js")])
def test_divergences_are_the_references(kind: Any, name: str) -> None:
    golden, probs = GOLDEN[name], np.array(GOLDEN["e2oal_js"]["probs"])
    certain = np.eye(3)[probs.argmax(axis=1)]
    np.testing.assert_allclose(divergence(probs, certain, kind), golden["to_onehot"], atol=1e-6)
    np.testing.assert_allclose(divergence(probs, np.full_like(probs, 1 / 3), kind), golden["to_uniform"], atol=1e-6)
    np.testing.assert_allclose(informativeness(probs, kind), golden["U"], atol=1e-6)


def test_evidential_loss_is_the_reference() -> None:
    golden = GOLDEN["edl"]
    logits, labels = torch.tensor(golden["logits"]), torch.tensor(golden["labels"])
    for epoch in (0, 5, 20):
        loss = evidential_loss(logits, labels, min(1.0, epoch / 10)).item()
        assert loss == pytest.approx(golden[f"loss_epoch_{epoch}"], abs=1e-6)


def test_logits_of_the_evidential_head_are_cut_at_10() -> None:
    labels = torch.tensor([0])
    assert evidential_loss(torch.tensor([[500.0, -500.0]]), labels, 1.0) == evidential_loss(
        torch.tensor([[10.0, -10.0]]), labels, 1.0
    )


def test_agreement_of_clusters_is_the_reference() -> None:
    golden = GOLDEN["e2oal_f1_product"]
    labels, clusters = np.array(golden["true (2 = OOD)"]), np.array(golden["cluster"])
    score, match = agreement(clusters, labels, 2)
    assert score == pytest.approx(golden["objective"], abs=1e-6)
    assert match == {known: cluster for cluster, known in golden["match"] if known < 2}


@pytest.mark.parametrize(
    ("clusters", "labels"),
    [
        ([0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 1, 1]),  # no OOD image
        ([0, 0, 1, 1, 2, 2], [0, 0, 2, 2, 2, 2]),  # a known class without images
        ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2]),  # fewer clusters than labels
    ],
)
def test_agreement_that_is_not_defined_is_0(clusters: list[int], labels: list[int]) -> None:
    assert agreement(np.array(clusters), np.array(labels), 2)[0] == 0.0


@pytest.mark.parametrize("target", GOLDEN["e2oal_threshold"]["k_for_target"])
def test_number_of_candidates_is_the_reference(target: str) -> None:
    golden = GOLDEN["e2oal_threshold"]
    known, informative = np.array(golden["p"]), np.array(golden["u"])
    order = np.argsort(-known, kind="stable")
    size = candidate_size(known[order], informative[order], golden["q"], float(target))
    assert size == golden["k_for_target"][target]


def plain_candidate_size(known: NDArray[Any], informative: NDArray[Any], count: int, target: float) -> int:
    """The same from its definition, with a sort for every number of candidates."""
    if target > 0:
        for size in range(count, len(known) + 1):
            best = np.argsort(-informative[:size], kind="stable")[:count]
            if math.floor(math.fsum(known[best])) <= target * count:
                return size
    return len(known)


def test_number_of_candidates_by_heap_is_that_of_the_plain_search() -> None:
    rng = np.random.default_rng(0)
    for case in range(60):
        num, count = int(rng.integers(1, 120)), int(rng.integers(1, 20))
        known = np.sort(rng.random(num).round(case % 4 + 1))[::-1]
        informative = rng.random(num).round(case % 3 + 1)  # with ties
        for target in (0.0, 0.3, 0.6, 0.9, 1.0):
            expected = plain_candidate_size(known, informative, count, target)
            assert candidate_size(known, informative, count, target) == expected


def test_number_of_candidates_takes_a_tenth_of_a_second_for_25000_images() -> None:
    rng = np.random.default_rng(1)
    known, informative = np.sort(rng.random(25_000))[::-1], np.arange(25_000) / 25_000  # every image enters the heap
    start = time.process_time()
    size = candidate_size(known, informative, 500, 1e-9)
    assert time.process_time() - start < 0.1
    assert size > 24_000


def test_posteriors_of_three_clear_groups() -> None:
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(mean, 0.1, 50) for mean in (0.0, 3.0, 10.0)])
    posteriors = top_posteriors(values, 3)
    np.testing.assert_allclose(posteriors[:100], 0.0, atol=1e-12)
    np.testing.assert_allclose(posteriors[100:], 1.0, atol=1e-12)
    np.testing.assert_allclose(top_posteriors(values[::-1], 3)[::-1], posteriors, atol=1e-12)


def test_runs_are_those_of_k_means_by_hand() -> None:
    """0 to 11: the splits give 3, 3 and 6 values of means 1, 4 and 8.5; 6 is nearer to 4, and then all is settled."""
    shares = _runs(np.array([6.0, 0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]), 3)
    assert sorted(np.flatnonzero(row).tolist() for row in shares) == [[0, 4, 5, 6], [1, 2, 3], [7, 8, 9, 10, 11]]
    assert shares.sum(axis=0).tolist() == [1.0] * 12
    # Two different values fill two of three runs.
    assert sorted(_runs(np.array([5.0, 1.0, 5.0]), 3).sum(axis=1).tolist()) == [0.0, 1.0, 2.0]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_posteriors_are_those_of_scikit_learn_from_the_same_start() -> None:
    from sklearn.mixture import GaussianMixture

    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0, 1, 300), rng.normal(2, 1, 200), rng.normal(5, 1, 100)])
    runs = [values[shares > 0] for shares in _runs(values, 3)]
    assert sum(map(len, runs)) == len(values)
    spans = sorted((run.min(), run.max()) for run in runs)
    assert all(before[1] < after[0] for before, after in pairwise(spans))
    model = GaussianMixture(
        3,
        max_iter=10,
        tol=1e-2,
        reg_covar=5e-4,
        weights_init=[len(run) / len(values) for run in runs],
        means_init=[[run.mean()] for run in runs],
        precisions_init=[[[1 / (run.var() + 5e-4)]] for run in runs],
    ).fit(values[:, None])
    expected = model.predict_proba(values[:, None])[:, model.means_[:, 0].argmax()]
    np.testing.assert_allclose(top_posteriors(values, 3), expected, atol=1e-9)


@pytest.mark.parametrize("values", [[1.0] * 5, [2.0], [0.0, 1.0]])
def test_posteriors_of_few_or_equal_values_are_finite(values: list[float]) -> None:
    posteriors = top_posteriors(np.array(values), 3)
    assert np.isfinite(posteriors).all()
    assert len(set(values)) > 1 or posteriors.tolist() == [1 / 3] * len(values)


def test_search_goes_to_the_peak_and_knows_the_first_number() -> None:
    asked: list[int] = []

    def peak(k: int) -> float:
        asked.append(k)
        return -abs(k - 700.0)

    assert ternary_search(peak, 3, 1000) == 700
    assert len(set(asked)) < 35
    assert ternary_search(lambda k: 1.0 if k == 3 else peak(k), 3, 1000) == 3
    assert ternary_search(lambda k: 0.0, 3, 4) == 3


def test_hidden_classes_of_clear_groups() -> None:
    rng = np.random.default_rng(4)
    centres = np.eye(8)
    groups = np.repeat(np.arange(5), 12)  # 0 and 1 are known; 2, 3, 4 are hidden
    features = centres[groups] + rng.normal(0, 0.02, (60, 8))
    labels = np.minimum(groups, 2)
    found = find_hidden_classes(features, labels, 2, seed=0)
    assert (found.num_hidden, found.objective) == (3, 1.0)
    of_group = [set(found.labels[groups[groups >= 2] == group].tolist()) for group in (2, 3, 4)]
    assert [len(each) for each in of_group] == [1, 1, 1]
    assert len(set.union(*of_group)) == 3


@pytest.mark.parametrize(("num_ood", "expected"), [(0, 0), (1, 1), (3, 1)])
def test_too_few_images_to_cluster_are_one_hidden_class(num_ood: int, expected: int) -> None:
    features = np.ones((4 + num_ood, 3))
    labels = np.array([0, 1, 0, 1] + [2] * num_ood)
    found = find_hidden_classes(features, labels, 2, seed=0)
    assert (found.num_hidden, found.labels.tolist()) == (expected, [0] * num_ood)


def test_query_takes_the_most_informative_of_each_class_and_fills_by_margin() -> None:
    margins = np.array([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
    predicted = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])  # class 2 is hidden
    informative = np.array([0.1, 0.2, 0.3, 0.9, 0.5, 0.4, 1.0, 1.0, 1.0, 1.0])

    def picks(size: int, count: int) -> tuple[list[int], int]:
        rng = np.random.default_rng(0)
        found, filled = query(margins, predicted, informative, 2, size=size, count=count, rng=rng)
        return found.tolist(), filled

    assert picks(6, 4) == ([4, 5, 2, 1], 0)  # of class 0 the 3 nearest and of these the 2 most informative
    assert picks(8, 4) == ([3, 4, 5, 2], 0)
    assert picks(8, 6) == ([3, 4, 5, 2, 1, 0], 1)  # class 1 has 2 images only: the largest margin of the others
    assert picks(8, 10)[0] == [3, 4, 5, 2, 1, 0, 6, 7, 8, 9]
    one, filled = picks(8, 3)
    assert (len(one), filled) == (3, 0)
    assert set(one) < {3, 4, 5, 2}


def test_ties_of_the_query_go_to_the_lowest_index() -> None:
    margins, equal = np.array([1.0, 3.0, 2.0, 4.0]), np.ones(4)
    found, _ = query(margins, np.zeros(4, dtype=np.int64), equal, 1, size=3, count=2, rng=np.random.default_rng(0))
    assert found.tolist() == [1, 2]  # of images 3, 1 and 2, those of largest margin


@torch.no_grad()
def test_margin_is_the_best_known_minus_the_best_hidden_logit() -> None:
    network = add_evidence(build_classifier(RECIPE, 2, weights_seed=0), num_known=2, num_hidden=2, weights_seed=0)
    for head, weight in ((network.evidence, torch.eye(4, 8)), (network.network.head, torch.eye(2, 8))):
        head.weight.copy_(weight)
        head.bias.zero_()
    look = _look(network, np.array([[1.0, 2.0, 0.5, -1.0], [1.0, 0.0, 3.0, 4.0]]) @ np.eye(4, 8))
    assert look.margins_N.tolist() == [1.5, -3.0]
    assert look.predicted_N.tolist() == [1, 3]
    odds = math.exp(-1)  # the base head has the first two as its logits
    np.testing.assert_allclose(look.probs_NK[1], [1 / (1 + odds), odds / (1 + odds)])
    alone = add_evidence(build_classifier(RECIPE, 2, weights_seed=0), num_known=2, num_hidden=0, weights_seed=0)
    alone.evidence.weight.copy_(torch.eye(2, 8))
    alone.evidence.bias.zero_()
    assert _look(alone, np.array([[1.0, 2.0]]) @ np.eye(2, 8)).margins_N.tolist() == [2.0]


def test_target_follows_the_last_precision() -> None:
    strategy = E2oal(lambda idx: np.zeros((len(idx), 2), dtype=np.float32), E2oalOptions(), is_own=False)
    view, nothing = toy_view(), Selection(idx=np.arange(4), scores=np.zeros(4))

    def learnt(answers: list[int], memory: dict[str, list[float]]) -> float:
        seen = replace(view, memory=memory)
        (target,) = strategy.learn(seen, nothing, np.array(answers), np.random.default_rng(0))["target"]
        return target

    assert learnt([0, 1, 2, 3], {}) == pytest.approx(0.45)  # 3 of 4 are known: 0.6 + 0.6 - 0.75
    assert learnt([3, 3, 3, 0], {"target": [0.45]}) == pytest.approx(0.8)
    assert learnt([3, 3, 3, 3], {"target": [0.8]}) == 1.0
    assert learnt([0, 0, 0, 0], {"target": [0.1]}) == 0.0


def _lesson(num_ood: int) -> Any:
    labels = RoundLabels(
        id_idx=np.array([4, 7, 9]), id_labels=np.array([0, 1, 1]), ood_idx=np.arange(20, 20 + num_ood), num_known=2,
        seed=0,
    )  # fmt: skip
    return E2oalTarget(lambda idx: np.zeros((len(idx), 2), dtype=np.float32), temperature=1.0).lesson(labels)


def test_a_lesson_trains_on_all_labelled_images() -> None:
    lesson = _lesson(2)
    assert lesson.idx.tolist() == [4, 7, 9, 20, 21]
    assert lesson.labels_N.tolist() == [0, 1, 1, 2, 2]
    network = lesson.wrap(build_classifier(RECIPE, 2, weights_seed=0), 3)
    assert (network.evidence.out_features, network.network.head.out_features) == (3, 2)
    logits, features = network(torch.zeros(4, 3, 8, 8))
    assert torch.equal(logits, network.evidence(features)[:, :2])
    assert _lesson(0).wrap(build_classifier(RECIPE, 2, weights_seed=0), 3).evidence.out_features == 2
    assert _lesson(2).identity != _lesson(3).identity


@torch.no_grad()
def test_objective_counts_a_batch_without_id_images_as_0() -> None:
    network = add_evidence(build_classifier(RECIPE, 2, weights_seed=0), num_known=2, num_hidden=1, weights_seed=0)
    objective = EvidentialObjective(passes=20, temperature=1.0, device=torch.device("cpu"))
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    base, evidence = network.eval().heads(network(images)[1])

    def loss(labels: list[int], done: float) -> float:
        objective.prepare(network, done)
        return float(objective.loss(network, images, torch.tensor(labels), torch.arange(6)))

    for done, weight in ((0.0, 0.0), (0.25, 0.5), (0.75, 1.0)):  # passes 0, 5 and 15 of 20
        alone = float(evidential_loss(evidence, torch.tensor([2] * 6), weight))
        assert loss([2] * 6, done) == pytest.approx(alone, abs=1e-6)
    weight_tensor = objective._weight
    objective.prepare(network, 0.75)
    assert objective._weight is weight_tensor  # recorded steps read it where it lay
    mixed = torch.tensor([0, 1, 2, 2, 2, 1])
    entropy = torch.nn.functional.cross_entropy(base[mixed < 2], mixed[mixed < 2])
    expected = float(entropy + evidential_loss(evidence, mixed, 1.0))
    assert loss(mixed.tolist(), 0.75) == pytest.approx(expected, abs=1e-5)
