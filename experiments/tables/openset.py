"""All strategies side by side in one condition: their figures, and their differences from two of them, by seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.results.comparison import collect_scores, compare, not_separable
from experiments.results.statistics import CellKey, Condition, estimate_cells
from experiments.tables.table import Cell, Row, Table, condition_name, format_estimate, mark_cells
from experiments.tables.table4 import dagger_cells

if TYPE_CHECKING:
    import pandas as pd

REFERENCES = ("vlpure", "random")
"""Rows from which all others' differences are given, in this order."""
SEPARABLE = "§"
"""Mark of a difference that the paired t-test shows, adjusted by Holm over all rows of the table."""
COLUMNS = {
    "aubc": ("AUBC", 100.0, 2),
    "last_accuracy": ("last accuracy", 100.0, 2),
    "mean_precision": ("mean precision", 100.0, 2),
    "num_wasted": ("wasted labels", 1.0, 0),
    "seconds": ("seconds per trial", 1.0, 0),
}
"""Column of the frame of trials -> heading, factor and decimals."""


def openset_tables(trials: pd.DataFrame) -> list[Table]:
    """The figures of each strategy, best AUBC first, and the differences from `REFERENCES`; of one condition."""
    trials = _with_missing(trials)
    scores = collect_scores(trials, "aubc")
    (condition,) = scores
    # By the paired differences: with a seed missing a mean may be high because the seeds that are there are easy.
    lead = {each.arm: each.difference.mean for each in compare(scores, REFERENCES[-1])}
    arms = sorted(scores[condition], key=lambda arm: -lead.get(arm, 0.0))
    return [_figures(trials, condition, arms), *(_differences(trials, condition, arms, name) for name in REFERENCES)]


def _with_missing(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials, and a row with the status `missing` for each seed that a strategy lacks and another has."""
    import pandas as pd

    cells = pd.MultiIndex.from_product([trials["arm"].unique(), trials["seed"].unique()], names=["arm", "seed"])
    every = trials.set_index(["arm", "seed"]).reindex(cells).reset_index()
    axes = {name: trials[name].iloc[0] for name in Condition._fields}
    return every.fillna({"status": "missing", **axes})


def _figures(trials: pd.DataFrame, condition: Condition, arms: list[str]) -> Table:
    """Mean over seeds of each column, the AUBC marked as in Table 4."""
    estimates = {metric: estimate_cells(trials, metric) for metric in COLUMNS}
    marks, daggers = mark_cells(estimates["aubc"]), dagger_cells(trials, "aubc")
    rows = []
    for key in (CellKey(*condition, arm) for arm in arms):
        cells = []
        for metric, (_, scale, digits) in COLUMNS.items():
            text = format_estimate(estimates[metric][key], scale=scale, digits=digits)
            is_marked = metric == "aubc"
            cells.append(Cell(text=text, mark=marks[key] if is_marked else "", dagger=is_marked and key in daggers))
        rows.append(Row(label=key.arm, cells=tuple(cells)))
    return Table(
        title=f"{condition_name(condition)}: all strategies",
        corner="strategy",
        columns=tuple(heading for heading, _, _ in COLUMNS.values()),
        rows=tuple(rows),
    )


def _differences(trials: pd.DataFrame, condition: Condition, arms: list[str], reference: str) -> Table:
    """Each strategy minus `reference`, paired by seed; a difference that is separable from 0 has a mark."""
    columns = {metric: each for metric, each in COLUMNS.items() if metric != "seconds"}
    cells: dict[str, list[Cell]] = {arm: [] for arm in arms if arm != reference}
    for metric, (_, scale, digits) in columns.items():
        for each in compare(collect_scores(trials, metric), reference):
            sign = "+" if each.difference.mean >= 0 else ""
            mark = "" if not_separable([each]) else f" {SEPARABLE}"
            cells[each.arm].append(
                Cell(text=sign + format_estimate(each.difference, scale=scale, digits=digits) + mark)
            )
    return Table(
        title=f"{condition_name(condition)}: differences from {reference}, paired by seed",
        corner="strategy",
        columns=tuple(heading for heading, _, _ in columns.values()),
        rows=tuple(Row(label=arm, cells=tuple(each)) for arm, each in cells.items()),
    )
