"""CSV: one row per image, to be filled in with a spreadsheet or written by one's own script.

`image` and `answer` are the columns that count. Other tools' names for them are read too: `filepath` and `ground_truth`
(FiftyOne), `image` and `label` (Label Studio).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.annotate.formats.collecting import Collector
from experiments.annotate.formats.exporting import Export

IMAGE_COLUMNS = ("vlpure_path", "image", "path", "filepath", "file", "filename")
ANSWER_COLUMNS = ("answer", "label", "ground_truth", "class")
LABEL_COLUMNS = ("image", "answer", "source", "time", "seconds")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First letters of cells that spreadsheets compute."""


def write(export: Export) -> list[str]:
    """Write `suggestions.csv`, whose column `answer` is empty, and `labels.csv`. Returns what to do with them."""
    header = ("rank", "image", "answer", "wanted", "predicted", "probability", "informativeness", "reason",
              "nearest_labelled", "copies")  # fmt: skip
    rows = [
        (s.rank, path_cell(s.image), "", f"{s.wanted:.4f}", text_cell(s.predicted), f"{s.predicted_probability:.4f}",
         f"{s.informativeness:.4f}", text_cell(s.reason), path_cell(s.nearest_labelled or ""),
         ";".join(path_cell(copy) for copy in s.copies))
        for s in export.suggestions
    ]  # fmt: skip
    export.write_text("suggestions.csv", as_csv(header, rows))
    labels = [
        (path_cell(label.image), text_cell(label.answer), text_cell(label.source), label.time,
         "" if label.seconds is None else repr(label.seconds))
        for label in export.labels
    ]  # fmt: skip
    export.write_text("labels.csv", as_csv(LABEL_COLUMNS, labels))
    words = ", ".join(f"'{answer}'" for answer in export.answers)
    return [f"fill in the column answer of {export.directory / 'suggestions.csv'} with {words}"]


def as_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV text with a header, fields quoted where needed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def path_cell(image: str) -> str:
    """An image's path that no spreadsheet takes for a formula; it still leads to the image."""
    return f"./{image}" if image.startswith(FORMULA) else image


def text_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula: behind an apostrophe, which `_plain` removes."""
    return f"'{text}" if text.startswith((*FORMULA, "'")) else text


def _plain(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith((*FORMULA, "'")) else text


def read(text: str, collector: Collector) -> None:
    """Hand the answered rows of a CSV text to the collector; rows without an answer are left out.

    Commas, semicolons and tabs are taken as separators. Raises ValueError, naming the line.
    """
    collector.tool = "CSV"
    rows = _rows(text, collector)
    _, header = rows[0] if rows else (0, [])
    names = [name.strip().lower() for name in header]
    image, answer = (_column(names, known, collector) for known in (IMAGE_COLUMNS, ANSWER_COLUMNS))
    source, time, seconds, by = (
        names.index(name) if name in names else None for name in ("source", "time", "seconds", "annotator")
    )
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise collector.error(f"line {line} has {len(row)} of {len(header)} fields; the file is cut or damaged")
        if not row[answer].strip():
            continue
        cells = [None if column is None else _plain(row[column]) or None for column in (source, time, seconds, by)]
        collector.add(
            row[image],
            _plain(row[answer]),
            where=f"line {line}",
            source=cells[0],
            time=cells[1],
            seconds=_number(cells[2], line, collector),
            by=cells[3],
        )


def _rows(text: str, collector: Collector) -> list[tuple[int, list[str]]]:
    """The rows that are not empty, each with the number of its last line."""
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)  # spreadsheets of half of Europe write semicolons
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    try:
        return [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise collector.error(f"line {reader.line_num}: {error}; the file is cut or damaged") from None


def _column(names: Sequence[str], known: Sequence[str], collector: Collector) -> int:
    for name in known:
        if name in names:
            return names.index(name)
    raise collector.error(
        f"this is no label file of a kind known here; of a CSV the first line must name the columns {known[0]!r} "
        f"(or {', '.join(known[1:])})"
    )


def _number(cell: str | None, line: int, collector: Collector) -> float | None:
    if cell is None:
        return None
    try:
        return float(cell)
    except ValueError:
        raise collector.error(f"line {line}: the seconds are '{cell}', not a number") from None


def read_bytes(path: Path, content: bytes) -> str:
    """The text of a CSV file. Raises ValueError for other encodings than UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(
            f"{path}: this is neither JSON, XML, a ZIP file nor a CSV in UTF-8; a spreadsheet saves one as 'CSV UTF-8'"
        ) from None
