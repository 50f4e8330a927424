"""Scores mixed by what is learnt on labels: the limits of few and of many, and one optimum."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize

from strategies.purity.fusion import PRIOR_LABELS, learn_fusion


def case(num: int, seed: int, *, noise: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Two scores that tell ID from OOD, with that much noise."""
    rng = np.random.default_rng(seed)
    is_id = rng.random(num) < 0.4
    is_id[:2] = True, False
    scores = is_id[:, None] + rng.normal(size=(num, 2)) * noise
    return torch.from_numpy(scores).float(), torch.from_numpy(is_id)


def test_with_few_labels_the_first_score_counts_most() -> None:
    scores, is_id = case(4, 0, noise=(0.5, 0.5))
    fused = learn_fusion(scores, is_id)
    weights = fused(torch.eye(2)) * scores.double().std(dim=0).float()
    assert weights[0] > 3 * weights[1]


def test_with_many_labels_a_useless_score_is_dropped() -> None:
    scores, is_id = case(4000, 1, noise=(20.0, 0.4))
    first, second = (learn_fusion(scores, is_id)(torch.eye(2)) * scores.double().std(dim=0).float()).tolist()
    assert first < 0.05 * second


def test_a_score_that_would_have_to_be_turned_round_is_left_out() -> None:
    scores, is_id = case(2000, 2, noise=(0.4, 0.4))
    scores[:, 1] *= -1
    assert learn_fusion(scores, is_id)(torch.eye(2))[1] == 0.0


def test_the_weights_are_the_optimum() -> None:
    scores, is_id = case(60, 3, noise=(0.8, 0.6))
    x = ((scores.double() - scores.double().mean(dim=0)) / scores.double().std(dim=0)).numpy()
    y = is_id.numpy()
    weights = np.where(y, 60 / (2 * y.sum()), 60 / (2 * (~y).sum()))

    def objective(w: np.ndarray) -> float:
        z = x @ w[:2] + w[2]
        penalty = PRIOR_LABELS / 8 * ((w[0] - 1) ** 2 + w[1] ** 2)
        return float((weights * np.logaddexp(0, np.where(y, -z, z))).sum() + penalty)

    best = minimize(objective, np.zeros(3), tol=1e-12).x[:2]
    assert (best > 0).all()
    found = learn_fusion(scores, is_id)(torch.eye(2)).numpy() * scores.double().std(dim=0).numpy()
    np.testing.assert_allclose(found, best, rtol=1e-4)
