"""MARGIN, ENTROPY, LL, Monte-Carlo dropout, BADGE, AlphaMix and ProbCover by hand-made cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.classifier.outputs import ClassifierOutputs, LinearHead
from strategies import monte_carlo, probcover
from strategies.alphamix import least_step, mixing_to_flip, nearest_to_centres
from strategies.badge import gradient_factors, kmeans_plus_plus
from strategies.check import toy_view
from strategies.learning_loss import LearningLoss
from strategies.monte_carlo import dropout_logits, mean_deviation, mutual_information, variation_ratio
from strategies.options import LearningLossOptions, MonteCarloOptions
from strategies.probcover import count_neighbours, greedy_cover, radius_for_purity
from strategies.uncertainty import entropies, margins
from tests.strategies.views import select


def logits_of(probabilities: list[list[float]]) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.array(probabilities, dtype=np.float64)).clip(min=-1000)


def test_entropy_and_margin() -> None:
    logits = logits_of([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.6, 0.3, 0.1]])
    np.testing.assert_allclose(entropies(logits)[:2], [np.log(2), 0.0], atol=1e-12)
    np.testing.assert_allclose(margins(logits), [0.0, 1.0, 0.3], atol=1e-12)
    assert margins(np.zeros((2, 1))).tolist() == [1.0, 1.0]


def test_entropy_and_margin_take_the_least_sure() -> None:
    view = toy_view()
    logits = view.outputs().logits_NK
    assert select("entropy", view, 1).idx[0] == view.unlabelled_idx[entropies(logits).argmax()]
    assert select("margin", view, 1).idx[0] == view.unlabelled_idx[margins(logits).argmin()]


def test_ll_takes_the_largest_predicted_losses() -> None:
    view = toy_view()
    losses = view.outputs().predicted_losses_N
    assert losses is not None
    expected = view.unlabelled_idx[np.argsort(-losses, kind="stable")[:5]]
    np.testing.assert_array_equal(select("ll", view, 5).idx, expected)


def test_ll_looks_at_a_random_subset() -> None:
    view = toy_view()
    losses = view.outputs().predicted_losses_N
    assert losses is not None
    strategy = LearningLoss(LearningLossOptions(subset=10))
    picks = [tuple(strategy.select(view, 3, np.random.default_rng(seed)).idx) for seed in range(30)]
    assert len(set(picks)) > 5
    best = view.unlabelled_idx[losses.argmax()]
    found = sum(best in pick for pick in picks) / 30
    assert 0.02 < found < 0.5  # 10 of 49 are looked at
    assert len(strategy.select(view, 15, np.random.default_rng(0)).idx) == 15


def test_measures_of_disagreement() -> None:
    sure = np.tile(logits_of([[1.0, 0.0]]), (2, 1, 1))
    opposed = np.stack([logits_of([[1.0, 0.0]]), logits_of([[0.0, 1.0]])])
    unsure = np.tile(logits_of([[0.5, 0.5]]), (2, 1, 1))
    for measure, expected in (
        (mutual_information, (0.0, np.log(2), 0.0)),
        (mean_deviation, (0.0, 0.5, 0.0)),
        (variation_ratio, (0.0, 0.5, 0.0)),
    ):
        given = [measure(logits)[0] for logits in (sure, opposed, unsure)]
        np.testing.assert_allclose(given, expected, atol=1e-12)


def test_dropout_keeps_the_mean_and_drops_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monte_carlo, "BLOCK", 2)
    head = LinearHead(weight_KD=np.eye(4, dtype=np.float32), bias_K=np.full(4, 5, dtype=np.float32))
    features = np.ones((3, 4), dtype=np.float32)
    outputs = ClassifierOutputs(logits_NK=features, features_ND=features, head=head)
    options = MonteCarloOptions(passes=4000, rate=0.25)
    blocks = list(dropout_logits(outputs, options, np.random.default_rng(0)))
    assert [block.shape for block in blocks] == [(4000, 2, 4), (4000, 1, 4)]
    values = blocks[0] - 5
    assert set(np.round(np.unique(values), 6).tolist()) == {0.0, round(1 / 0.75, 6)}
    assert (values == 0).mean() == pytest.approx(0.25, abs=0.01)


def test_badge_factors_are_the_gradient_of_the_predicted_class() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]], requires_grad=True)
    torch.nn.functional.cross_entropy(logits, logits.argmax(dim=1)).backward()
    assert logits.grad is not None
    torch.testing.assert_close(gradient_factors(logits.detach()), logits.grad)


def test_badge_distances_are_those_of_the_outer_products() -> None:
    """The pick after the first is drawn by D^2 of gradient embeddings: impossible for a copy of the first."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    features = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    factors[1], features[1] = factors[0] * 2, features[0] / 2  # the same outer product
    factors[3] *= 2
    embedding = torch.einsum("nk,nd->nkd", factors, features).flatten(1)
    first = int(embedding.norm(dim=1).argmax())
    squared = (embedding - embedding[first]).square().sum(dim=1)
    counts = np.zeros(4)
    for seed in range(3000):
        picks = kmeans_plus_plus(factors, features, 2, np.random.default_rng(seed))
        assert picks[0] == first
        counts[int(picks[1])] += 1
    expected = (squared / squared.sum()).numpy()
    np.testing.assert_allclose(counts / 3000, expected, atol=4 * np.sqrt(0.25 / 3000))


def test_alphamix_knows_how_much_mixing_flips_a_prediction() -> None:
    head = LinearHead(weight_KD=np.eye(2, dtype=np.float32), bias_K=np.zeros(2, dtype=np.float32))
    features = np.array([[1.0, 0.9], [1.0, -1.0], [1000.0, 0.0], [0.0, 1.0]])  # near, far, saturated, on the anchor
    predicted = np.array([0, 0, 0, 1])
    anchors = np.array([[0.0, 1.0]])
    # The logits are the features: a move of t along (-1, 1) / sqrt(2) closes a gap of sqrt(2) t.
    expected = [0.1 / np.sqrt(1.01), 2.0 / np.sqrt(5.0), 1000 / np.sqrt(1e6 + 1), np.inf]
    np.testing.assert_allclose(mixing_to_flip(features, predicted, anchors, head), expected)
    farther = np.array([[0.0, 1.0], [1.0, 2.9]])
    np.testing.assert_allclose(mixing_to_flip(features, predicted, farther, head)[0], 0.1 / 2)
    assert np.isinf(mixing_to_flip(features, predicted, anchors[:0], head)).all()


def test_alphamix_flips_just_there_with_the_papers_own_mixing() -> None:
    """alpha = eps |z* - z| / |g| * g / (z* - z), with g by automatic differentiation and eps = mixing / sqrt(D)."""
    generator = torch.Generator().manual_seed(1)
    weight, points, anchors = (torch.randn(rows, 6, generator=generator).double() for rows in (4, 40, 3))
    predicted = (points @ weight.T).argmax(dim=1)

    def loss(features: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(features @ weight.T, predicted, reduction="sum")

    gradient = torch.func.grad(loss)(points)
    head = LinearHead(weight_KD=weight.float().numpy(), bias_K=np.zeros(4, dtype=np.float32))
    mixing = torch.from_numpy(mixing_to_flip(points.numpy(), predicted.numpy(), anchors.numpy(), head))
    assert mixing.isfinite().sum() > 30
    for factor, flips in ((1 - 1e-6, False), (1 + 1e-6, True)):
        eps = torch.where(mixing.isfinite(), mixing, 1e6)[:, None] * factor / 6**0.5
        changed = torch.zeros(40, dtype=torch.bool)
        for anchor in anchors:
            way = anchor - points
            alpha = eps * way.norm(dim=1, keepdim=True) / gradient.norm(dim=1, keepdim=True) * gradient / way
            mixed = (1 - alpha) * points + alpha * anchor
            changed |= (mixed @ weight.T).argmax(dim=1) != predicted
        assert changed.tolist() == (mixing.isfinite() & flips).tolist()


def test_alphamix_mixes_no_more_than_it_must() -> None:
    mixing = np.array([0.3, 0.1, 0.25, np.inf])
    assert [least_step(mixing, wanted, 0.25) for wanted in (1, 2, 3, 4)] == [0.25, 0.5, 0.5, 1.0]
    assert least_step(np.array([0.99]), 1, 0.7) == 1.0


def test_alphamix_takes_one_of_each_cluster() -> None:
    angles = np.array([0.0, 0.01, 0.02, 1.5, 1.51, 1.52, 3.0, 3.01, 3.02])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert sorted(nearest_to_centres(points, 3, np.random.default_rng(0)).tolist()) == [1, 4, 7]


def test_alphamix_fills_up_with_the_least_confident() -> None:
    view = toy_view(constant=True)
    outputs = view.outputs()
    logits = outputs.logits_NK.copy()
    logits[7] = [3.0, 0.0, 0.0]
    view = replace(view, compute_outputs=lambda: replace(outputs, logits_NK=logits))
    selection = select("alphamix", view, 48)
    assert selection.diagnostics["num_filled"] == 48
    assert view.unlabelled_idx[7] not in selection.idx


def line(*angles: float) -> torch.Tensor:
    turns = torch.tensor(angles)
    return torch.stack([turns.cos(), turns.sin()], dim=1)


def test_probcover_covers_most_first_and_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    points = line(0.0, 0.1, 0.2, 1.0, 1.1, 2.0, 3.0)
    for block in (2, 1024):
        monkeypatch.setattr(probcover, "BLOCK", block)
        assert count_neighbours(points, points, 0.15).tolist() == [2, 3, 2, 2, 2, 1, 1]
        nobody = torch.zeros(7, dtype=torch.bool)
        picks, gains = greedy_cover(points, nobody, 0.15, 4)
        assert picks.tolist() == [1, 3, 5, 6]
        assert gains.tolist() == [3, 2, 1, 1]
        first = torch.arange(7) == 1
        picks, gains = greedy_cover(points, first, 0.15, 7)
        assert picks.tolist() == [3, 5, 6, 0, 2, 4]
        assert gains.tolist() == [2, 1, 1, 0, 0, 0]


def test_probcover_counts_a_covered_point_once() -> None:
    picks, gains = greedy_cover(line(0.0, 0.1, 0.2, 0.3, 0.4), torch.zeros(5, dtype=torch.bool), 0.15, 5)
    assert picks.tolist() == [1, 3, 0, 2, 4]
    assert gains.tolist() == [3, 2, 0, 0, 0]


@pytest.mark.parametrize("block", [3, 1000])
def test_probcover_takes_the_largest_pure_radius(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probcover, "SAMPLE_BLOCK", block)
    points = line(*np.linspace(0, 0.2, 10), *np.linspace(1.2, 1.4, 10))
    radius = radius_for_purity(points, 2, 0.95, np.random.default_rng(0))
    gap = float((points[9] - points[10]).norm())  # the nearest two points of different clusters
    assert gap - 0.05 <= radius < gap
