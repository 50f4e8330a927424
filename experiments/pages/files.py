"""Writes the files of a report, each whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.files import write_bytes_atomically, write_text_atomically
from experiments.pages.content import Report, make_report
from experiments.pages.html import report_page
from experiments.pages.latex import report_latex
from experiments.pages.markdown import report_markdown
from experiments.pages.sprites import NO_SPRITES, Sprites, make_sprites, write_sprites
from experiments.plots.curves import curves_png
from experiments.results.comparison import collect_scores
from experiments.results.details import Details
from experiments.results.frames import csv_text
from experiments.results.paper import PaperValues
from experiments.results.queries import Queries
from experiments.results.statistics import Condition
from experiments.tables.comparisons import compared_strategies, comparisons_frame
from experiments.tables.facts import box_frame
from experiments.tables.table import Picture as Picture
from experiments.tables.table import Table
from experiments.tables.table4 import cells_frame

if TYPE_CHECKING:
    import pandas as pd

MOST_DRAWN = 12
"""Most conditions whose curves are drawn as a PNG for Markdown: 36 took ten CPU seconds and came out a metre high."""
SHARES = dict.fromkeys(("mean", "sd", "interval_low", "interval_high", "paper"), 6)
"""Decimals of the CSV files of cells and comparisons."""
P_VALUES = dict.fromkeys(("p_t", "p_t_holm", "p_sign_flip", "p_sign_flip_holm"), 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFiles:
    """Paths of the files of a report."""

    page: Path
    """The HTML page, which holds the whole report in one file."""
    all: tuple[Path, ...]
    """Every file, the page first."""


def write_report(
    folder: Path,
    *,
    name: str,
    title: str,
    tables: Sequence[Table],
    trials: pd.DataFrame,
    rounds: pd.DataFrame,
    notes: Sequence[str] = (),
    details: Details | None = None,
    paper: PaperValues | None = None,
    pictures: Sequence[Picture] = (),
    compared: Sequence[str] | None = None,
    queries: Queries | None = None,
) -> ReportFiles:
    """Write the report of a grid into `folder`, which is created if needed.

    `name` names the files (`table4.md`), `title` heads them. `tables` are shown first, unchanged. `trials` and
    `rounds` are the frames of `experiments.results.frames`: everything else is computed from them. `notes` are lines
    for the honesty box. `details` are of the single trials, by fingerprint. `paper` holds the paper's values, shares
    in [0, 1], one mapping per metric (`aubc_paper`, `last_accuracy`); None: the paper has no values to compare with.
    `pictures` (existing PNG or SVG files) are shown after the tables. `compared` are the strategies that the
    statistics compare; None: all that have a rival in their condition. `queries` are the queried images that are at
    hand (`experiments.results.queries`); None: the page shows none.

    Written are index.html, <name>.md, <name>.tex, <name>.csv (a row per cell and metric), <name>-comparisons.csv (a row
    per paired comparison), <name>-facts.csv (hardware, software, code and departures), trials.csv, rounds.csv, and the
    pictures curves.png (of up to `MOST_DRAWN` conditions), ranks.png and penalties.png if there is something to draw.
    If the queried images are too many for the page, the folder `queries` too, which is not among the files returned.
    trials.csv and rounds.csv keep every digit, the other CSV files six decimals. Raises OSError if the folder cannot be
    written.
    """
    details = details or {}
    sprites = NO_SPRITES if queries is None else make_sprites(queries)
    page, report, own = _page(
        folder,
        title=title,
        tables=tables,
        trials=trials,
        rounds=rounds,
        notes=notes,
        details=details,
        paper=paper,
        pictures=pictures,
        compared=compared,
        sprites=sprites,
    )
    frames = {
        folder / f"{name}.csv": cells_frame(trials, paper).round(SHARES),
        folder / f"{name}-comparisons.csv": _comparisons(trials, compared),
        folder / "trials.csv": trials,
        folder / "rounds.csv": rounds,
        folder / f"{name}-facts.csv": box_frame(trials, details),
    }
    texts = {
        folder / "index.html": page,
        folder / f"{name}.md": report_markdown(report),
        folder / f"{name}.tex": report_latex(report),
    } | {path: csv_text(frame) for path, frame in frames.items()}
    for path, text in texts.items():
        write_text_atomically(path, text)
    write_sprites(folder, sprites)
    for path, picture in own.items():
        write_bytes_atomically(path, picture)
    return ReportFiles(page=folder / "index.html", all=(*texts, *own))


def write_running_page(
    path: Path,
    *,
    title: str,
    tables: Sequence[Table],
    trials: pd.DataFrame,
    rounds: pd.DataFrame,
    notes: Sequence[str],
    details: Details,
    paper: PaperValues,
) -> None:
    """Write the page of a running grid, which reloads itself regularly; arguments as for `write_report`.

    The other files of a report are written when the grid has ended. Raises OSError if it cannot be written.
    """
    page, _, _ = _page(
        path.parent,
        title=title,
        tables=tables,
        trials=trials,
        rounds=rounds,
        notes=notes,
        details=details,
        paper=paper,
        is_running=True,
    )
    write_text_atomically(path, page)


def _page(
    folder: Path,
    *,
    title: str,
    tables: Sequence[Table],
    trials: pd.DataFrame,
    rounds: pd.DataFrame,
    notes: Sequence[str],
    details: Details,
    paper: PaperValues | None,
    pictures: Sequence[Picture] = (),
    compared: Sequence[str] | None = None,
    sprites: Sprites = NO_SPRITES,
    is_running: bool = False,
) -> tuple[str, Report, dict[Path, bytes]]:
    """The page, the report that it shows, and the pictures that were drawn for it, by path."""
    drawn: dict[Path, bytes] = {picture.path: picture.path.read_bytes() for picture in pictures}
    shown = list(pictures)
    own: dict[Path, bytes] = {}
    num_conditions = len(rounds[list(Condition._fields)].drop_duplicates())
    if 0 < num_conditions <= MOST_DRAWN:
        curves = Picture(
            path=folder / "curves.png",
            title="Curves",
            caption="Precision of the queries and test accuracy over rounds.",
            is_on_page=False,
        )
        own[curves.path] = curves_png(rounds)
        shown.insert(0, curves)
    report = make_report(
        folder,
        title=title,
        tables=tables,
        trials=trials,
        rounds=rounds,
        notes=notes,
        details=details,
        paper=paper or {},
        pictures=shown,
        compared=compared,
    )
    own |= dict(report.drawn)
    page = report_page(
        report,
        trials=trials,
        rounds=rounds,
        details=details,
        pictures=drawn | own,
        sprites=sprites,
        is_running=is_running,
    )
    return page, report, own


def _comparisons(trials: pd.DataFrame, compared: Sequence[str] | None) -> pd.DataFrame:
    strategies = [name for name in compared_strategies(trials) if compared is None or name in compared]
    chosen = trials[trials["arm"].isin(strategies) & (trials["ood_ratio"] > 0)]
    return comparisons_frame(collect_scores(chosen, "aubc")).round(SHARES | P_VALUES)
