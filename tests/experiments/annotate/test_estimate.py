"""The estimate of a folder's wanted images, by the curve and by images drawn at random."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.annotate.estimate import ByCurve, Draws, Estimate, corrected, estimate_by_curve
from experiments.annotate.wanted import Curve, Prior, Scores, fit_curve


def by_curve(mean: float, half: float, *, known: int = 100, num_left: int = 1000, variance: float = 40.0) -> ByCurve:
    total = Estimate(mean=mean, low=mean - half, high=mean + half)
    return ByCurve(total=total, known=known, num_left=num_left, variance=variance)


def draws(*errors: float, at: float = 300.0, num_free: int = 1000, variance: float = 40.0) -> Draws:
    return Draws(by_curve=at, num_free=num_free, variance=variance, errors_M=np.array(errors))


def test_the_interval_by_the_curve_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=500) * 2
        wanted = rng.random(500) < 1 / (1 + np.exp(-(scores - 0.5)))
        asked = np.argsort(-scores)[::3][:60]  # chosen by the score, which the curve allows
        left = np.setdiff1d(np.arange(500), asked)
        prior = Prior(offset=0.0, slope=1.0, offset_sd=1.0, slope_sd=0.5)
        curve = fit_curve(Scores(all_N=scores, answered_L=scores[asked], prior=prior, detector="x"), wanted[asked])
        estimate = estimate_by_curve(curve, scores[left], int(wanted[asked].sum())).total
        covered += estimate.low <= wanted.sum() <= estimate.high
    assert 90 <= covered <= 100


def test_what_is_known_is_counted_and_nothing_beyond_the_folder() -> None:
    certain = Curve(mean_2=np.array([100.0, 0.0]), covariance_22=np.zeros((2, 2)))
    estimate = estimate_by_curve(certain, np.zeros(7), 3)
    assert (estimate.total.mean, estimate.total.low, estimate.total.high) == (10.0, 10.0, 10.0)
    assert (estimate.known, estimate.num_left) == (3, 7)
    # 20 drawn images, all wanted where none was expected, say 7 + 20: more than there are.
    above = corrected(estimate, [draws(*[1.0] * 20, at=7.0, num_free=20, variance=1.0)])
    assert (above.mean, above.high) == (10.0, 10.0)
    below = corrected(estimate, [draws(*[-1.0] * 20, at=7.0, num_free=20, variance=1.0)])
    assert below.low == 3.0


def test_without_draws_the_curve_may_be_off_as_a_whole() -> None:
    # sd of the curve 15, of its being off 0.5 * 40 = 20: together 25.
    estimate = corrected(by_curve(300, 15 * 1.959964), [])
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((300, 251.0009, 348.9991))


def test_draws_move_the_curve_by_their_precision() -> None:
    # 1,000 images with a variance of 40: an error of 0.2 expected per draw, so these four are as expected.
    agreeing = draws(0.2, 0.2, -0.2, 0.0, at=270.0)
    # Squares 0.12 / 0.04 = 3: excess 13 / 14. Mean error 0.05: the draws say 270 + 50, off by sqrt(10,000 * 13 / 14).
    variance = 1000 * 40 * (13 / 14) / 4
    weight = 625 / (625 + variance)
    estimate = corrected(by_curve(300, 15 * 1.959964), [agreeing])
    assert estimate.mean == pytest.approx(300 + weight * 20)
    assert estimate.high - estimate.mean == pytest.approx(1.959964 * (weight * variance) ** 0.5)


def test_a_curve_that_draws_contradict_yields_to_them() -> None:
    # The curve is sure that nothing is left; of 40 drawn images 8 are wanted, so about 200 of the 1,000.
    sure = by_curve(101, 2, variance=1.0)
    contradicting = [draws(*[1.0] * 8, *[0.0] * 32, at=101.0, variance=1.0)]
    estimate = corrected(sure, contradicting)
    assert 150 < estimate.mean < 301
    assert estimate.low < 301 < estimate.high


def test_a_sure_but_wrong_curve_is_corrected_on_average() -> None:
    # Of 2,000 images 30 % are wanted, the curve says 20 %; four of them are drawn in each of ten rounds.
    covered, means = 0, []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        wanted = rng.random(2000) < 0.3
        rounds = [
            draws(*(wanted[rng.choice(2000, 4, replace=False)] - 0.2), at=400.0, num_free=2000, variance=320.0)
            for _ in range(10)
        ]
        estimate = corrected(by_curve(400, 60, known=0, num_left=2000, variance=320.0), rounds)
        covered += estimate.low <= wanted.sum() <= estimate.high
        means.append(estimate.mean)
    assert covered >= 85
    assert 500 < np.mean(means) < 600
