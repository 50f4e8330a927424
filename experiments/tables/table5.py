"""Table 5: AUBC, last accuracy and precision on DomainNet, with a column per domain."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from experiments.results.paper import paper_table5_aubc
from experiments.results.statistics import CellKey, Condition, estimate_cells, sorted_conditions, unique
from experiments.tables.table import Cell, Table, condition_name, format_estimate, grid_table, marked_cells, percent
from experiments.tables.table4 import dagger_cells

if TYPE_CHECKING:
    import pandas as pd

PREFIX = "domainnet-"
TITLES = {
    "aubc": "AUBC",
    "last_accuracy": "accuracy after the last round",
    "mean_precision": "mean precision of the queries",
}


def table5_tables(trials: pd.DataFrame) -> list[Table]:
    """One table per metric, and one of AUBC by both rules next to the paper's, whose rule is not stated."""
    conditions = sorted_conditions(estimate_cells(trials, "aubc"))
    rows = [(arm, arm) for arm in unique(trials["arm"])]
    columns = [(_column(condition, conditions), condition) for condition in conditions]

    def table(title: str, cell: Callable[[CellKey], Cell]) -> Table:
        return grid_table(
            title,
            corner="domain",
            rows=rows,
            columns=columns,
            cell=lambda arm, condition: cell(CellKey(*condition, arm)),
        )

    tables = [
        table(title, marked_cells(estimate_cells(trials, metric), daggers=dagger_cells(trials, metric)))
        for metric, title in TITLES.items()
    ]
    if any(CellKey(*condition, arm) in paper_table5_aubc() for arm, _ in rows for condition in conditions):
        title = "AUBC divided by n - 1 and by n, and the paper's, which fits neither rule well"
        tables.append(table(title, _both_rules(trials)))
    return tables


def _both_rules(trials: pd.DataFrame) -> Callable[[CellKey], Cell]:
    """A function that makes a cell with AUBC by both rules, and the paper's."""
    ours, by_paper_rule = estimate_cells(trials, "aubc"), estimate_cells(trials, "aubc_paper")

    def cell(key: CellKey) -> Cell:
        text = f"{format_estimate(ours.get(key))}; by n {format_estimate(by_paper_rule.get(key))}"
        paper = paper_table5_aubc().get(key)
        return Cell(text=text if paper is None else f"{text}; paper {percent(paper)}", key=key)

    return cell


def _column(condition: Condition, conditions: list[Condition]) -> str:
    """The domain; the whole condition if its data set has several, or is not a domain of DomainNet."""
    same = [each for each in conditions if each.dataset == condition.dataset]
    if len(same) > 1 or not condition.dataset.startswith(PREFIX):
        return condition_name(condition)
    return condition.dataset.removeprefix(PREFIX)
