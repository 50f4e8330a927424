"""How many images of a folder are wanted: by the curve of scores, corrected with images drawn at random.

Shapes: N images without an answer, M drawn images of a round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.annotate.wanted import Curve, Floats, sigmoid

OFF = 0.5
"""Standard deviation, in log odds, of how far all of a curve may be off in a way that its answers do not show."""
# The answers are about images that looked wanted or doubtful, so the curve's lower end rests on its shape. On ten label
# curves of CIFAR-10 0.5 held the truth in 95 % of 200 rounds, 0 in 60 %; the other twenty: docs/annotate_results.md.
TRUSTED = 10
"""The curve's own variance of an answer counts as much as so many drawn images."""
Z = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """How many images of a set are wanted, with a 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ByCurve:
    """Wanted images of the folder by the curve alone, and what is needed to correct it."""

    total: Estimate
    """With the interval of a curve that is right but for the few answers it was fitted to."""
    known: int
    """Wanted images that have an answer."""
    num_left: int
    """Images without an answer."""
    variance: float
    """Variance of the answers about all of these, were they independent."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draws:
    """Images that a round drew at random, each free one with the same probability, and their answers."""

    by_curve: float
    """Wanted images of the folder by the curve of that time."""
    num_free: int
    """Images among which they were drawn; near-copies are not among them."""
    variance: float
    """`ByCurve.variance` of that time."""
    errors_M: Floats
    """Answer (1: wanted) less the probability of that time, times the images that the drawn one stands for."""


def estimate_by_curve(curve: Curve, scores_N: Floats, known: int) -> ByCurve:
    """Wanted images among `known` answered ones and unanswered ones with these scores."""
    rng = np.random.default_rng(0)
    draws = rng.multivariate_normal(curve.mean_2, curve.covariance_22, size=300)
    totals = np.empty(len(draws))
    for number, (offset, slope) in enumerate(draws):
        probs_N = sigmoid(offset + max(slope, 0.0) * scores_N)
        totals[number] = probs_N.sum() + rng.normal() * np.sqrt((probs_N * (1 - probs_N)).sum())
    totals = np.clip(totals, 0, len(scores_N)) + known
    low, high = np.quantile(totals, [0.025, 0.975])
    probs_N = curve.probabilities(scores_N)
    return ByCurve(
        total=Estimate(mean=float(probs_N.sum()) + known, low=float(low), high=float(high)),
        known=known,
        num_left=len(scores_N),
        variance=float((probs_N * (1 - probs_N)).sum()),
    )


def corrected(by_curve: ByCurve, rounds: Sequence[Draws]) -> Estimate:
    """The curve's estimate and the difference estimates of the rounds' draws, each weighted by its precision.

    A round's difference estimate, its curve's total plus the mean error of its draws times the images they were drawn
    from, is right on average whatever the curve (Cochran, Sampling Techniques, 1977, chapter 7). Two draws are off by
    hundreds in a folder of 2,000, so it has little weight at first. Never outside what the labels allow.
    """
    rounds = [each for each in rounds if len(each.errors_M)]
    own_sd = (by_curve.total.high - by_curve.total.low) / (2 * Z)
    mean, variance = by_curve.total.mean, max(1e-9, own_sd**2 + (OFF * by_curve.variance) ** 2)
    if rounds:
        by_draws, its_variance = _by_draws(rounds)
        # A curve that the draws contradict is wrong by more than it knows. Three deviations: from one on, the chance of
        # two draws per round made the estimate of ten label curves worse, off by 72 of 800 in place of 64.
        if (by_draws - mean) ** 2 > 9 * (variance + its_variance):
            variance = (by_draws - mean) ** 2 - its_variance
        weight = variance / (variance + its_variance)
        mean, variance = mean + weight * (by_draws - mean), weight * its_variance
    half = Z * variance**0.5
    least, most = by_curve.known, by_curve.known + by_curve.num_left
    mean, low, high = (float(np.clip(value, least, most)) for value in (mean, mean - half, mean + half))
    return Estimate(mean=mean, low=low, high=high)


def _by_draws(rounds: Sequence[Draws]) -> tuple[float, float]:
    """The rounds' difference estimates of the folder's wanted images, averaged by precision, and its variance."""
    num = sum(len(each.errors_M) for each in rounds)
    # Squared errors in units of what the curves expected: larger if they were surer than right.
    squares = sum(float((each.errors_M**2).sum()) * each.num_free / max(1e-9, each.variance) for each in rounds)
    excess = (TRUSTED + squares) / (TRUSTED + num)
    values = [each.by_curve + each.num_free * float(each.errors_M.mean()) for each in rounds]
    precisions = [len(each.errors_M) / max(1e-9, each.num_free * each.variance * excess) for each in rounds]
    return float(np.average(values, weights=precisions)), 1 / float(np.sum(precisions))
