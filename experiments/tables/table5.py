"""Table 5: the domains of DomainNet, a column each: AUBC, last accuracy and precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.results.paper import paper_table5_aubc
from experiments.results.statistics import CellKey, Condition, estimate_cells, sorted_conditions, unique
from experiments.tables.table import Cell, Row, Table, cells_table, condition_name, format_estimate, percent
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
    """A table a metric, and AUBC by both rules beside the paper's, which says not by which it is."""
    conditions = sorted_conditions(estimate_cells(trials, "aubc"))
    strategies = unique(trials["arm"])
    lines = [(name, [CellKey(*condition, name) for condition in conditions]) for name in strategies]
    columns = [_column(condition, conditions) for condition in conditions]
    tables = [
        cells_table(
            title,
            corner="domain",
            columns=columns,
            lines=lines,
            estimates=estimate_cells(trials, metric),
            daggers=dagger_cells(trials, metric),
        )
        for metric, title in TITLES.items()
    ]
    keys = [key for _, keys in lines for key in keys]
    if any(key in paper_table5_aubc() for key in keys):
        tables.append(_both_rules(trials, columns, lines))
    return tables


def _both_rules(trials: pd.DataFrame, columns: list[str], lines: list[tuple[str, list[CellKey]]]) -> Table:
    ours, by_paper_rule = estimate_cells(trials, "aubc"), estimate_cells(trials, "aubc_paper")

    def cell(key: CellKey) -> Cell:
        text = f"{format_estimate(ours.get(key))}; by n {format_estimate(by_paper_rule.get(key))}"
        paper = paper_table5_aubc().get(key)
        return Cell(text=text if paper is None else f"{text}; paper {percent(paper)}", key=key)

    return Table(
        title="AUBC divided by n - 1 and by n, and the paper's, which fits neither rule well",
        corner="domain",
        columns=tuple(columns),
        rows=tuple(Row(label=name, cells=tuple(map(cell, keys))) for name, keys in lines),
    )


def _column(condition: Condition, conditions: list[Condition]) -> str:
    """The domain; the whole condition where a data set is there more than once, or is none of DomainNet's."""
    same = [each for each in conditions if each.dataset == condition.dataset]
    if len(same) > 1 or not condition.dataset.startswith(PREFIX):
        return condition_name(condition)
    return condition.dataset.removeprefix(PREFIX)
