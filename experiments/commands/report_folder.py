"""The folder of a grid's report: a part of a grid that has a report already gets a folder of its own."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.files import content_hash
from orchestrator.plan import PlannedTrial

COUNTED = {
    "dataset": "data sets", "mismatch_ratio": "mismatch ratios", "ood_ratio": "OOD ratios", "strategy": "strategies",
    "seed": "seeds",
}  # fmt: skip
"""Column of trials.csv -> what its values are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFolder:
    """The folder of a report."""

    path: Path
    note: str | None
    """What of the wider grid it shows, for its readers; None for a report that is no part of another."""


def report_folder(output: Path, name: str, planned: Sequence[PlannedTrial]) -> ReportFolder:
    """The folder `name` in `output`, or one beside it if the report there has all of these trials and more.

    A smaller question must not replace the answer to the bigger one. A grid that has a trial which the report lacks is
    no part of it, and replaces it.
    """
    whole = output / name
    known = _trials_in(whole / "trials.csv")
    own = {(each.row, each.fingerprint) for each in planned}
    if not own < known.keys():
        return ReportFolder(path=whole, note=None)
    key = content_hash(sorted(own))[:6]
    parts = []
    for column, what in COUNTED.items():
        every = {row[column] for row in known.values()}
        some = {known[trial][column] for trial in own}
        if len(some) < len(every):
            parts.append(f"{len(some)} of {len(every)} {what}")
    counted = ", ".join([f"{len(own)} of {len(known)} trials", *parts])
    return ReportFolder(
        path=output / f"{name}-part-{key}", note=f"a part of the grid ({counted}); the whole is in the folder {name}"
    )


def _trials_in(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    """The rows of a report's trials.csv by strategy and fingerprint; none if it is not there or is no such file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    if not all(column in row for row in rows for column in (*COUNTED, "fingerprint")):
        return {}
    return {(row["strategy"], row["fingerprint"]): row for row in rows}
