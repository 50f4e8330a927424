"""The files of a report, each written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from data.storage import write_atomically, write_text_atomically
from experiments.reporting.figures import curves_png
from experiments.reporting.layout import Table
from experiments.reporting.tables import report_markdown, table4_frame

if TYPE_CHECKING:
    import pandas as pd

SHARES = dict.fromkeys(("mean", "sd", "interval_low", "interval_high", "paper"), 6)
"""Decimals of the table's CSV file."""


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
) -> ReportFiles:
    """Write trials.csv, rounds.csv, <name>.md, <name>.csv and curves.png into `folder`, which is created if needed.

    trials.csv and rounds.csv keep every digit, <name>.csv six decimals. `notes` are lines for the footer of <name>.md.
    Raises OSError where the folder cannot be written.
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
    write_text_atomically(files.table_csv, table4_frame(trials).round(SHARES).to_csv(index=False))
    if files.curves is not None:
        _write_bytes(files.curves, curves_png(rounds))
    return files


def _write_bytes(path: Path, content: bytes) -> None:
    def write(file: BinaryIO) -> None:
        file.write(content)

    write_atomically(path, write)
