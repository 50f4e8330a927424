"""Tables 7 and 8: VLPure without its parts, and with another strategy behind its purity step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from experiments.results.comparison import Scores, collect_scores
from experiments.results.statistics import (
    CellKey,
    Condition,
    Estimate,
    estimate,
    estimate_cells,
    sorted_conditions,
)
from experiments.tables.table import RATIOS, Cell, Table, condition_name, format_difference, grid_table, marked_cells
from experiments.tables.table4 import dagger_cells

if TYPE_CHECKING:
    import pandas as pd

PARTS = {
    "vlpure": "tuned scale, visual weights",
    "vlpure-no-visual": "tuned scale, no visual weights",
    "vlpure-fixed-scale": "fixed scale, visual weights",
    "vlpure-bare": "fixed scale, no visual weights",
}
"""The arms of Table 7."""
BEHIND = {"conf": "vlpure", "ll": "vlpure-ll", "coreset": "vlpure-coreset"}
"""Table 8: a strategy alone, and behind the purity step."""
BEST = "best baseline"
BEST_OF_SEVERAL = (
    "Best baseline: the strategy without purity step that has the highest mean AUBC in each condition. It was picked "
    "after the fact, among several on the same seeds, so its mean is biased upwards."
)


def baselines(strategies: Iterable[str]) -> tuple[str, ...]:
    """The names that are not a form of VLPure."""
    return tuple(name for name in strategies if not name.startswith("vlpure"))


def table7_tables(trials: pd.DataFrame) -> list[Table]:
    """Tables of AUBC and precision with and without tuning and visual weights, below the best baseline."""
    return _with_best_baseline(trials, [(f"{what} ({arm})", arm) for arm, what in PARTS.items()])


def table8_tables(trials: pd.DataFrame) -> list[Table]:
    """Tables of AUBC and precision of strategies alone and behind the purity step, and of the step's gain."""
    rows = [
        (name, arm)
        for inner, outer in BEHIND.items()
        for name, arm in ((inner, inner), (f"purity, then {inner}", outer))
    ]
    return [*_with_best_baseline(trials, rows), _gains(trials)]


def best_baseline(estimates: Mapping[CellKey, Estimate], condition: Condition) -> CellKey | None:
    """The baseline with the highest mean among those with all planned seeds; None without one."""
    keys = [key for key in estimates if key.condition == condition and baselines([key.arm])]
    complete = [key for key in keys if estimates[key].num_seeds and estimates[key].is_complete]
    return max(complete, key=lambda key: estimates[key].mean, default=None)


def _conditions(trials: pd.DataFrame) -> list[Condition]:
    """The conditions with OOD images: reference runs have no row here."""
    return [each for each in sorted_conditions(estimate_cells(trials, "aubc")) if each.ood_ratio > 0]


def _with_best_baseline(trials: pd.DataFrame, rows: Sequence[tuple[str, str]]) -> list[Table]:
    """Tables of AUBC and precision of the labelled arms, both with the best baseline by AUBC in the first row."""
    conditions = _conditions(trials)
    if not conditions:
        return []
    aubc = estimate_cells(trials, "aubc")
    best = {condition: best_baseline(aubc, condition) for condition in conditions}
    shown = [(label, arm) for label, arm in rows if any(CellKey(*each, arm) in aubc for each in conditions)]
    # A set: a baseline that also has a row must compete once, not against itself.
    competing = {CellKey(*condition, arm) for condition in conditions for _, arm in shown} | set(best.values())
    tables = []
    for title, metric in (("AUBC", "aubc"), ("mean precision of the queries", "mean_precision")):
        estimates = {key: value for key, value in estimate_cells(trials, metric).items() if key in competing}
        cell = marked_cells(estimates, daggers=dagger_cells(trials, metric))
        tables.append(
            grid_table(
                title,
                corner=RATIOS,
                rows=[(BEST, None), *shown],
                columns=[(condition_name(condition), condition) for condition in conditions],
                cell=partial(_cell, cell, best),
            )
        )
    return tables


def _cell(
    cell: Callable[[CellKey], Cell], best: Mapping[Condition, CellKey | None], arm: str | None, condition: Condition
) -> Cell:
    """The cell of an arm; for None, that of the best baseline, with its name."""
    if arm is not None:
        return cell(CellKey(*condition, arm))
    key = best[condition]
    if key is None:
        return Cell(text="none with all seeds")
    made = cell(key)
    return replace(made, text=f"{made.text} ({key.arm})")


def _gains(trials: pd.DataFrame) -> Table:
    """The table of the gain in AUBC that the purity step brings to each strategy."""
    scores = collect_scores(trials, "aubc")
    return grid_table(
        "What the purity step adds to AUBC, paired by seed, in percentage points",
        corner=RATIOS,
        rows=[(f"{outer} - {inner}", (inner, outer)) for inner, outer in BEHIND.items()],
        columns=[(condition_name(condition), condition) for condition in _conditions(trials)],
        cell=lambda pair, condition: Cell(text=_gain(scores, condition, *pair), key=CellKey(*condition, pair[1])),
    )


def _gain(scores: Scores, condition: Condition, inner: str, outer: str) -> str:
    of_condition = scores.get(condition, {})
    if inner not in of_condition or outer not in of_condition:
        return "not planned"
    alone, behind = of_condition[inner], of_condition[outer]
    differences = [behind[seed] - alone[seed] for seed in sorted(alone.keys() & behind.keys())]
    return format_difference(estimate(differences, num_planned=len(alone.keys() | behind.keys())))
