"""The texts of a publication: what it is, how to cite it, and what Zenodo reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

LICENCE = "Apache-2.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What records do not say about themselves."""

    title: str = "VLPure: open-set active learning"
    authors: tuple[str, ...] = ("The VLPure authors",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Facts about all records of a publication."""

    version: str
    date: str
    """Day of the newest record, UTC, as 2026-11-27."""
    num_trials: int
    hours: float
    """Sum of the rounds' seconds, whichever ran at the same time, in hours."""
    hardware: Mapping[str, float]
    """Device and torch version -> hours."""
    kilowatt_hours: float | None
    """From CodeCarbon's files; None if no run folder has one."""


def facts(summary: Summary) -> Iterator[str]:
    """Lines for the page: size, cost and hardware."""
    trials = f"{summary.num_trials:,} trial{'s' if summary.num_trials > 1 else ''}"
    yield f"Published as version {summary.version}: {trials}, {summary.hours:,.2f} hours of rounds."
    for device, hours in summary.hardware.items():
        yield f"Hardware: {device}, {hours:,.2f} hours."
    if summary.kilowatt_hours is not None:
        yield f"Energy: {summary.kilowatt_hours:,.3f} kWh, as CodeCarbon measured it."


def hardware_csv(summary: Summary) -> str:
    """Hours of each device, as CSV."""
    rows = (f'"{device}",{hours:.4f}\n' for device, hours in summary.hardware.items())
    return "".join(["device,hours\n", *rows])


def readme(card: Card, summary: Summary) -> str:
    """What the folder holds and how it is made again."""
    lines = "\n".join(f"- {line}" for line in facts(summary))
    return f"""# {card.title}, version {summary.version}

{lines}

`index.html` is the report, in one file; `report.csv` has a row per cell and metric, `cells/` the rounds of each cell,
`trials.csv` and `rounds.csv` everything. `constraints.txt` fixes the packages; `sha256sum --check SHA256SUMS` checks
all files.

To make every file again, to the byte, in a clone of the project after `make setup` with this `constraints.txt`:

    .venv/bin/python experiments/report.py {summary.version}/records --publish again

Licence: {LICENCE} (`LICENSE`). Citation: `CITATION.cff`.
"""


def citation(card: Card, summary: Summary) -> str:
    """CITATION.cff. JSON's texts are YAML's, too."""
    authors = "".join(f"  - name: {json.dumps(name)}\n" for name in card.authors)
    return (
        "cff-version: 1.2.0\n"
        "message: If you use these results, please cite them as below.\n"
        "type: dataset\n"
        f"title: {json.dumps(card.title)}\n"
        f"version: {json.dumps(summary.version)}\n"
        f"date-released: {summary.date}\n"
        f"license: {LICENCE}\n"
        f"authors:\n{authors}"
    )


def zenodo(card: Card, summary: Summary) -> str:
    """.zenodo.json: the metadata of a deposit."""
    values = {
        "title": card.title,
        "upload_type": "dataset",
        "description": " ".join(f"<p>{escape(line)}</p>" for line in facts(summary)),
        "creators": [{"name": name} for name in card.authors],
        "version": summary.version,
        "publication_date": summary.date,
        "license": LICENCE.lower(),
        "keywords": ["active learning", "open-set recognition", "vision-language models"],
    }
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def index_page(titles: Mapping[str, str]) -> str:
    """The page that leads to each version, the newest first; `titles` by version."""
    rows = "\n".join(
        f'<li><a href="{escape(version)}/index.html">{escape(version)}</a> {escape(titles[version])}</li>'
        for version in sorted(titles, reverse=True)
    )
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        "<title>Published results</title>\n"
        "<style>body { font: 16px/1.5 sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem }</style>\n"
        f"<h1>Published results</h1>\n<ul>\n{rows}\n</ul>\n</html>\n"
    )
