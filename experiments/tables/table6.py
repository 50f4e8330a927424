"""Table 6: CLIPN's image tower as the classifier: zero-shot, a linear head round by round, and with all labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from experiments.results.paper import paper_table6
from experiments.results.statistics import CellKey, Condition, Estimate, estimate, estimate_cells, sorted_conditions
from experiments.tables.table import DIGITS, RATIOS, Cell, Table, condition_name, format_estimate, grid_table, percent

if TYPE_CHECKING:
    import pandas as pd

ZERO_SHOT, ROUNDS, FULL_SHOT = "zero-shot", "vlpure-clip", "linear-probe"
"""The arms that fill the table."""
PAPER_OOD_RATIO = 0.6
"""OOD ratio of the paper's table."""

Column = tuple[str, CellKey, Estimate | None]
"""A column's name, its cell of the grid, and our value."""


def table6_tables(trials: pd.DataFrame, rounds: pd.DataFrame) -> list[Table]:
    """The table of accuracies, and one next to the paper's if it has the data set; one row per condition."""
    conditions = [each for each in sorted_conditions(estimate_cells(trials, "aubc")) if each.ood_ratio > 0]
    lines = {each: {name: (key, ours) for name, key, ours in _columns(each, trials, rounds)} for each in conditions}
    if not lines:
        return []
    names = max((list(each) for each in lines.values()), key=len)

    def table(title: str, conditions: Sequence[Condition], text: Callable[[Condition, str], str]) -> Table:
        def cell(condition: Condition, name: str) -> Cell:
            if name not in lines[condition]:
                return Cell(text="-")  # a round that this condition does not have (yet)
            return Cell(text=text(condition, name), key=lines[condition][name][0])

        rows, columns = [(condition_name(each), each) for each in conditions], [(name, name) for name in names]
        return grid_table(title, corner=RATIOS, rows=rows, columns=columns, cell=cell)

    tables = [
        table(
            "Accuracy with CLIPN's image tower as the classifier",
            conditions,
            lambda condition, name: format_estimate(lines[condition][name][1]),
        )
    ]
    in_paper = [each for each in conditions if _paper_row(each)]
    if in_paper:
        tables.append(
            table(
                "The same next to the paper's",
                in_paper,
                lambda condition, name: _beside_paper(lines[condition][name][1], _paper_row(condition).get(name)),
            )
        )
    return tables


def _columns(condition: Condition, trials: pd.DataFrame, rounds: pd.DataFrame) -> Iterator[Column]:
    """The columns of one row, from left to right."""
    last = estimate_cells(trials, "last_accuracy")
    without_ood = condition._replace(ood_ratio=0.0)  # the reference runs have no pool
    zero_shot, full_shot = CellKey(*without_ood, ZERO_SHOT), CellKey(*without_ood, FULL_SHOT)
    of_rounds = CellKey(*condition, ROUNDS)
    num_planned = last[of_rounds].num_planned if of_rounds in last else 0
    yield "zero-shot", zero_shot, last.get(zero_shot)
    own = rounds
    for field, value in of_rounds._asdict().items():
        own = own[own[field] == value]
    for number in range(int(own["round"].max()) + 1 if len(own) else 0):
        accuracies = own.loc[own["round"] == number, "accuracy"].astype(float)
        yield f"round {number}", of_rounds, estimate(accuracies, num_planned=num_planned)
    yield "full-shot", full_shot, last.get(full_shot)


def _paper_row(condition: Condition) -> dict[str, float]:
    """Column -> the paper's value; empty if it has no such row."""
    if condition.ood_ratio != PAPER_OOD_RATIO:
        return {}
    return paper_table6().get((condition.dataset, condition.mismatch_ratio), {})


def _beside_paper(ours: Estimate | None, paper: float | None) -> str:
    """Our value, the paper's and the difference; ours alone in a round that the paper does not have."""
    if paper is None:
        return format_estimate(ours)
    beside = f"{format_estimate(ours)}; paper {percent(paper)}"
    return beside if ours is None or not ours.num_seeds else f"{beside}, {100 * (ours.mean - paper):+.{DIGITS}f}"
