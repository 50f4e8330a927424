"""The paper's Table 4: AUBC of each strategy, data set, mismatch ratio and OOD ratio.

python experiments/table4.py --preset demo
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments.commands.grid import main_of
from experiments.commands.grid_command import GridCommand
from experiments.results.paper import paper_table4
from experiments.tables.table4 import table4_tables

TABLE4 = GridCommand(
    name="table4",
    title="Table 4",
    description="Run the grid of the paper's Table 4 and write the table. Running it again continues.",
    tables=lambda trials, rounds: table4_tables(trials),
    paper=lambda: {"aubc_paper": paper_table4()},
)


def main() -> int:
    """Run the command, and return its exit code."""
    return main_of(TABLE4)


if __name__ == "__main__":
    sys.exit(main())
