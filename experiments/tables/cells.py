"""Tables of one metric whose rows and columns are any cells of the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.results.statistics import CellKey, Condition, Estimate, rank_marks
from experiments.tables.formats import DIGITS, format_condition, format_estimate
from experiments.tables.table import Cell, Row, Table

Line = tuple[str, Sequence[CellKey]]
"""A row: its label, and what each of its cells stands for."""


def cells_table(
    title: str,
    *,
    corner: str,
    columns: Sequence[str],
    lines: Sequence[Line],
    estimates: Mapping[CellKey, Estimate],
    daggers: frozenset[CellKey] = frozenset(),
) -> Table:
    """The estimates of those cells, with the best and the second of each column marked.

    `daggers` are the cells that cannot be told from the best of their condition.
    """
    by_column = zip(*(keys for _, keys in lines), strict=True) if lines else []
    marks = [rank_marks([estimates.get(key) for key in keys], digits=DIGITS + 2) for keys in by_column]
    rows = [
        Row(
            label=label,
            cells=tuple(
                Cell(
                    text=format_estimate(estimates.get(key)), mark=marks[column][number], key=key, dagger=key in daggers
                )
                for column, key in enumerate(keys)
            ),
        )
        for number, (label, keys) in enumerate(lines)
    ]
    return Table(title=title, corner=corner, columns=tuple(columns), rows=tuple(rows))


def condition_name(condition: Condition) -> str:
    """`cifar10 40 % / 60 %`: data set, mismatch ratio, OOD ratio."""
    return f"{condition.dataset} {format_condition(condition)}"
