"""A report as one HTML page that needs nothing else: style, script, pictures and data are all in it.

Texts of users (names, paths, errors) pass through `html.escape`, or reach the page's script as JSON that it only ever
sets as text.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.pages.content import Report
from experiments.results.details import Details, TrialDetails
from experiments.results.statistics import CellKey, cell_key
from experiments.tables.table import DAGGER, Cell, Picture, Section, Table, format_ratio

if TYPE_CHECKING:
    import pandas as pd

STYLE = Path(__file__).with_name("page.css")
SCRIPT = Path(__file__).with_name("page.js")
MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
FACTS = "What these numbers are"
DIGITS = 6
"""Decimals of the curves' values in the page."""
TRIAL_COLUMNS = (
    "seed", "status", "aubc", "aubc_paper", "last_accuracy", "mean_precision", "num_labels", "num_wasted", "seconds",
)  # fmt: skip

CellIds = Mapping[CellKey, int]


def report_page(
    report: Report, *, trials: pd.DataFrame, rounds: pd.DataFrame, details: Details, pictures: Mapping[Path, bytes]
) -> str:
    """The page. `pictures` are the contents of the pictures that the report's sections show, by path."""
    ids = {cell_key(key): number for number, key in enumerate(_cells(trials))}
    data = _data(trials, rounds, details, ids)
    sections = [section for section in report.sections if section.tables or section.lines or section.pictures]
    links = [
        f'<li><a href="#section-{number}">{escape(section.title)}</a></li>' for number, section in enumerate(sections)
    ]
    links.insert(1, f'<li><a href="#facts">{FACTS}</a></li>')
    bodies = [_section(section, number, ids, pictures) for number, section in enumerate(sections)]
    facts = "".join(f"<div><dt>{escape(fact.name)}</dt><dd>{escape(fact.text)}</dd></div>" for fact in report.facts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(report.title)}</title>
<link rel="icon" href="data:,">
<style>
{STYLE.read_text()}</style>
</head>
<body>
<header>
<h1>{escape(report.title)}</h1>
<p class="summary">{_summary(trials, details)}</p>
<nav aria-label="Sections"><ul>{"".join(links)}</ul></nav>
<p class="hint">A value opens its trials; a column's head sorts by it.</p>
</header>
<main>
{bodies[0] if bodies else ""}
<section id="facts" class="facts"><h2>{FACTS}</h2><dl>{facts}</dl></section>
{"".join(bodies[1:])}
</main>
<dialog id="trials" aria-labelledby="trials-title"><div class="bar"><h2 id="trials-title"></h2>
<button type="button" class="close" aria-label="Close">&#215;</button></div><div class="content"></div></dialog>
<noscript><p>Without JavaScript the tables do not sort, and cells do not open their trials.</p></noscript>
<script type="application/json" id="data">{_json(data)}</script>
<script>
{SCRIPT.read_text()}</script>
</body>
</html>
"""


def _cells(trials: pd.DataFrame) -> list[object]:
    return [key for key, _ in trials.groupby(list(CellKey._fields), sort=False)]


def _summary(trials: pd.DataFrame, details: Details) -> str:
    """Progress, size of the grid and when the last round ended, in a line."""
    finished = int((trials["status"] == "finished").sum())
    num_conditions = trials[list(CellKey._fields[:-1])].drop_duplicates().shape[0]
    parts = [
        f"{finished} of {len(trials)} trials finished",
        _count(num_conditions, "condition"),
        _count(trials["arm"].nunique(), "strategy"),
        _count(trials["seed"].nunique(), "seed"),
    ]
    times = [each.last_time_ms for each in details.values() if each.last_time_ms is not None]
    if times:
        from datetime import UTC, datetime

        parts.append(f"last round {datetime.fromtimestamp(max(times) / 1000, UTC):%Y-%m-%d %H:%M} UTC")
    return " &middot; ".join(parts)


def _count(number: int, noun: str) -> str:
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def _section(section: Section, number: int, ids: CellIds, pictures: Mapping[Path, bytes]) -> str:
    lines = "".join(f"<p>{escape(line)}</p>" for line in section.lines)
    tables = "\n".join(_table(table, ids) for table in section.tables)
    shown = "\n".join(_picture(picture, pictures[picture.path]) for picture in section.pictures)
    return (
        f'<section id="section-{number}"><h2>{escape(section.title)}</h2>\n{lines}\n{tables}\n' + f"{shown}</section>"
    )


def _table(table: Table, ids: CellIds) -> str:
    """A table in a box that scrolls sideways; headers are buttons that sort, cells of trials buttons that open them."""
    headers = "".join(
        f'<th scope="col" aria-sort="none"><button type="button" class="sort">{escape(text)}</button></th>'
        for text in (table.corner, *table.columns)
    )
    rows = "\n".join(
        f'<tr><th scope="row">{escape(row.label)}</th>{"".join(_cell(cell, ids) for cell in row.cells)}</tr>'
        for row in table.rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}"><table>'
        f"<caption>{escape(table.title)}</caption>\n"
        f"<thead><tr>{headers}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _cell(cell: Cell, ids: CellIds) -> str:
    first, _, second = cell.text.partition("; ")
    text = escape(first)
    marked = {"best": f"<strong>{text}</strong>", "second": f"<u>{text}</u>"}.get(cell.mark, text)
    if cell.dagger:
        marked += f'<sup title="not separable from the best">{DAGGER}</sup>'
    if second:
        marked += f"<small>{escape(second)}</small>"
    number = None if cell.key is None else ids.get(cell.key)
    missing = ' class="missing"' if cell.text.startswith(("missing", "not planned")) else ""
    if number is None:
        return f"<td{missing}>{marked}</td>"
    return f'<td{missing}><button type="button" class="cell" data-cell="{number}">{marked}</button></td>'


def _picture(picture: Picture, content: bytes) -> str:
    kind = MEDIA_TYPES[picture.path.suffix]
    encoded = base64.b64encode(content).decode()
    return (
        f'<figure><img src="data:{kind};base64,{encoded}" alt="{escape(picture.title)}"{_width(content)}>'
        f"<figcaption><b>{escape(picture.title)}.</b> {escape(picture.caption)}</figcaption></figure>"
    )


def _width(content: bytes) -> str:
    """A PNG's width in the page: 150 dots an inch, as our pictures are drawn, a bit enlarged."""
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        return ""
    return f' width="{round(int.from_bytes(content[16:20]) * 0.72)}"'


def _data(trials: pd.DataFrame, rounds: pd.DataFrame, details: Details, ids: CellIds) -> list[dict[str, Any]]:
    """For the script: for each cell its title and trials, each with its curves and command."""
    curves = {
        key: {
            "rounds": rows["round"].tolist(),
            "accuracy": [_number(value) for value in rows["accuracy"]],
            "precision": [_number(value) for value in rows["precision"]],
        }
        for key, rows in rounds.groupby(["fingerprint", "arm"], sort=False)
    }
    cells: list[dict[str, Any]] = [{"title": _cell_title(key), "ood": key.ood_ratio, "trials": []} for key in ids]
    for row in trials.to_dict("records"):
        key = CellKey(row["dataset"], row["mismatch_ratio"], row["ood_ratio"], row["arm"])
        more = details.get(row["fingerprint"], TrialDetails())
        cells[ids[key]]["trials"].append(
            {name: _number(row[name]) for name in TRIAL_COLUMNS}
            | {"command": more.command, "error": more.error}
            | curves.get((row["fingerprint"], row["arm"]), {"rounds": [], "accuracy": [], "precision": []})
        )
    return cells


def _cell_title(key: CellKey) -> str:
    return f"{key.dataset}, mismatch {format_ratio(key.mismatch_ratio)}, OOD {format_ratio(key.ood_ratio)}: {key.arm}"


def _number(value: Any) -> Any:
    """A value that JSON has: None for NaN, floats rounded."""
    if isinstance(value, str) or value is None:
        return value
    number = float(value)
    if math.isnan(number):
        return None
    return int(number) if number.is_integer() and not isinstance(value, float) else round(number, DIGITS)


def _json(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
