"""The tables of a report made from records alone: those of the commands that ran the trials, and one for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import replace
from typing import TYPE_CHECKING

from experiments.results.statistics import CellKey
from experiments.tables.table import Table
from experiments.tables.table4 import result_tables

if TYPE_CHECKING:
    import pandas as pd

Maker = Callable[["pd.DataFrame", "pd.DataFrame"], list[Table]]
"""A function that makes tables from the frames `trials` and `rounds`."""


def own_tables(
    trials: pd.DataFrame, rounds: pd.DataFrame, cells: Mapping[str, Set[CellKey]], makers: Mapping[str, Maker]
) -> Iterator[Table]:
    """The tables of each of `makers` (title -> maker), made from its `cells` (by the same title).

    Cells that belong to no maker get tables of AUBC, last accuracy and precision at the end.
    """
    seen: set[CellKey] = set()
    for title, maker in makers.items():
        chosen = cells.get(title, set())
        if chosen:
            seen |= chosen
            for table in maker(_only(trials, chosen), _only(rounds, chosen)):
                yield replace(table, title=f"{title}: {table.title}")
    others = {key for key in _keys(trials) if key not in seen}
    if others:
        for table in result_tables(_only(trials, others)):
            yield replace(table, title=f"Others: {table.title}") if seen else table


def _only(frame: pd.DataFrame, cells: Set[CellKey]) -> pd.DataFrame:
    return frame[[key in cells for key in _keys(frame)]]


def _keys(frame: pd.DataFrame) -> list[CellKey]:
    """The cell of each row."""
    return [CellKey(*values) for values in frame[list(CellKey._fields)].itertuples(index=False)]
