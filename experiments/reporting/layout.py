"""A table of texts, and what it looks like in Markdown and in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.reporting.statistics import CellKey

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


def render_markdown(table: Table) -> str:
    """The table in GitHub's Markdown under a heading: best bold, second underlined, a dagger for not separable."""
    lines = [
        f"### {_escape(table.title)}",
        "",
        _markdown_row([table.corner, *table.columns]),
        "|:---|" + "---:|" * len(table.columns),
    ]
    lines += [_markdown_row([row.label, *map(_markdown_cell, row.cells)]) for row in table.rows]
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


def _markdown_row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(_escape(text) for text in texts) + " |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _markdown_cell(cell: Cell) -> str:
    marked = {"best": f"**{cell.text}**", "second": f"<u>{cell.text}</u>"}.get(cell.mark, cell.text)
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
