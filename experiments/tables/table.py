"""A table of texts, what it looks like in Markdown and in a terminal, and the parts of a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.results.statistics import CellKey

DAGGER = "†"
"""Stands behind a value that the data cannot tell from the best of its column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell: what it says, and how it stands among those it is compared with."""

    text: str
    mark: str = ""
    """`best`, `second` or nothing."""
    key: CellKey | None = None
    """Which cell of the grid the text is made of; None where it is made of several or of none."""
    dagger: bool = False
    """Not the best, and not separable from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A labelled row, with a cell for each column."""

    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A titled table. `corner` stands above the row labels."""

    title: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        assert all(len(row.cells) == len(self.columns) for row in self.rows), "a row needs a cell for each column"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture that a report shows: a PNG or SVG file in its folder."""

    path: Path
    title: str
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a report: what is said first, then tables and pictures."""

    title: str
    lines: tuple[str, ...] = ()
    """Paragraphs of plain text."""
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A line of the box that says what the numbers are: `name: text`."""

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
    """The table aligned for a terminal: best *, second +, not separable †; too wide a table goes on below itself."""
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
    """A text that cannot end a cell or begin a tag."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    marked = {"best": f"**{text}**", "second": f"<u>{text}</u>"}.get(cell.mark, text)
    return f"{marked} {DAGGER}" if cell.dagger else marked


def _text_column(header: str, cells: Sequence[Cell]) -> list[str]:
    """Header and cells of a column, all of one width, marks in a place of their own."""
    suffixes = [{"best": "*", "second": "+"}.get(cell.mark, "") + DAGGER * cell.dagger for cell in cells]
    place = max(map(len, suffixes), default=0)
    texts = [
        f"{cell.text} {suffix.ljust(place)}" if place else cell.text
        for cell, suffix in zip(cells, suffixes, strict=True)
    ]
    width = max(map(len, [header, *texts]))
    return [header.rjust(width), *(text.rjust(width) for text in texts)]


def _split_columns(columns: Sequence[list[str]], width: int) -> list[list[list[str]]]:
    """The columns in as many parts as are needed for each part to fit into `width`."""
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
