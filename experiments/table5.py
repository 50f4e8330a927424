"""The paper's Table 5: DomainNet, one domain at a time, by strategy; with and without the domain in the prompts.

python experiments/table5.py --preset demo --data-root DIR --clipn-checkpoint FILE --clip-model FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments.commands.grid import main_of
from experiments.commands.grid_command import GridCommand
from experiments.results.paper import paper_table5_last_accuracy
from experiments.results.statistics import unique
from experiments.tables.table5 import table5_tables

TABLE5 = GridCommand(
    name="table5",
    title="Table 5",
    description="Run the grid of the paper's Table 5 (DomainNet) and write the table. Running it again continues.",
    tables=lambda trials, rounds: table5_tables(trials),
    rows=lambda strategies: tuple(unique([*strategies, "vlpure", "vlpure-domain"])),
    paper=lambda: {"last_accuracy": paper_table5_last_accuracy()},
    notes=(
        "DomainNet's split reads neither ratio: every condition shows 50 % / 50 %. The paper has 50 ID classes of one "
        "domain, and all other images of all six domains as OOD; drawings (python -m data.drawings) do not test it.",
        "The paper's AUBC fits neither rule well (MQNet on real: 58.80, with 61.26 in the last round): it is shown "
        "next to both, and nothing is subtracted.",
    ),
)


def main() -> int:
    """Run the command, and return its exit code."""
    return main_of(TABLE5)


if __name__ == "__main__":
    sys.exit(main())
