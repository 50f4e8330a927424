"""Detectors of features and labels against scikit-learn's estimators, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional

from strategies.purity import probe
from strategies.purity.features import (
    Labelled,
    fold_of_each,
    held_out,
    learn_mahalanobis,
    learn_neighbours,
    vote_threshold,
)
from strategies.purity.probe import fit_probe, learn_probe

PROBLEMS = range(50)


def problem(seed: int) -> tuple[Labelled, torch.Tensor]:
    """Labelled unit features around class means with a large common part, as CLIP's are, and others to score."""
    rng = torch.Generator().manual_seed(seed)
    num_classes, dims, num = 1 + seed % 5, 6 + seed % 7, 30 + 5 * (seed % 9)
    means = torch.randn(2 * num_classes, dims, generator=rng) + 2 * torch.randn(dims, generator=rng)
    classes = torch.randint(0, 2 * num_classes, (num + 40,), generator=rng)
    rows = functional.normalize(means[classes] + 0.8 * torch.randn(num + 40, dims, generator=rng), dim=1)
    classes[:2] = torch.tensor([0, num_classes])  # both kinds are there
    labelled = Labelled(features_LD=rows[:num], classes_L=classes[:num].clamp(max=num_classes), num_classes=num_classes)
    return labelled, rows[num:]


def reference_log_odds(labelled: Labelled, others: torch.Tensor, strength: float, *, two: bool) -> np.ndarray:
    """Log odds of ID by scikit-learn's solver."""
    is_id = labelled.is_id_L.numpy()
    num, num_id = len(is_id), is_id.sum()
    weights = np.where(is_id, num / (2 * num_id), num / (2 * (num - num_id)))
    targets = (~is_id).astype(int) if two else labelled.classes_L.numpy()
    fitted = LogisticRegression(C=strength, max_iter=100_000, tol=1e-10)
    fitted.fit(labelled.features_LD.double().numpy(), targets, sample_weight=weights)
    logits = fitted.decision_function(others.double().numpy())
    if logits.ndim == 1:  # of two classes: the log odds of the second, OOD, under half the penalty of two outputs
        return -logits
    return np.logaddexp.reduce(logits[:, :-1], axis=1) - logits[:, -1]


@pytest.mark.parametrize("exact_up_to", [1000, 0])
def test_the_probe_is_the_weighted_logistic_regression(exact_up_to: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "EXACT_UP_TO", exact_up_to)  # float64, and float32
    for seed in PROBLEMS:
        labelled, others = problem(seed)
        if len(labelled.classes_L.unique()) < 3 or len(labelled.classes_L.unique()) <= labelled.num_classes:
            continue  # scikit-learn parametrises two classes by one output, and leaves out absent ones
        strength = (0.1, 1.0, 10.0, 100.0)[seed % 4]
        found = fit_probe(labelled, strength)(others).numpy()
        expected = reference_log_odds(labelled, others, strength, two=False)
        np.testing.assert_allclose(found, expected, atol=2e-3 if exact_up_to else 2e-2, rtol=1e-3)


def test_the_probe_of_two_classes_is_the_binary_regression_at_twice_its_strength() -> None:
    # Two softmax outputs w and -w have the penalty 2 |w|^2 / 2; one output 2 w has 4 |w|^2 / 2: half for the same odds.
    for seed in PROBLEMS:
        labelled, others = problem(seed)
        found = fit_probe(labelled, 1.0, two_classes=True)(others).numpy()
        np.testing.assert_allclose(found, reference_log_odds(labelled, others, 2.0, two=True), atol=2e-3, rtol=1e-3)


def test_the_strength_of_the_best_held_out_decision_is_taken() -> None:
    for seed in (3, 12):
        labelled, others = problem(seed)
        folds = fold_of_each(labelled, 5)
        assert folds is not None
        accuracies = []
        for strength in (0.01, 100.0):
            right = (held_out(labelled, folds, lambda part, c=strength: fit_probe(part, c)) > 0) == labelled.is_id_L
            accuracies.append(right[labelled.is_id_L].double().mean() + right[~labelled.is_id_L].double().mean())
        learnt = learn_probe(labelled, (0.01, 100.0), folds=5, two_classes=False)
        assert learnt is not None
        best = (0.01, 100.0)[int(accuracies[1] > accuracies[0])]
        torch.testing.assert_close(learnt.score(others), fit_probe(labelled, best)(others), atol=5e-3, rtol=1e-2)


def test_no_probe_without_two_images_of_each_kind() -> None:
    labelled, _ = problem(2)
    for keep in (labelled.is_id_L, ~labelled.is_id_L):
        assert learn_probe(labelled.of(keep), (1.0,), folds=5, two_classes=False) is None
    one_ood = torch.cat([labelled.is_id_L.nonzero()[:, 0], (~labelled.is_id_L).nonzero()[:1, 0]])
    assert learn_probe(labelled.of(one_ood), (1.0,), folds=5, two_classes=False) is None


def test_folds_spread_every_class_and_both_kinds() -> None:
    classes = torch.tensor([0] * 10 + [1] * 5 + [2] * 5 + [3] * 7)  # 3: OOD
    labelled = Labelled(features_LD=torch.zeros(27, 2), classes_L=classes, num_classes=3)
    folds = fold_of_each(labelled, 5)
    assert folds is not None
    counts = torch.zeros(5, 4, dtype=torch.int64).index_put_((folds, classes), torch.tensor(1), accumulate=True)
    assert counts[:, 0].tolist() == [2] * 5
    assert counts[:, 1].tolist() == [1] * 5
    assert counts[:, 2].tolist() == [1] * 5
    assert sorted(counts[:, 3].tolist()) == [1, 1, 1, 2, 2]
    few = Labelled(features_LD=torch.zeros(6, 2), classes_L=torch.tensor([0, 1, 2, 0, 3, 3]), num_classes=3)
    assert set(fold_of_each(few, 5).tolist()) == {0, 1}  # as many as the rarer kind has images
    assert fold_of_each(few.of(torch.tensor([0, 1, 4])), 5) is None


def test_a_held_out_score_is_never_of_what_was_learnt_from_the_image() -> None:
    labelled, _ = problem(7)
    folds = fold_of_each(labelled, 5)
    assert folds is not None

    def remember(part: Labelled):  # noqa: ANN202 - a Scorer
        known = {tuple(row.tolist()) for row in part.features_LD}
        return lambda rows: torch.tensor([float(tuple(row.tolist()) in known) for row in rows])

    assert held_out(labelled, folds, remember).tolist() == [0.0] * len(folds)


def test_the_votes_are_those_of_the_nearest_neighbours() -> None:
    for seed in PROBLEMS:
        labelled, others = problem(seed)
        num_neighbours = 1 + seed % 12
        reference = KNeighborsClassifier(num_neighbours, metric="cosine", algorithm="brute")
        reference.fit(labelled.features_LD.double().numpy(), labelled.is_id_L.numpy())
        share = reference.predict_proba(others.double().numpy())[:, 1]
        scores = learn_neighbours(labelled, num_neighbours).score(others).numpy()
        np.testing.assert_allclose(scores, 2 * share - 1, atol=0.4 / num_neighbours + 1e-6)
        threshold = vote_threshold(len(labelled.classes_L), num_neighbours)
        np.testing.assert_array_equal(scores > threshold, share > 0.5)


def test_equal_votes_are_ranked_by_similarity_but_never_above_a_vote() -> None:
    rows = functional.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [1.0, 1.0]]), dim=1)
    labelled = Labelled(features_LD=rows[:2], classes_L=torch.tensor([0, 1]), num_classes=1)
    near_id, between = learn_neighbours(labelled, 10).score(rows[2:]).tolist()
    cosines = (rows[2] @ rows[0] - rows[2] @ rows[1]).item()
    assert near_id == pytest.approx(cosines / (5 * 2), abs=1e-6)
    assert between == pytest.approx(0.0, abs=1e-6)
    assert near_id < vote_threshold(2, 10) == 0.25


def test_a_labelled_image_is_not_its_own_neighbour() -> None:
    rows = functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0]]), dim=1)
    labelled = Labelled(features_LD=rows, classes_L=torch.tensor([0, 1, 1]), num_classes=1)
    held = learn_neighbours(labelled, 1).held_out_L
    assert held is not None
    assert [round(each) for each in held.tolist()] == [-1, 1, -1]


@pytest.mark.parametrize(("kind", "sign"), [(0, 1.0), (1, -1.0)])
def test_with_labels_of_one_kind_the_nearest_five_count(kind: int, sign: float) -> None:
    labelled, others = problem(11)
    one = Labelled(features_LD=labelled.features_LD[:9], classes_L=torch.full((9,), kind), num_classes=1)
    expected = (others @ one.features_LD.T).sort(dim=1).values[:, -5:].mean(dim=1) * sign
    torch.testing.assert_close(learn_neighbours(one, 10).score(others), expected)


def test_without_labels_nothing_is_told_apart() -> None:
    nothing = Labelled(features_LD=torch.zeros(0, 3), classes_L=torch.zeros(0, dtype=torch.int64), num_classes=2)
    learnt = learn_neighbours(nothing, 10)
    assert learnt.score(torch.rand(4, 3)).tolist() == [0.0] * 4
    assert learnt.held_out_L is None
    assert learn_mahalanobis(nothing) is None


@pytest.mark.parametrize("relative", [False, True])
def test_distances_are_those_of_shrunk_covariances(relative: bool) -> None:
    for seed in PROBLEMS:
        labelled, others = problem(seed)
        ids = labelled.is_id_L
        rows, classes = labelled.features_LD[ids].double().numpy(), labelled.classes_L[ids].numpy()
        present = np.unique(classes)
        means = np.stack([rows[classes == c].mean(axis=0) for c in present])
        if len(rows) < 2 * len(present):
            continue
        precision = LedoitWolf(assume_centered=True).fit(rows - means[np.searchsorted(present, classes)]).precision_

        def distance(x: np.ndarray, mean: np.ndarray, inverse: np.ndarray) -> np.ndarray:
            return np.einsum("nd,de,ne->n", x - mean, inverse, x - mean)

        x = others.double().numpy()
        expected = -np.min([distance(x, mean, precision) for mean in means], axis=0)
        if relative:
            pool = LedoitWolf().fit(x)
            expected = expected + distance(x, pool.location_, pool.precision_)
        learnt = learn_mahalanobis(labelled, background_ND=others if relative else None)
        assert learnt is not None
        np.testing.assert_allclose(learnt.score(others).numpy(), expected, rtol=1e-4, atol=1e-3)


def test_with_one_image_per_class_the_distance_is_euclidean() -> None:
    rows = functional.normalize(torch.rand(5, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    labelled = Labelled(features_LD=rows[:3], classes_L=torch.tensor([0, 1, 2]), num_classes=2)
    learnt = learn_mahalanobis(labelled)
    assert learnt is not None
    expected = -torch.cdist(rows[3:], rows[:2]).square().amin(dim=1)
    torch.testing.assert_close(learnt.score(rows[3:]), expected)


def test_held_out_scores_that_begin_at_the_solution_of_all_are_those_of_the_other_folds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "EXACT_UP_TO", 20)  # so that the penalty is chosen on 20 and the starts are used
    num_learnt = 0
    for seed in PROBLEMS[::5]:
        labelled, others = problem(seed)
        learnt, folds = learn_probe(labelled, (1.0,), folds=5, two_classes=False), fold_of_each(labelled, 5)
        if learnt is None or folds is None or learnt.held_out_L is None:
            continue
        num_learnt += 1
        expected = held_out(labelled, folds, lambda part: fit_probe(part, 1.0))
        torch.testing.assert_close(learnt.held_out_L, expected, atol=2e-2, rtol=1e-3)
        torch.testing.assert_close(learnt.score(others), fit_probe(labelled, 1.0)(others), atol=2e-2, rtol=1e-3)
        seen = learnt.score(labelled.features_LD)
        assert (seen - learnt.held_out_L).abs().max() > 0.1  # and are not what was learnt from themselves
    assert num_learnt > 6
