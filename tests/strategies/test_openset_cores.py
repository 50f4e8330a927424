"""Mixtures, FINCH and the meta-network against the original codes (tests/golden/strategies/README.md), and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from strategies.numeric import finch as finch_module
from strategies.numeric.finch import cluster_means, clusters_of_number, finch
from strategies.numeric.gaussian_mixture import fit_mixtures, split_in_two
from strategies.numeric.query_network import QueryNetwork, exponential_scores, ranking_gradients, train_query_network

GOLDEN = Path(__file__).parents[1] / "golden" / "strategies"


def test_mixtures_are_the_references() -> None:
    golden = np.load(GOLDEN / "lfosa_gmm.npz")
    num_known = int(golden["n_known"])
    values, groups = golden["max_activation"].astype(np.float64), golden["pred_class"]
    known = groups < num_known
    upper = split_in_two(values[known], groups[known], num_known)
    np.testing.assert_array_equal(upper, golden["fixed_init_high"][known])
    fits = fit_mixtures(values, groups, num_known)
    np.testing.assert_allclose(fits.log_odds_N, golden["fixed_log_odds"], rtol=1e-6)
    np.testing.assert_array_equal(fits.num_steps_G, golden["fixed_n_iter"])
    parameters = np.concatenate([fits.means_G2, fits.variances_G2, fits.weights_G2], axis=1)
    fitted = golden["fixed_n_iter"] > 0
    np.testing.assert_allclose(parameters[fitted], golden["fixed_params"][fitted], rtol=1e-6)
    with np.errstate(over="ignore"):
        probabilities = 1.0 / (1.0 + np.exp(-fits.log_odds_N))
    defined = known & np.isfinite(golden["fixed_prob_known"])
    np.testing.assert_allclose(probabilities[defined], golden["fixed_prob_known"][defined], atol=1e-6)


def test_mixtures_are_close_to_a_run_of_the_untouched_original() -> None:
    golden = np.load(GOLDEN / "lfosa_gmm.npz")
    num_known, groups = int(golden["n_known"]), golden["pred_class"]
    fits = fit_mixtures(golden["max_activation"].astype(np.float64), groups, num_known)
    for label in range(num_known):
        members = groups == label
        if members.sum() < 20:
            continue
        ours = 1.0 / (1.0 + np.exp(-fits.log_odds_N[members]))
        gaps = np.abs(golden["runs_prob_known"][:, members] - ours).max(axis=1)
        assert gaps.min() <= 0.05
        theirs = golden["runs_log_odds"][gaps.argmin()][members]
        assert spearmanr(fits.log_odds_N[members], theirs).statistic >= 0.99


def test_a_group_of_one_has_no_mixture_and_equal_values_have_one() -> None:
    fits = fit_mixtures(np.array([3.0, 1.0, 1.0, 1.0]), np.array([0, 1, 1, 1]), 3)
    assert np.isnan(fits.log_odds_N[0])
    assert np.isfinite(fits.log_odds_N[1:]).all()
    assert fits.num_steps_G[[0, 2]].tolist() == [0, 0]


@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize(("version", "prefix"), [("0.1.9", ""), ("0.2.3", "first_link_")])
def test_finch_levels_are_the_references(
    version: finch_module.Version, prefix: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finch_module, "BLOCK", block)
    golden = np.load(GOLDEN / "eoal_finch.npz")
    levels = finch(golden["data"], version)
    assert [int(labels.max()) + 1 for labels in levels] == golden[f"{prefix}num_clusters"].tolist()
    np.testing.assert_array_equal(np.stack(levels, axis=1), golden[f"{prefix}partitions"])
    merged = clusters_of_number(golden["data"], int(golden["req_clusters"]), version)
    np.testing.assert_array_equal(merged, golden[f"{prefix}req_labels"])


def test_the_clusters_of_ood_images_are_the_references() -> None:
    golden = np.load(GOLDEN / "eoal_ood_clusters.npz")
    labels = clusters_of_number(golden["features"], int(golden["n_clusters"]), "0.1.9")
    np.testing.assert_array_equal(labels, golden["labels"])
    np.testing.assert_allclose(
        cluster_means(golden["features"].astype(np.float64), labels), golden["centers"], atol=1e-5
    )


@pytest.mark.parametrize("prefix", ["diversity", "fallback"])
def test_the_levels_of_images_predicted_known_are_the_references(prefix: str) -> None:
    golden = np.load(GOLDEN / "eoal_select.npz")
    logits = golden["logits_detector" if prefix == "diversity" else "logits_detector_few"]
    known = logits.argmax(axis=1) < int(golden["n_known"])
    levels = finch(golden["features"][known], "0.1.9")
    np.testing.assert_array_equal(np.stack(levels, axis=1), golden[f"{prefix}_partitions"])


@pytest.mark.parametrize("version", ["0.1.9", "0.2.3"])
def test_finch_of_few_or_equal_points(version: finch_module.Version) -> None:
    assert [labels.tolist() for labels in finch(np.ones((1, 3)), version)] == [[0]]
    assert [labels.tolist() for labels in finch(np.ones((4, 3)), version)] == [[0, 0, 0, 0]]
    assert [labels.tolist() for labels in finch(np.zeros((2, 3)), version)] == [[0, 0]]
    assert clusters_of_number(np.eye(3), 5, version).tolist() == [0, 0, 0]  # the finest level, which has fewer


def test_the_older_release_links_points_with_the_same_nearest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threes, each a middle with a point 10 degrees to either side; three middles are 16 to 19 degrees apart.

    The longest link of the first level is that of two sides, 1 - cos 20 = 0.060: so that from P to Q, which is mutual,
    is dropped (2 (1 - cos 16.3) = 0.080), and Q joins by R, whose nearest is P too (1 - cos 19 = 0.054).
    """
    monkeypatch.setattr(finch_module, "HELD", 4)  # a row of a block at a time
    polar, azimuth = np.deg2rad([0.0, 16.3, 18.2, 180.0]), np.deg2rad([0.0, 0.0, 67.4, 0.0])
    middles = np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], axis=1)
    points = np.zeros((4, 3, 7))
    points[:, :, :3] = middles[:, None] * np.cos(np.deg2rad([0.0, 10.0, 10.0]))[:, None]
    for number in range(4):  # each in a direction of its own
        points[number, :, 3 + number] = np.sin(np.deg2rad([0.0, 10.0, -10.0]))
    levels = [level.tolist() for level in finch(points.reshape(12, 7), "0.1.9")]
    assert levels == [[0] * 3 + [1] * 3 + [2] * 3 + [3] * 3, [0] * 9 + [1] * 3]


def test_two_pairs_are_two_clusters_and_then_one() -> None:
    points = np.array([[1, 0.0], [0, 1], [1, 0.1], [0.1, 1]])
    assert finch(points)[0].tolist() == [0, 1, 0, 1]
    assert clusters_of_number(points, 1).tolist() == [0, 0, 0, 0]


def query_network(golden: dict[str, np.ndarray], names: tuple[str, str, str, str]) -> QueryNetwork:
    inner, bias, outer, last = (golden[name].astype(np.float64) for name in names)
    return QueryNetwork(inner_2H=inner, bias_H=bias, outer_H=outer[:, 0], bias=float(last[0]))


def test_query_scores_are_the_references() -> None:
    golden = dict(np.load(GOLDEN / "mqnet_query.npz"))
    informativeness, purity = (exponential_scores(golden[name]) for name in ("informativeness", "purity"))
    np.testing.assert_allclose(informativeness, golden["z_informativeness"], rtol=2e-5)
    np.testing.assert_allclose(purity, golden["z_purity"], rtol=2e-5)
    scores = query_network(golden, ("W1", "b1", "W2", "b2")).scores(golden["meta_input"])
    np.testing.assert_allclose(scores, golden["score_meta"], atol=1e-4)


def test_one_step_of_the_meta_training() -> None:
    golden = dict(np.load(GOLDEN / "mqnet_train.npz"))
    start = query_network(golden, ("init_W1", "init_b1", "init_W2", "init_b2"))
    batch = slice(0, int(golden["batch_size"]))
    inner, bias, outer, loss = ranking_gradients(
        start.inner_2H, start.bias_H, start.outer_H,
        golden["meta_input"][batch].astype(np.float64), golden["masked_true_loss"][batch].astype(np.float64), 1.0,
    )  # fmt: skip
    assert loss == pytest.approx(float(golden["loss_step1"]), abs=1e-5)
    np.testing.assert_allclose(inner, golden["grad1_W1"], atol=1e-6)
    np.testing.assert_allclose(bias, golden["grad1_b1"], atol=1e-6)
    np.testing.assert_allclose(outer, golden["grad1_W2"][:, 0], atol=1e-6)


def test_weights_below_zero_have_no_gradient_as_in_automatic_differentiation() -> None:
    rng = np.random.default_rng(0)
    inputs, targets = rng.exponential(size=(10, 2)), rng.random(10)
    weights = [torch.tensor(rng.normal(size=shape), requires_grad=True) for shape in ((2, 5), (5,), (5,))]
    scores = torch.sigmoid(torch.from_numpy(inputs) @ weights[0].relu() + weights[1]) @ weights[2].relu()
    wanted = torch.from_numpy(targets)
    sign = torch.where(wanted[:5] > wanted[5:].flip(0), 1.0, -1.0)
    loss = (0.1 - sign * (scores[:5] - scores[5:].flip(0))).relu().mean()
    loss.backward()
    inner, bias, outer = (weight.detach().numpy() for weight in weights)
    *gradients, ours = ranking_gradients(inner, bias, outer, inputs, targets, 0.1)
    assert (inner < 0).any()
    assert (outer < 0).any()
    assert ours == pytest.approx(loss.item())
    for gradient, weight in zip(gradients, weights, strict=True):
        assert weight.grad is not None
        np.testing.assert_allclose(gradient, weight.grad.numpy(), atol=1e-12)


def test_the_whole_meta_training_to_nine_digits() -> None:
    golden = dict(np.load(GOLDEN / "mqnet_train.npz"))
    start = query_network(golden, ("init_W1", "init_b1", "init_W2", "init_b2"))
    inputs = golden["meta_input"].astype(np.float64)
    trained = train_query_network(
        start, inputs, golden["masked_true_loss"].astype(np.float64), epochs=100, learning_rate=float(golden["lr"])
    )
    np.testing.assert_allclose(trained.scores(inputs), golden["score_after_full_run_float64"], atol=1e-9)
    again = QueryNetwork.from_memory(trained.to_memory())
    np.testing.assert_array_equal(again.scores(inputs), trained.scores(inputs))


def test_scores_that_do_not_vary_are_one_and_others_may_set_the_measure() -> None:
    assert exponential_scores(np.full(3, 0.7)).tolist() == [1.0, 1.0, 1.0]
    other = np.array([0.0, 2.0])
    np.testing.assert_allclose(exponential_scores(np.array([1.0, 3.0]), other), [1.0, np.exp(2.0)])
