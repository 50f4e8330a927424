"""Table 9, which the paper does not have: every purity detector, compared as labels are bought.

python experiments/table9.py --preset demo
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments.commands.grid import main_of
from experiments.commands.grid_command import GridCommand
from experiments.tables.table9 import CAPTION_ROWS, ROWS
from orchestrator.ledger.output import OutputFolder
from orchestrator.plan import PlannedTrial

LABELS = (0, 20, 60, 150, 500, 1500, 5000)
"""Labels bought at each stage, if the preset gives none."""


def report_detection(planned: Sequence[PlannedTrial], output: OutputFolder, args: argparse.Namespace) -> list[Path]:
    """Write the report into the folder table9 of the output folder, print its tables, and return the files."""
    from experiments.pages.detection import write_detection_report

    folder = output.path / TABLE9.name
    files, text = write_detection_report(folder, planned, title=TABLE9.title, notes=TABLE9.notes)
    print(f"\n{text}")
    if not args.quiet:
        print(f"\nresults in {folder}:\n  " + "  ".join(file.name for file in files.all))
    return list(files.all)


TABLE9 = GridCommand(
    name="table9",
    title="Table 9: purity detectors as labels are bought",
    description="Compare the purity detectors at growing numbers of labels. No classifier is trained. Running it again "
    "continues. The labels at which they are compared: --set detection.labels=[0,20,60] --rounds 3.",
    rows=lambda strategies: tuple(row for row in ROWS if row not in CAPTION_ROWS),
    further_rows=lambda settings: CAPTION_ROWS if settings.get("clipn", {}).get("captioner") else (),
    settings={"detection": {"labels": LABELS}, "rounds": len(LABELS)},
    report=report_detection,
)


def main() -> int:
    """Run the command, and return its exit code."""
    return main_of(TABLE9)


if __name__ == "__main__":
    sys.exit(main())
