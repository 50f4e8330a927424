"""Table 10, the protocol of the open-set annotation line: final accuracy, mean precision and recall of the queries.

python experiments/table10.py --preset open-set-annotation --strategies random,lfosa,eoal,e2oal,vlpure
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments.commands.grid import main_of
from experiments.commands.grid_command import GridCommand
from experiments.tables.table10 import table10_tables

TABLE10 = GridCommand(
    name="table10",
    title="Table 10",
    description="Run the protocol that LfOSA, EOAL, EAOA and E2OAL report on, and write its tables and curves. Running "
    "it again continues.",
    tables=table10_tables,
    preset="open-set-annotation",
    notes=(
        "Not in the paper. Under the preset open-set-annotation a share of the ID images is labelled at the start, all "
        "OOD images are in the pool, and the ID classes are drawn by the seed. The published codes of that line take "
        "the same ID classes for every seed: --set class_draw=open-set-annotation.",
    ),
)


def main() -> int:
    """Run the command, and return its exit code."""
    return main_of(TABLE10)


if __name__ == "__main__":
    sys.exit(main())
