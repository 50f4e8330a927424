"""A table of texts: its cells, the formats of numbers, its Markdown and terminal forms, and the parts of a report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from experiments.results.statistics import (
    ALL_OOD,
    NAMED_CLASSES,
    CellKey,
    Condition,
    Estimate,
    rank_marks,
    sorted_conditions,
)

R = TypeVar("R")
C = TypeVar("C")

DAGGER = "†"
"""Mark of a value that the data cannot separate from the best of its column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell: its text, and its mark among the cells that it is compared with."""

    text: str
    mark: str = ""
    """`best`, `second` or nothing."""
    key: CellKey | None = None
    """The cell of the grid that the text is made from; None if it is made from several or from no cell."""
    dagger: bool = False
    """Whether it is not the best, but not separable from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A labelled row, with a cell for each column."""

    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A titled table. `corner` is the heading of the row labels."""

    title: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        assert all(len(row.cells) == len(self.columns) for row in self.rows), "a row needs a cell for each column"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture in a report: a PNG or SVG file in its folder."""

    path: Path
    title: str
    caption: str = ""
    is_on_page: bool = True
    """False for what the page draws by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a report: paragraphs, then tables and pictures."""

    title: str
    lines: tuple[str, ...] = ()
    """Paragraphs of plain text."""
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    is_folded: bool = False
    """Whether the page shows only its heading until the reader opens it."""
    pictures_first: bool = False
    """Whether pictures stand before the tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A line of the honesty box: `name: text`."""

    name: str
    text: str


def render_markdown(table: Table) -> str:
    """The table in GitHub's Markdown under a heading: best bold, second underlined, a dagger for not separable."""
    lines = [
        f"### {escape_markdown(table.title)}",
        "",
        _markdown_row(map(escape_markdown, (table.corner, *table.columns))),
        "|:---|" + "---:|" * len(table.columns),
    ]
    lines += [_markdown_row([escape_markdown(row.label), *map(_markdown_cell, row.cells)]) for row in table.rows]
    return "\n".join(lines) + "\n"


def render_text(table: Table, *, width: int = 120) -> str:
    """The table aligned for a terminal: best *, second +, not separable †; a wide table continues below itself."""
    labels = [table.corner, *(row.label for row in table.rows)]
    label_width = max(map(len, labels))
    columns = [
        _text_column(header, [row.cells[position] for row in table.rows])
        for position, header in enumerate(table.columns)
    ]
    parts = [
        "\n".join(
            "  ".join([label.ljust(label_width), *(column[line] for column in part)]).rstrip()
            for line, label in enumerate(labels)
        )
        for part in _split_columns(columns, width - label_width)
    ]
    return table.title + "\n" + "\n\n".join(parts) + "\n"


def _markdown_row(texts: Iterable[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def escape_markdown(text: str) -> str:
    """The text in one line, escaped so that it cannot end a cell or open a tag."""
    return " ".join(text.splitlines()).replace("|", "\\|").replace("<", "&lt;")


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    marked = {"best": f"**{text}**", "second": f"<u>{text}</u>"}.get(cell.mark, text)
    return f"{marked} {DAGGER}" if cell.dagger else marked


def _text_column(header: str, cells: Sequence[Cell]) -> list[str]:
    """Header and cells of a column, padded to one width, with the marks aligned."""
    suffixes = [{"best": "*", "second": "+"}.get(cell.mark, "") + DAGGER * cell.dagger for cell in cells]
    place = max(map(len, suffixes), default=0)
    texts = [
        f"{cell.text} {suffix.ljust(place)}" if place else cell.text
        for cell, suffix in zip(cells, suffixes, strict=True)
    ]
    width = max(map(len, [header, *texts]))
    return [header.rjust(width), *(text.rjust(width) for text in texts)]


def _split_columns(columns: Sequence[list[str]], width: int) -> list[list[list[str]]]:
    """The columns, divided into parts that each fit into `width`."""
    parts: list[list[list[str]]] = [[]]
    used = 0
    for column in columns:
        needed = len(column[0]) + 2
        if parts[-1] and used + needed > width:
            parts.append([])
            used = 0
        parts[-1].append(column)
        used += needed
    return parts


DIGITS = 2
"""Decimals of a percentage."""


def percent(share: float) -> str:
    """0.8412 as `84.12`, an unknown share (NaN) as `?`."""
    return "?" if math.isnan(share) else f"{100 * share:.{DIGITS}f}"


def format_ratio(ratio: float) -> str:
    """0.2 as `20 %`."""
    return f"{100 * ratio:g} %"


def ood_text(ratio: float) -> str:
    """The OOD ratio of a condition: `60 %`, or `all` for a pool with every OOD image there is."""
    return "all" if ratio == ALL_OOD else format_ratio(ratio)


def mismatch_text(ratio: float) -> str:
    """The mismatch ratio of a condition: `20 %`, or `named` if its ID classes are named."""
    return "named" if ratio == NAMED_CLASSES else format_ratio(ratio)


def ratios_text(condition: Condition) -> str:
    """The ratios of a condition in words: `mismatch 20 %, OOD 60 %`."""
    mismatch = (
        "named ID classes"
        if condition.mismatch_ratio == NAMED_CLASSES
        else f"mismatch {mismatch_text(condition.mismatch_ratio)}"
    )
    return f"{mismatch}, OOD {ood_text(condition.ood_ratio)}"


def format_condition(condition: Condition) -> str:
    """A condition without its data set: `20 % / 60 %`, mismatch ratio and OOD ratio."""
    return f"{mismatch_text(condition.mismatch_ratio)} / {ood_text(condition.ood_ratio)}"


def format_estimate(value: Estimate | None, *, scale: float = 100.0, digits: int = DIGITS) -> str:
    """An estimate as text: `84.12 ± 1.03`, or `84.12 ± ?` for one seed.

    The text also reports missing seeds, `not planned` without a trial, and `none` if trials have no such value.

    `scale` times the value is written: 100 makes shares percentages.
    """
    if value is None:
        return "not planned"
    if value.num_planned == 0:
        return "none"
    seeds = f"({value.num_seeds} of {value.num_planned} seeds)"
    if value.num_seeds == 0:
        return f"missing {seeds}"
    half_width = "?" if math.isnan(value.half_width) else f"{scale * value.half_width:.{digits}f}"
    text = f"{scale * value.mean:.{digits}f} ± {half_width}"
    return text if value.is_complete else f"{text} {seeds}"


def format_difference(value: Estimate) -> str:
    """A difference as text in percentage points, `+3.21 ± 0.80`, with the number of pairs if some are missing."""
    if value.num_seeds == 0:
        return f"missing (0 of {value.num_planned} pairs)"
    half_width = "?" if math.isnan(value.half_width) else percent(value.half_width)
    text = f"{100 * value.mean:+.{DIGITS}f} ± {half_width}"
    return text if value.is_complete else f"{text} ({value.num_seeds} of {value.num_planned} pairs)"


def format_p(p: float) -> str:
    """A p-value as text, `0.012` or `< 0.001`; NaN, from fewer than two seeds, as `needs two seeds`."""
    if math.isnan(p):
        return "needs two seeds"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def join(parts: Iterable[str]) -> str:
    """The parts, joined by commas."""
    return ", ".join(parts)


RATIOS = "mismatch / OOD"
"""Corner of a table whose columns are conditions."""


def grid_table(
    title: str,
    *,
    corner: str,
    rows: Iterable[tuple[str, R]],
    columns: Iterable[tuple[str, C]],
    cell: Callable[[R, C], Cell],
) -> Table:
    """A table that has `cell(row, column)` for each of the labelled `rows` and `columns`."""
    columns = list(columns)
    return Table(
        title=title,
        corner=corner,
        columns=tuple(label for label, _ in columns),
        rows=tuple(Row(label=label, cells=tuple(cell(row, column) for _, column in columns)) for label, row in rows),
    )


def arms_table(
    title: str, arms: Iterable[str], conditions: Iterable[Condition], cell: Callable[[CellKey], Cell]
) -> Table:
    """A table with a row per arm and a column per condition, named by its ratios."""
    return grid_table(
        title,
        corner=RATIOS,
        rows=[(arm, arm) for arm in arms],
        columns=[(format_condition(condition), condition) for condition in conditions],
        cell=lambda arm, condition: cell(CellKey(*condition, arm)),
    )


def text_table(title: str, *, corner: str, columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> Table:
    """A table of labelled rows of texts, whose cells have no trials to open."""
    return grid_table(
        title,
        corner=corner,
        rows=rows,
        columns=[(name, position) for position, name in enumerate(columns)],
        cell=lambda texts, position: Cell(text=texts[position]),
    )


def marked_cells(
    estimates: Mapping[CellKey, Estimate], *, daggers: frozenset[CellKey] = frozenset()
) -> Callable[[CellKey], Cell]:
    """A function that makes the cell of a key: its estimate, marked if it is best or second in its condition.

    All of `estimates` compete. `daggers` are the keys that cannot be separated from the best of their condition.
    """
    marks = mark_cells(estimates)

    def cell(key: CellKey) -> Cell:
        text = format_estimate(estimates.get(key))
        return Cell(text=text, mark=marks.get(key, ""), key=key, dagger=key in daggers)

    return cell


def mark_cells(estimates: Mapping[CellKey, Estimate]) -> dict[CellKey, str]:
    """The marks of the best and the second cell of each condition."""
    marks = {}
    for condition in sorted_conditions(estimates):
        keys = [key for key in estimates if key.condition == condition]
        ranked = rank_marks([estimates[key] for key in keys], digits=DIGITS + 2)
        marks.update(dict(zip(keys, ranked, strict=True)))
    return marks


def condition_name(condition: Condition) -> str:
    """A condition as text: `cifar10 40 % / 60 %`, data set, mismatch ratio and OOD ratio."""
    return f"{condition.dataset} {format_condition(condition)}"
