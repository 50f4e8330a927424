"""Writes a report as one self-contained HTML page: style, script, pictures and data are all in it.

What users write (names, paths, errors) is escaped by the template, or reaches the page's script as JSON that the script
only sets as text. The page's policy lets its own style and script run, by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.pages.content import TERMS, Report
from experiments.pages.multiples import draw_multiples
from experiments.pages.sprites import NO_SPRITES, Sprites
from experiments.plots.canvas import condition_text, dataset_label
from experiments.results.details import Details, TrialDetails
from experiments.results.findings import strategy_name
from experiments.results.statistics import CellKey, cell_key
from experiments.tables.table import DAGGER, Table, ratios_text

if TYPE_CHECKING:
    import pandas as pd

STYLE = Path(__file__).with_name("page.css")
SCRIPT = Path(__file__).with_name("page.js")
TEMPLATE = Path(__file__).with_name("page.html.j2")
MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
FACTS = "What these numbers are"
RELOAD = 15
"""Seconds until the page of a running grid reloads."""
DIGITS = 6
"""Decimals of the curves' values in the page."""
TRIAL_COLUMNS = (
    "seed", "status", "aubc", "aubc_paper", "last_accuracy", "mean_precision", "num_labels", "num_wasted", "seconds",
)  # fmt: skip

CellIds = Mapping[CellKey, int]


def report_page(
    report: Report,
    *,
    trials: pd.DataFrame,
    rounds: pd.DataFrame,
    details: Details,
    pictures: Mapping[Path, bytes],
    sprites: Sprites = NO_SPRITES,
    is_running: bool = False,
) -> str:
    """The text of the page. `pictures` are the contents of the pictures in the report's sections, by path.

    While the grid `is_running`, the page states it and reloads itself regularly.
    """
    # Imported here: --help and --dry-run of the commands that write reports do not need it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    ids = {cell_key(key): number for number, key in enumerate(_cells(trials))}
    # Escaping is the template's: a call of escape() for each text is a call that someone forgets.
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters |= {
        "strategy": strategy_name,
        "condition": condition_text,
        "dataset": dataset_label,
        "firm": lambda text: text.replace(" %", "\u00a0%"),  # a line must not begin with the unit
    }
    style, script = STYLE.read_text(encoding="utf-8"), SCRIPT.read_text(encoding="utf-8")
    return environment.get_template(TEMPLATE.name).render(
        report=report,
        sections=[section for section in report.sections if section.tables or section.lines or section.pictures],
        facts_title=FACTS,
        terms=TERMS if report.findings else (),
        is_empty=is_empty,
        empty_line=empty_line,
        summary=_summary(trials, details),
        ids=ids,
        dagger=DAGGER,
        reload=RELOAD if is_running else None,
        images={path: _image(path, content) for path, content in pictures.items()},
        multiples=draw_multiples(rounds),
        policy=_policy(style, script),
        # Marked as safe: our own files, numbers and colours in SVG, and JSON that cannot end its element.
        as_svg=Markup,
        style=Markup(style),
        script=Markup(script),
        data=Markup(_json(_data(trials, rounds, details, ids, sprites))),
    )


EMPTY = {"missing": "missing, no seed is finished", "not planned": "not planned", "none": "no such value", "-": "none"}
"""Beginning of a cell without a value -> what the line below the table says of it."""


def is_empty(text: str) -> bool:
    """Whether a cell has no value, so that the page shows a dot."""
    return _reason(text) is not None


def empty_line(table: Table) -> str:
    """The line below a table that explains its dots; empty without any."""
    reasons = [_reason(cell.text) for row in table.rows for cell in row.cells]
    counts = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons) if reason is not None}
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{reason} ({count})" for reason, count in counts.items())


def _reason(text: str) -> str | None:
    """The reason why a cell is empty; None for a value."""
    return next((reason for start, reason in EMPTY.items() if text == start or text.startswith(f"{start} (")), None)


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy: our style and script by hash, pictures inside the page or beside it, nothing else."""
    style_hash, script_hash = (base64.b64encode(sha256(text.encode()).digest()).decode() for text in (style, script))
    return (
        f"default-src 'none'; img-src data: 'self'; style-src 'sha256-{style_hash}'; "
        f"script-src 'sha256-{script_hash}'; base-uri 'none'; form-action 'none'"
    )


def _cells(trials: pd.DataFrame) -> list[object]:
    return [key for key, _ in trials.groupby(list(CellKey._fields), sort=False)]


def _summary(trials: pd.DataFrame, details: Details) -> list[str]:
    """The line of progress: finished trials, size of the grid, and the time of the last round."""
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
    return parts


def _count(number: int, noun: str) -> str:
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture as it is embedded in the page."""

    address: str
    """A `data:` address with the whole picture."""
    width: int | None
    """Width of a PNG in the page's pixels: slightly enlarged from the 150 dots per inch of our pictures."""


def _image(path: Path, content: bytes) -> Image:
    address = f"data:{MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(content).decode()}"
    is_png = content[:8] == b"\x89PNG\r\n\x1a\n"
    return Image(address=address, width=round(int.from_bytes(content[16:20]) * 0.72) if is_png else None)


def _data(
    trials: pd.DataFrame, rounds: pd.DataFrame, details: Details, ids: CellIds, sprites: Sprites
) -> dict[str, Any]:
    """The data for the script: the title and the trials of each cell, each trial with its curves, images and command.

    `reasons` are texts that say why a trial has no images; a trial has the number of its own.
    """
    reasons = {reason: number for number, reason in enumerate(dict.fromkeys(sprites.reasons.values()))}
    curves = {
        key: {
            "rounds": rows["round"].tolist(),
            "accuracy": [_number(value) for value in rows["accuracy"]],
            "precision": [_number(value) for value in rows["precision"]],
        }
        for key, rows in rounds.groupby(["fingerprint", "arm"], sort=False)
    }
    cells: list[dict[str, Any]] = [
        {"title": _cell_title(key), "uniform": _number(key.condition.uniform_precision), "trials": []} for key in ids
    ]
    for row in trials.to_dict("records"):
        key = CellKey(row["dataset"], row["mismatch_ratio"], row["ood_ratio"], row["arm"])
        more = details.get(row["fingerprint"], TrialDetails())
        images = sprites.by_fingerprint.get(row["fingerprint"])
        why = sprites.reasons.get(row["fingerprint"])
        cells[ids[key]]["trials"].append(
            {name: _number(row[name]) for name in TRIAL_COLUMNS}
            | {"command": more.command, "error": more.error}
            | curves.get((row["fingerprint"], row["arm"]), {"rounds": [], "accuracy": [], "precision": []})
            | ({"images": images} if images else {} if why is None else {"why": reasons[why]})
        )
    return {"cells": cells, "reasons": list(reasons)}


def _cell_title(key: CellKey) -> str:
    return f"{key.dataset}, {ratios_text(key.condition)}: {strategy_name(key.arm)}"


def _number(value: Any) -> Any:
    """A value that JSON can hold: None for NaN, floats rounded."""
    if isinstance(value, str) or value is None:
        return value
    number = float(value)
    if math.isnan(number):
        return None
    return int(number) if number.is_integer() and not isinstance(value, float) else round(number, DIGITS)


def _json(data: Any) -> str:
    """JSON text that cannot end the script element that contains it."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
