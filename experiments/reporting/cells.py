"""Tables of one metric whose rows and columns are any cells of the grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from experiments.reporting.layout import Cell, Row, Table
from experiments.reporting.statistics import CellKey, Condition, Estimate, rank_marks
from experiments.reporting.tables import DIGITS, format_estimate, format_ratio

Line = tuple[str, Sequence[CellKey]]
"""A row: its label, and what each of its cells stands for."""


def cells_table(
    title: str, *, corner: str, columns: Sequence[str], lines: Sequence[Line], estimates: Mapping[CellKey, Estimate]
) -> Table:
    """The estimates of those cells, with the best and the second of each column marked."""
    by_column = zip(*(keys for _, keys in lines), strict=True) if lines else []
    marks = [rank_marks([estimates.get(key) for key in keys], digits=DIGITS + 2) for keys in by_column]
    rows = [
        Row(
            label=label,
            cells=tuple(
                Cell(text=format_estimate(estimates.get(key)), mark=marks[column][number], key=key)
                for column, key in enumerate(keys)
            ),
        )
        for number, (label, keys) in enumerate(lines)
    ]
    return Table(title=title, corner=corner, columns=tuple(columns), rows=tuple(rows))


def condition_name(condition: Condition) -> str:
    """`cifar10 40 % / 60 %`: data set, mismatch ratio, OOD ratio."""
    return f"{condition.dataset} {format_ratio(condition.mismatch_ratio)} / {format_ratio(condition.ood_ratio)}"


def beside_paper(ours: Estimate | None, paper: float | None) -> str:
    """Our value, the paper's and the difference: `84.12 ± 1.03; paper 85.00, -0.88`."""
    if paper is None:
        return format_estimate(ours)
    beside = f"{format_estimate(ours)}; paper {percent(paper)}"
    return beside if ours is None or not ours.num_seeds else f"{beside}, {100 * (ours.mean - paper):+.{DIGITS}f}"


def gain_text(difference: Estimate) -> str:
    """A difference paired by seed, in percentage points: `+3.21 ± 0.80`; says so where pairs are missing."""
    pairs = f"({difference.num_seeds} of {difference.num_planned} pairs)"
    if not difference.num_seeds:
        return f"missing {pairs}"
    half_width = "?" if math.isnan(difference.half_width) else percent(difference.half_width)
    text = f"{100 * difference.mean:+.{DIGITS}f} ± {half_width}"
    return text if difference.is_complete else f"{text} {pairs}"


def percent(share: float) -> str:
    """0.8412 as `84.12`."""
    return f"{100 * share:.{DIGITS}f}"
