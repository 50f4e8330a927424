"""Strategies compared within a condition, paired by seed.

The trials of a seed share split, initial labels and initial weights whatever their strategy, so differences are taken
seed by seed: what a seed does to all strategies alike cancels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from experiments.results.statistics import (
    LEVEL,
    CellKey,
    Condition,
    Estimate,
    cell_key,
    check_seeds,
    estimate,
    sorted_conditions,
    t_quantile,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


SeedScores = Mapping[int, float]
"""Values of one cell: seed -> value."""
Scores = Mapping[Condition, Mapping[str, SeedScores]]
"""Values of finished trials: condition -> strategy -> seed -> value."""

MOST_EXACT_PAIRS = 20
"""Most pairs whose 2^n signs are all tried; above, signs are drawn: 2^21 sums per pair of arms take too long."""
NUM_DRAWS = 100_000
"""Number of sign patterns drawn in place of all of them."""
# Fixed, so that equal records give an equal report.
SIGN_SEED = 0
Outcome = Literal["win", "tie", "loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A strategy against a reference in one condition, over the seeds that both have."""

    condition: Condition
    arm: str
    reference: str
    difference: Estimate
    """Strategy minus reference, seed by seed; `num_planned` counts the seeds that either has."""
    p_t: float
    """Two-sided paired t-test; NaN with fewer than two pairs."""
    p_sign_flip: float
    """Two-sided sign-flip test (`sign_flip_p`); NaN without a pair."""
    p_t_holm: float
    """`p_t`, adjusted by Holm over all strategies compared with the reference in this condition."""
    p_sign_flip_holm: float

    @property
    def outcome(self) -> Outcome:
        """win or loss if the interval of the difference does not contain 0, else tie."""
        if self.difference.mean > self.difference.half_width:
            return "win"
        return "loss" if self.difference.mean < -self.difference.half_width else "tie"


def collect_scores(trials: pd.DataFrame, metric: str) -> dict[Condition, dict[str, dict[int, float]]]:
    """The values of `metric` of finished trials by condition, strategy and seed.

    Raises ValueError if a trial is listed twice.
    """
    check_seeds(trials)
    planned = [cell_key(key) for key, _ in trials.groupby(list(CellKey._fields), sort=False)]
    scores: dict[Condition, dict[str, dict[int, float]]] = {each: {} for each in sorted_conditions(planned)}
    for key in planned:
        scores[key.condition][key.arm] = {}
    finished = trials[trials["status"] == "finished"].dropna(subset=[metric])
    for group, rows in finished.groupby(list(CellKey._fields), sort=False):
        key = cell_key(group)
        pairs = zip(rows["seed"].tolist(), rows[metric].tolist(), strict=True)
        scores[key.condition][key.arm] = {int(seed): float(value) for seed, value in pairs}
    return scores


def compare(scores: Scores, reference: str) -> list[Comparison]:
    """Compare every other strategy with `reference`, in each condition that has it."""
    return [
        comparison
        for condition, by_arm in scores.items()
        if reference in by_arm
        for comparison in _compare_in(condition, by_arm, reference)
    ]


def compare_with_best(scores: Scores) -> list[Comparison]:
    """Compare every strategy with the one of the highest mean (`best_strategy`), in each condition.

    Testing against the best of several after having looked is no fair test of any one pair; it serves to mark what
    cannot be told from the best.
    """
    comparisons = []
    for condition, by_arm in scores.items():
        best = best_strategy(by_arm)
        if best is not None:
            comparisons += _compare_in(condition, by_arm, best)
    return comparisons


def compare_with_best_rival(scores: Scores) -> list[Comparison]:
    """Compare every strategy with the best of the others, in each condition: the best itself with the second.

    Each strategy is compared once, with its own rival; Holm adjusts over all comparisons of a condition.
    """
    comparisons = []
    for condition, by_arm in scores.items():
        pairs = [(name, best_strategy({other: by_arm[other] for other in by_arm if other != name})) for name in by_arm]
        comparisons += _compare_pairs(condition, by_arm, [(name, rival) for name, rival in pairs if rival])
    return comparisons


def best_strategy(by_arm: Mapping[str, SeedScores]) -> str | None:
    """The strategy with the highest mean among those that have every seed that any has; None if no strategy has."""
    seeds = {seed for values in by_arm.values() for seed in values}
    means = {name: estimate(values.values()).mean for name, values in by_arm.items() if values.keys() == seeds}
    return max(means, key=means.__getitem__) if seeds and means else None


def not_separable(comparisons: Sequence[Comparison], *, alpha: float = 1 - LEVEL) -> set[CellKey]:
    """The cells whose difference from the reference is not shown at `alpha` by the t-test adjusted by Holm."""
    return {
        CellKey(*each.condition, each.arm) for each in comparisons if math.isnan(each.p_t_holm) or each.p_t_holm > alpha
    }


def paired_t_p(differences: Sequence[float]) -> float:
    """Two-sided p of the paired t-test that the mean difference is 0; NaN with fewer than two pairs.

    Differences that are all equal have no spread: p is 1 if they are 0, else 0.
    """
    from scipy.special import stdtr

    value = estimate(differences)
    if value.num_seeds < 2:
        return math.nan
    if value.sd == 0:
        return 1.0 if value.mean == 0 else 0.0
    t = abs(value.mean) / (value.sd / math.sqrt(value.num_seeds))
    return float(2 * stdtr(value.num_seeds - 1, -t))


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p of the sign-flip test: the share of signs whose sum is as far from 0 as the data's.

    Of all 2^n signs up to `MOST_EXACT_PAIRS` pairs; above, of `NUM_DRAWS` seeded draws and the data's own signs, which
    keeps the test valid (Phipson and Smyth 2010). Assumes only that each difference is as likely with either sign. NaN
    without a pair.
    """
    import numpy as np

    if not differences:
        return math.nan
    observed = abs(math.fsum(differences))
    slack = 1e-12 * math.fsum(map(abs, differences))  # sums of the same numbers in another order are the same sum
    if len(differences) <= MOST_EXACT_PAIRS:
        return float(np.mean(np.abs(_all_sums(differences)) >= observed - slack))
    # A byte of random bits holds the signs of eight pairs, whose 256 sums are looked up: 1,000 pairs take 0.1 s.
    groups = [differences[start : start + 8] for start in range(0, len(differences), 8)]
    bytes_GD = np.random.default_rng(SIGN_SEED).integers(0, 256, size=(len(groups), NUM_DRAWS), dtype=np.uint8)
    sums = np.zeros(NUM_DRAWS)
    for group, bytes_D in zip(groups, bytes_GD, strict=True):
        sums += _all_sums(group)[bytes_D & (2 ** len(group) - 1)]
    # 1 +: the data's own signs count as one draw, which keeps the test valid (Phipson and Smyth 2010).
    return float((1 + np.sum(np.abs(sums) >= observed - slack)) / (1 + NUM_DRAWS))


def _all_sums(differences: Sequence[float]) -> NDArray[np.float64]:
    """Sums of the differences under each choice of signs, (2^n,)."""
    import numpy as np

    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    return sums


def smallest_sign_flip_p(num_pairs: int) -> float:
    """The smallest p of the two-sided sign-flip test with so many pairs: 0.0625 with 5 pairs."""
    return min(1.0, 2.0 ** (1 - num_pairs)) if num_pairs <= MOST_EXACT_PAIRS else 1 / (1 + NUM_DRAWS)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's step-down method: a finding at p <= alpha is false with probability <= alpha.

    NaN stays NaN and does not count as a test.
    """
    order = sorted((position for position, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for rank, position in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted


def count_outcomes(comparisons: Sequence[Comparison]) -> dict[str, dict[Outcome, int]]:
    """Strategy -> how often it wins, ties and loses against the reference, over conditions with two pairs or more."""
    counts: dict[str, dict[Outcome, int]] = {}
    for each in comparisons:
        if each.difference.num_seeds >= 2:
            counts.setdefault(each.arm, {"win": 0, "tie": 0, "loss": 0})[each.outcome] += 1
    return counts


def _compare_in(condition: Condition, by_arm: Mapping[str, SeedScores], reference: str) -> list[Comparison]:
    """Compare all other strategies with `reference` in one condition."""
    return _compare_pairs(condition, by_arm, [(name, reference) for name in by_arm if name != reference])


def _compare_pairs(
    condition: Condition, by_arm: Mapping[str, SeedScores], pairs: Sequence[tuple[str, str]]
) -> list[Comparison]:
    """Compare the first of each pair with the second, over the seeds that both have."""
    differences = [
        [
            by_arm[name][seed] - by_arm[reference][seed]
            for seed in sorted(by_arm[name].keys() & by_arm[reference].keys())
        ]
        for name, reference in pairs
    ]
    p_t, p_sign_flip = [paired_t_p(each) for each in differences], [sign_flip_p(each) for each in differences]
    p_t_holm, p_sign_flip_holm = holm(p_t), holm(p_sign_flip)
    return [
        Comparison(
            condition=condition,
            arm=name,
            reference=reference,
            difference=estimate(differences[position], num_planned=len(by_arm[name].keys() | by_arm[reference].keys())),
            p_t=p_t[position],
            p_sign_flip=p_sign_flip[position],
            p_t_holm=p_t_holm[position],
            p_sign_flip_holm=p_sign_flip_holm[position],
        )
        for position, (name, reference) in enumerate(pairs)
    ]


ALPHA = 1 - LEVEL
POWER = 0.8


def what_seeds_can_show(num_seeds: int, *, num_rivals: int = 1) -> list[str]:
    """Lines on what so many seeds allow: the interval, the sign-flip test and the paired t-test.

    With `num_rivals` above 1, the lines also give the worst case after Holm's adjustment.
    """
    if num_seeds < 2:
        return ["1 seed per cell: no interval and no test; a difference between strategies may be chance."]
    lines = [
        f"{num_seeds} seeds per cell: the {100 * LEVEL:g} % interval of a mean is ± "
        f"{t_quantile(num_seeds - 1) / math.sqrt(num_seeds):.2f} standard deviations of a seed.",
        _sign_flip_line(num_seeds, num_rivals),
        f"Paired t-test at {ALPHA:.2g}: finds in {100 * POWER:g} % of cases a mean difference of "
        f"{smallest_difference(num_seeds, alpha=ALPHA):.2f} standard deviations of the differences.",
    ]
    if num_rivals > 1:
        lines.append(
            f"With {num_rivals} rivals, Holm asks the first for {ALPHA / num_rivals:.2g}: "
            f"{smallest_difference(num_seeds, alpha=ALPHA / num_rivals):.2f} standard deviations."
        )
    return lines


def smallest_difference(num_pairs: int, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The mean difference, in standard deviations of the differences, that the two-sided paired t-test finds.

    At `alpha` with probability `power`, for normal differences and two pairs or more. From the noncentral t.
    """
    low, high = 0.0, 1.0
    while power_of_t_test(num_pairs, high, alpha=alpha) < power:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if power_of_t_test(num_pairs, middle, alpha=alpha) < power:
            low = middle
        else:
            high = middle
    return high


def power_of_t_test(num_pairs: int, effect: float, *, alpha: float = ALPHA) -> float:
    """How probable it is that the two-sided paired t-test at `alpha` finds `effect` (in standard deviations)."""
    from scipy.special import nctdtr

    degrees = num_pairs - 1
    critical = t_quantile(degrees, 1 - alpha)
    shift = effect * math.sqrt(num_pairs)
    below = float(nctdtr(degrees, shift, -critical))
    above = float(nctdtr(degrees, shift, critical))
    # Far out in the tail SciPy's series gives NaN for what is 0.
    return 1 - (0.0 if math.isnan(above) else above) + (0.0 if math.isnan(below) else below)


def _sign_flip_line(num_seeds: int, num_rivals: int) -> str:
    least = smallest_sign_flip_p(num_seeds)
    kind = "Exact sign-flip test" if num_seeds <= MOST_EXACT_PAIRS else f"Sign-flip test by {NUM_DRAWS:,} random signs"
    line = f"{kind}: no p below {least:.3g}"
    if num_rivals > 1:
        line += f", below {min(1.0, num_rivals * least):.3g} after Holm over {num_rivals} rivals"
    if num_rivals * least <= ALPHA:
        return f"{line}."
    needed = next((n for n in range(2, MOST_EXACT_PAIRS + 2) if num_rivals * smallest_sign_flip_p(n) <= ALPHA), None)
    could = "no number of seeds could" if needed is None else f"{needed} seeds could"
    return f"{line}: it cannot show anything at {ALPHA:.2g}; {could}."
