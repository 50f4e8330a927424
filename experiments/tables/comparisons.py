"""Tables of the comparisons of strategies: paired differences, ranks and other summaries over conditions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.results.comparison import (
    Comparison,
    Outcome,
    Scores,
    collect_scores,
    compare,
    compare_with_best_rival,
    count_outcomes,
)
from experiments.results.overall import (
    Interval,
    Ranking,
    interquartile_mean,
    penalty_matrix,
    probability_of_improvement,
    rank_strategies,
    whole_conditions,
)
from experiments.results.statistics import CellKey, Condition, unique
from experiments.tables.table import (
    Cell,
    Table,
    arms_table,
    format_difference,
    format_p,
    grid_table,
    percent,
    text_table,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

BASELINE = "random"
# Fixed, so that equal records give an equal report.
BOOTSTRAP_SEED = 0
NUM_RESAMPLES = 2000

NO_TEST = "needs two seeds"
"""Shown in place of the result of a paired test over seeds: 0.00 or - would pass for one."""

RANDOM_TITLE = "difference to random"
RIVAL_TITLE = "difference to the best rival"


def compared_strategies(trials: pd.DataFrame) -> list[str]:
    """The strategies to compare: those that have a rival in a condition with OOD images.

    Reference runs without OOD images (ID-only, full data, zero-shot) are not rivals.
    """
    rows = trials[trials["ood_ratio"] > 0]
    rivals = rows.groupby(list(Condition._fields))["arm"].transform("nunique")
    return unique(rows.loc[rivals > 1, "arm"])


def difference_tables(scores: Scores) -> list[Table]:
    """Tables of AUBC minus that of `random`, and minus that of the best rival, with p-values, for each data set."""
    tables = []
    for dataset in unique(condition.dataset for condition in scores):
        part = {condition: scores[condition] for condition in scores if condition.dataset == dataset}
        if any(BASELINE in by_arm for by_arm in part.values()):
            tables.append(_difference_table(f"{dataset}: {RANDOM_TITLE}", part, compare(part, BASELINE), _beside_p))
        tables.append(
            _difference_table(f"{dataset}: {RIVAL_TITLE}", part, compare_with_best_rival(part), _beside_rival)
        )
    return [table for table in tables if table.rows]


def comparisons_frame(scores: Scores) -> pd.DataFrame:
    """One row per comparison (`compare` with random, `compare_with_best_rival`); differences of shares in [-1, 1].

    Columns: dataset, mismatch_ratio, ood_ratio, arm, against (random or best_rival), reference, num_pairs, mean,
    sd, interval_low, interval_high, p_t, p_t_holm, p_sign_flip, p_sign_flip_holm, outcome. NaN if unknown.
    """
    import pandas as pd

    rows = []
    for against, comparisons in (
        ("random", compare(scores, BASELINE)),
        ("best_rival", compare_with_best_rival(scores)),
    ):
        for each in comparisons:
            value = each.difference
            rows.append(
                {
                    **each.condition._asdict(),
                    "arm": each.arm,
                    "against": against,
                    "reference": each.reference,
                    "num_pairs": value.num_seeds,
                    "mean": value.mean,
                    "sd": value.sd,
                    "interval_low": value.mean - value.half_width,
                    "interval_high": value.mean + value.half_width,
                    "p_t": each.p_t,
                    "p_t_holm": each.p_t_holm,
                    "p_sign_flip": each.p_sign_flip,
                    "p_sign_flip_holm": each.p_sign_flip_holm,
                    "outcome": each.outcome if value.num_seeds >= 2 else "",
                }
            )
    columns = [
        *CellKey._fields, "against", "reference", "num_pairs", "mean", "sd", "interval_low", "interval_high", "p_t",
        "p_t_holm", "p_sign_flip", "p_sign_flip_holm", "outcome",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overall:
    """Summaries of strategies over all conditions that all of them finished."""

    strategies: tuple[str, ...]
    conditions: tuple[Condition, ...]
    left_out: tuple[Condition, ...]
    """Conditions in which a seed is missing."""
    strategies_left_out: tuple[str, ...]
    """Strategies that are not in every condition."""
    ranking: Ranking
    penalties_SS: NDArray[np.float64]
    is_tested: bool
    """Whether a condition has two seeds, which paired tests need; without them no penalty is known, not even 0."""
    iqm: Mapping[str, Interval]
    improvement: Mapping[str, Interval]
    """Strategy -> probability of improvement over `random`; empty without it."""
    outcomes: Mapping[str, Mapping[Outcome, int]]
    """Strategy -> wins, ties and losses against `random`; empty without it."""


def compare_overall(trials: pd.DataFrame, rounds: pd.DataFrame, strategies: Sequence[str]) -> Overall | None:
    """Summarise, over all conditions, the strategies that are planned in each of them.

    None if there are fewer than two of these, or no condition that they finished with the same seeds.
    """
    import numpy as np

    given = strategies
    scores = collect_scores(trials[trials["arm"].isin(list(given)) & (trials["ood_ratio"] > 0)], "aubc")
    strategies = [name for name in given if all(name in by_arm for by_arm in scores.values())]
    conditions = whole_conditions(scores, strategies)
    if len(strategies) < 2 or not conditions:
        return None
    whole = {condition: scores[condition] for condition in conditions}
    rivals = [name for name in strategies if name != BASELINE] if BASELINE in strategies else []
    keys = rounds[list(Condition._fields)].apply(tuple, axis=1)
    finished = set(trials.loc[trials["status"] == "finished", "fingerprint"])
    chosen = rounds[keys.isin(conditions) & rounds["fingerprint"].isin(finished)]
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    return Overall(
        strategies=tuple(strategies),
        conditions=tuple(conditions),
        left_out=tuple(condition for condition in scores if condition not in whole),
        strategies_left_out=tuple(name for name in given if name not in strategies),
        ranking=rank_strategies(whole, strategies),
        penalties_SS=penalty_matrix(chosen, strategies),
        is_tested=any(len(seeds) >= 2 for by_arm in whole.values() for seeds in by_arm.values()),
        iqm={name: interquartile_mean(whole, name, rng=rng, num_resamples=NUM_RESAMPLES) for name in strategies},
        improvement={
            name: probability_of_improvement(whole, name, BASELINE, rng=rng, num_resamples=NUM_RESAMPLES)
            for name in rivals
        },
        outcomes=count_outcomes(compare(whole, BASELINE)) if rivals else {},
    )


def overall_table(overall: Overall) -> Table:
    """The table of summaries: one row per strategy, best average rank first."""
    columns = ["average rank", "IQM of AUBC", "mean penalty"]
    if overall.improvement:
        columns += ["P(better than random)", "win / tie / loss against random"]
    penalties_S = overall.penalties_SS.sum(axis=0) / max(1, len(overall.strategies) - 1)
    rows = []
    for name, rank in overall.ranking.ranks.items():
        cells = [
            f"{rank:.2f}",
            _interval(overall.iqm[name]),
            f"{penalties_S[overall.strategies.index(name)]:.2f}" if overall.is_tested else NO_TEST,
        ]
        if overall.improvement:
            counts = overall.outcomes.get(name)
            cells.append(_interval(overall.improvement[name]) if name in overall.improvement else "-")
            cells.append(
                f"{counts['win']} / {counts['tie']} / {counts['loss']}"
                if counts
                else "-"
                if name == BASELINE
                else NO_TEST
            )
        rows.append((name, cells))
    return text_table("Summary", corner="strategy", columns=columns, rows=rows)


def penalty_table(overall: Overall) -> Table:
    """The penalty matrix: how often the row's strategy beats the column's, summed over conditions."""
    names = [(name, position) for position, name in enumerate(overall.strategies)]

    def cell(first: int, second: int) -> Cell:
        if first == second:
            return Cell(text="-")
        return Cell(text=f"{overall.penalties_SS[first, second]:.2f}" if overall.is_tested else NO_TEST)

    return grid_table("Penalty matrix", corner="beats", rows=names, columns=names, cell=cell)


def _difference_table(
    title: str, scores: Scores, comparisons: Sequence[Comparison], text: Callable[[Comparison], str]
) -> Table:
    by_key = {CellKey(*each.condition, each.arm): each for each in comparisons}
    names = unique(name for by_arm in scores.values() for name in by_arm)
    compared = [name for name in names if any(CellKey(*each, name) in by_key for each in scores)]
    return arms_table(title, compared, scores, lambda key: _difference_cell(by_key.get(key), text))


def _difference_cell(comparison: Comparison | None, text: Callable[[Comparison], str]) -> Cell:
    if comparison is None:
        return Cell(text="-")
    return Cell(text=text(comparison), key=CellKey(*comparison.condition, comparison.arm))


def _beside_p(each: Comparison) -> str:
    if each.difference.num_seeds < 2:
        return format_difference(each.difference)
    return f"{format_difference(each.difference)}; {format_p(each.p_t_holm)} / {format_p(each.p_sign_flip_holm)}"


def _beside_rival(each: Comparison) -> str:
    return f"{each.reference}: {_beside_p(each)}"


def _interval(value: Interval) -> str:
    """An interval in percent; one without a width says nothing and is omitted."""
    if math.isclose(value.low, value.high):
        return percent(value.value)
    return f"{percent(value.value)} [{percent(value.low)}, {percent(value.high)}]"
