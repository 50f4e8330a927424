"""Strategies compared over all conditions: ranks, Friedman's test with Nemenyi's critical difference (Demsar 2006),
penalty matrix, interquartile mean, probability of improvement.

Only conditions in which every compared strategy has the same seeds count (`whole_conditions`).
Letters in array names: C conditions, S strategies, N seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.results.comparison import Scores, paired_t_p
from experiments.results.statistics import LEVEL, Condition, estimate

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


PORTION_CUT = 0.25
"""Share cut from each end for the interquartile mean."""
NO_CONDITION = "no condition has all the seeds that the comparison needs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A statistic and its bootstrap interval."""

    value: float
    low: float
    high: float


def whole_conditions(scores: Scores, strategies: Sequence[str]) -> list[Condition]:
    """The conditions in which all `strategies` have the same one or more seeds."""
    return [
        condition
        for condition, by_arm in scores.items()
        if all(by_arm.get(name) for name in strategies) and len({frozenset(by_arm[name]) for name in strategies}) == 1
    ]


def average_ranks(scores: Scores, strategies: Sequence[str]) -> dict[str, float]:
    """Strategy -> mean of its rank by mean over seeds (1 best, ties share) in `whole_conditions`; NaN without any."""
    from scipy.stats import rankdata

    conditions = whole_conditions(scores, strategies)
    ranks = [
        # Rounded, so that means which differ by rounding error alone are a tie.
        rankdata([-round(estimate(scores[condition][name].values()).mean, 12) for name in strategies])
        for condition in conditions
    ]
    return {
        name: sum(float(each[position]) for each in ranks) / len(ranks) if ranks else math.nan
        for position, name in enumerate(strategies)
    }


def penalty_matrix(rounds: pd.DataFrame, strategies: Sequence[str], *, alpha: float = 1 - LEVEL) -> NDArray[np.float64]:
    """How often strategy i beats j, in [i, j] of (S, S), summed over conditions of weight 1 each.

    Within a condition: the share of rounds after the first in which i's accuracy is higher than j's by a two-sided
    paired t-test over the seeds at `alpha`. Rounds and conditions that do not have the same two or more seeds for all
    strategies are omitted. Low column sums are good. As introduced with BADGE (Ash et al. 2020), there with 5 seeds.
    """
    import numpy as np

    penalties_SS = np.zeros((len(strategies), len(strategies)))
    later = rounds[rounds["round"] > 0]
    for _, rows in later.groupby(list(Condition._fields), sort=False):
        beaten = []
        for _, at_round in rows.groupby("round"):
            table = at_round.pivot(index="seed", columns="arm", values="accuracy")
            if set(strategies) <= set(table.columns):
                accuracy_NS = table[list(strategies)].to_numpy()
                if len(accuracy_NS) >= 2 and not np.isnan(accuracy_NS).any():
                    beaten.append(_beats(accuracy_NS, alpha))
        if beaten:
            penalties_SS += np.mean(beaten, axis=0)
    return penalties_SS


def interquartile_mean(
    scores: Scores, strategy: str, *, rng: np.random.Generator, num_resamples: int = 2000
) -> Interval:
    """Mean of the middle half of a strategy's values over all conditions and seeds, with a hierarchical bootstrap.

    Raises ValueError if the strategy has no value.
    """
    conditions = whole_conditions(scores, [strategy])
    values_CN = _padded([list(scores[condition][strategy].values()) for condition in conditions])

    def statistic(draw: Draw) -> float:
        return middle_mean(values_CN[draw.condition_idx[:, None], draw.seed_idx][draw.valid_mask])

    counts = {condition: len(scores[condition][strategy]) for condition in conditions}
    return _bootstrap(counts, statistic, rng, num_resamples)


def middle_mean(values: NDArray[np.float64]) -> float:
    """The mean without the lowest and the highest quarter of the values, as SciPy's trim_mean gives it."""
    import numpy as np

    num_cut = int(PORTION_CUT * len(values))
    if num_cut == 0:
        return float(values.mean())
    # Partitioned, a hundred times as fast as trim_mean: with 36 conditions of 1,000 seeds, 2,000 resamples per strategy
    # would take most of the report's time.
    return float(np.partition(values, (num_cut, len(values) - num_cut - 1))[num_cut : len(values) - num_cut].mean())


def probability_of_improvement(
    scores: Scores, strategy: str, rival: str, *, rng: np.random.Generator, num_resamples: int = 2000
) -> Interval:
    """The probability that a run of `strategy` is better than a run of `rival`, averaged over conditions.

    Within a condition: the share of all pairs of seeds with a higher value, a tie counting half (Mann-Whitney's U over
    the number of pairs). The bootstrap draws the same seeds for both, as they are paired. Raises ValueError if they
    have no condition in common.
    """
    import numpy as np

    conditions = whole_conditions(scores, [strategy, rival])
    if not conditions:
        raise ValueError(NO_CONDITION)
    seeds = {condition: sorted(scores[condition][strategy]) for condition in conditions}
    ours_CN = _padded([[scores[each][strategy][seed] for seed in seeds[each]] for each in conditions])
    theirs_CN = _padded([[scores[each][rival][seed] for seed in seeds[each]] for each in conditions])
    # Ranks in place of N x N pairs per draw: with pairs, a report on 36 conditions of 1,000 seeds did not end.
    order_CN = np.argsort(theirs_CN, axis=1)
    sorted_CN = np.take_along_axis(theirs_CN, order_CN, axis=1)
    below_CN, up_to_CN = (
        np.stack([np.searchsorted(theirs_N, ours_N, side) for theirs_N, ours_N in zip(sorted_CN, ours_CN, strict=True)])
        for side in ("left", "right")
    )

    def statistic(draw: Draw) -> float:
        num_conditions, num_places = draw.seed_idx.shape
        cells = (np.arange(num_conditions)[:, None] * num_places + draw.seed_idx)[draw.valid_mask]
        counts_CN = np.bincount(cells, minlength=num_conditions * num_places).reshape(num_conditions, num_places)
        drawn = draw.condition_idx
        in_order_CN = np.take_along_axis(counts_CN, order_CN[drawn], axis=1).cumsum(axis=1)
        num_up_to_CN = np.concatenate([np.zeros((num_conditions, 1), dtype=np.int64), in_order_CN], axis=1)
        below = np.take_along_axis(num_up_to_CN, below_CN[drawn], axis=1)
        up_to = np.take_along_axis(num_up_to_CN, up_to_CN[drawn], axis=1)
        wins_C = (counts_CN * (below + up_to)).sum(axis=1) / 2
        return float(np.mean(wins_C / counts_CN.sum(axis=1) ** 2))

    return _bootstrap({each: len(seeds[each]) for each in conditions}, statistic, rng, num_resamples)


def _beats(accuracy_NS: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Matrix (S, S) with 1 where the column's mean is significantly below the row's, else 0."""
    import numpy as np

    num_strategies = accuracy_NS.shape[1]
    beats_SS = np.zeros((num_strategies, num_strategies))
    for first in range(num_strategies):
        for second in range(first):
            differences = (accuracy_NS[:, first] - accuracy_NS[:, second]).tolist()
            if paired_t_p(differences) <= alpha:
                ahead = (first, second) if sum(differences) > 0 else (second, first)
                beats_SS[ahead] = 1
    return beats_SS


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """A bootstrap's draw of C conditions and of seeds of each; N is the number of seeds of the condition with most."""

    condition_idx: NDArray[np.int64]
    """(C,) positions of conditions."""
    seed_idx: NDArray[np.int64]
    """(C, N) positions of seeds."""
    valid_mask: NDArray[np.bool_]
    """(C, N) False where a condition has fewer seeds than N."""


def _bootstrap(
    num_seeds: dict[Condition, int],
    statistic: Callable[[Draw], float],
    rng: np.random.Generator,
    num_resamples: int,
) -> Interval:
    """A statistic with its percentile interval: data sets are drawn, then conditions of each, then seeds of each."""
    import numpy as np

    if not num_seeds:
        raise ValueError(NO_CONDITION)
    counts_C = np.array(list(num_seeds.values()))
    places_N = np.arange(counts_C.max())
    names = [condition.dataset for condition in num_seeds]
    by_dataset = [np.flatnonzero(np.array(names) == dataset) for dataset in dict.fromkeys(names)]

    def draw(condition_idx: NDArray[np.int64], seed_idx: NDArray[np.int64]) -> Draw:
        valid_mask = places_N < counts_C[condition_idx][:, None]
        return Draw(condition_idx=condition_idx, seed_idx=seed_idx, valid_mask=valid_mask)

    def resample() -> Draw:
        chosen = [by_dataset[position] for position in rng.integers(len(by_dataset), size=len(by_dataset))]
        condition_idx = np.concatenate([rng.choice(of_dataset, size=len(of_dataset)) for of_dataset in chosen])
        uniform_CN = rng.random((len(condition_idx), len(places_N)))
        return draw(condition_idx, (uniform_CN * counts_C[condition_idx][:, None]).astype(np.int64))

    everything = np.arange(len(counts_C))
    observed = statistic(draw(everything, np.tile(places_N, (len(counts_C), 1))))
    resampled = [statistic(resample()) for _ in range(num_resamples)]
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value=observed, low=float(low), high=float(high))


def _padded(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """The rows as an array (C, N), with NaN after rows shorter than the longest."""
    import numpy as np

    padded = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for row, values in enumerate(rows):
        padded[row, : len(values)] = values
    return padded


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Average ranks of strategies over the conditions that all of them finished."""

    conditions: tuple[Condition, ...]
    ranks: dict[str, float]
    """Strategy -> average rank, 1 the best, best first."""
    friedman: float
    """Friedman's statistic; NaN with fewer than three strategies or two conditions, or if all are equal."""
    p: float
    """p-value of Friedman's test that there is no difference."""
    critical_difference: float
    """Average ranks that differ by less cannot be told apart (Nemenyi); NaN without a condition."""

    def groups(self) -> list[tuple[str, ...]]:
        """The largest sets of neighbours in rank that cannot be told apart, of two strategies or more."""
        names = list(self.ranks)
        groups: list[tuple[str, ...]] = []
        reach = 0
        for first, name in enumerate(names):
            last = first
            while last + 1 < len(names) and self.ranks[names[last + 1]] - self.ranks[name] < self.critical_difference:
                last += 1
            if last > first and last > reach:
                groups.append(tuple(names[first : last + 1]))
                reach = last
        return groups


def rank_strategies(scores: Scores, strategies: Sequence[str]) -> Ranking:
    """The ranking of `strategies` over `whole_conditions`."""
    conditions = whole_conditions(scores, strategies)
    ranks = average_ranks(scores, strategies)
    friedman = p = math.nan
    if len(strategies) >= 3 and len(conditions) >= 2:
        friedman, p = _friedman(
            [
                [round(estimate(scores[condition][name].values()).mean, 12) for condition in conditions]
                for name in strategies
            ]
        )
    return Ranking(
        conditions=tuple(conditions),
        ranks=dict(sorted(ranks.items(), key=lambda item: item[1])),
        friedman=friedman,
        p=p,
        critical_difference=critical_difference(len(strategies), len(conditions)),
    )


def critical_difference(num_strategies: int, num_conditions: int, *, alpha: float = 1 - LEVEL) -> float:
    """Nemenyi's critical difference: studentized range / sqrt(2) * sqrt(k (k + 1) / (6 N)); NaN if k < 2 or N < 1."""
    if num_strategies < 2 or num_conditions < 1:
        return math.nan
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - alpha, num_strategies, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(num_strategies * (num_strategies + 1) / (6 * num_conditions))


def _friedman(values: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Friedman's statistic and p of one row per strategy; NaN if every condition ties all strategies."""
    from scipy.stats import friedmanchisquare

    if all(len(set(column)) == 1 for column in zip(*values, strict=True)):
        return math.nan, math.nan
    outcome = friedmanchisquare(*values)
    return float(outcome.statistic), float(outcome.pvalue)
