"""The files of a report, each written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from data.storage import write_atomically, write_text_atomically
from experiments.reporting.details import Details
from experiments.reporting.figures import curves_png
from experiments.reporting.layout import Table
from experiments.reporting.paper_values import PaperValues
from experiments.reporting.tables import cells_frame, report_markdown

if TYPE_CHECKING:
    import pandas as pd

SHARES = dict.fromkeys(("mean", "sd", "interval_low", "interval_high", "paper"), 6)
"""Decimals of the table's CSV file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture that a report shows: a PNG or SVG file in its folder."""

    path: Path
    title: str
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFiles:
    """Where a report lies."""

    trials: Path
    rounds: Path
    table_markdown: Path
    table_csv: Path
    curves: Path | None
    """None as long as no round is finished."""

    @property
    def all(self) -> tuple[Path, ...]:
        """The files that exist."""
        files = (self.trials, self.rounds, self.table_markdown, self.table_csv)
        return files if self.curves is None else (*files, self.curves)


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
) -> ReportFiles:
    """Write the report of a grid into `folder`, which is created if needed.

    `name` names the files (`table4.md`), `title` heads them. `tables` are shown first, as they are. `trials` and
    `rounds` are the frames of `reporting.frames`: everything else is computed from them. `notes` are lines for the
    footer. `details` are of the single trials, by fingerprint. `paper` holds the paper's values, shares in [0, 1], a
    metric (`aubc_paper`, `last_accuracy`) a mapping; None: there are none to stand beside ours. `pictures` are shown in
    the page, after the report's own. `compared` are the strategies that the statistics compare; None: all that have a
    rival in their condition.

    trials.csv and rounds.csv keep every digit, the other CSV files six decimals. Raises OSError where the folder cannot
    be written.
    """
    files = ReportFiles(
        trials=folder / "trials.csv",
        rounds=folder / "rounds.csv",
        table_markdown=folder / f"{name}.md",
        table_csv=folder / f"{name}.csv",
        curves=None if rounds.empty else folder / "curves.png",
    )
    write_text_atomically(files.trials, trials.to_csv(index=False))
    write_text_atomically(files.rounds, rounds.to_csv(index=False))
    write_text_atomically(files.table_markdown, report_markdown(title, tables, trials, notes=notes))
    write_text_atomically(files.table_csv, cells_frame(trials, paper).round(SHARES).to_csv(index=False))
    if files.curves is not None:
        _write_bytes(files.curves, curves_png(rounds))
    return files


def _write_bytes(path: Path, content: bytes) -> None:
    def write(file: BinaryIO) -> None:
        file.write(content)

    write_atomically(path, write)
