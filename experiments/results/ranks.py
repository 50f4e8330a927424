"""Strategies ranked over conditions: Friedman's test, and Nemenyi's critical difference of average ranks.

As Demsar (2006) has it: conditions take the place of his data sets, and a strategy's value in one is its mean over
seeds. Conditions of one data set are not independent, so that the test promises more than it holds; it orders
strategies and is no proof.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.results.comparison import Scores
from experiments.results.overall import average_ranks, whole_conditions
from experiments.results.statistics import LEVEL, Condition, estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Average ranks of strategies over the conditions that all of them finished."""

    conditions: tuple[Condition, ...]
    ranks: dict[str, float]
    """Strategy -> average rank, 1 the best, best first."""
    friedman: float
    """Friedman's statistic; NaN with fewer than three strategies or two conditions, or where all are equal."""
    p: float
    """Of no difference at all."""
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
    """Nemenyi's: the studentized range's quantile / sqrt(2) * sqrt(k (k + 1) / (6 N)); NaN where k < 2 or N < 1."""
    if num_strategies < 2 or num_conditions < 1:
        return math.nan
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - alpha, num_strategies, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(num_strategies * (num_strategies + 1) / (6 * num_conditions))


def _friedman(values: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Statistic and p of a row a strategy; NaN where every condition ties all strategies."""
    from scipy.stats import friedmanchisquare

    if all(len(set(column)) == 1 for column in zip(*values, strict=True)):
        return math.nan, math.nan
    outcome = friedmanchisquare(*values)
    return float(outcome.statistic), float(outcome.pvalue)
