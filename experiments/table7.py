"""The paper's Table 7: VLPure with and without self-temperature tuning and visual similarity weights.

python experiments/table7.py --preset demo
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments.commands.grid import main_of
from experiments.commands.grid_command import GridCommand
from experiments.results.paper import paper_table4, paper_table7
from experiments.tables.tables7and8 import BEST_OF_SEVERAL, PARTS, baselines, table7_tables

TABLE7 = GridCommand(
    name="table7",
    title="Table 7",
    description="Run the grid of the paper's Table 7 and write the table. Running it again continues.",
    tables=lambda trials, rounds: table7_tables(trials),
    rows=lambda strategies: (*baselines(strategies), *PARTS),
    paper=lambda: {"aubc_paper": paper_table4() | paper_table7()},
    notes=(BEST_OF_SEVERAL, "Without tuning the logit scale is 10 (purity.fixed_scale)."),
)


def main() -> int:
    """Run the command, and return its exit code."""
    return main_of(TABLE7)


if __name__ == "__main__":
    sys.exit(main())
