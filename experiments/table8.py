"""The paper's Table 8: CONF, LL and CORESET alone and behind the purity step.

python experiments/table8.py --preset demo
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments.commands.grid import main_of
from experiments.commands.grid_command import GridCommand
from experiments.results.paper import paper_table4, paper_table8
from experiments.results.statistics import unique
from experiments.tables.tables7and8 import BEHIND, BEST_OF_SEVERAL, baselines, table8_tables

TABLE8 = GridCommand(
    name="table8",
    title="Table 8",
    description="Run the grid of the paper's Table 8 and write the table. Running it again continues.",
    tables=lambda trials, rounds: table8_tables(trials),
    rows=lambda strategies: tuple(unique([*baselines(strategies), *BEHIND, *BEHIND.values()])),
    paper=lambda: {"aubc_paper": paper_table4() | paper_table8()},
    notes=(BEST_OF_SEVERAL,),
)


def main() -> int:
    """Run the command, and return its exit code."""
    return main_of(TABLE8)


if __name__ == "__main__":
    sys.exit(main())
