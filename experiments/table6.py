"""The paper's Table 6: CLIPN's image tower as the classifier: zero-shot, a linear head round by round, all labels.

python experiments/table6.py --preset demo
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments.commands.grid import main_of
from experiments.commands.grid_command import GridCommand
from experiments.tables.table6 import FULL_SHOT, ROUNDS, ZERO_SHOT, table6_tables

TABLE6 = GridCommand(
    name="table6",
    title="Table 6",
    description="Run the trials of the paper's Table 6 and write the table. Running it again continues.",
    tables=table6_tables,
    rows=lambda strategies: (ZERO_SHOT, ROUNDS, FULL_SHOT),
    notes=(
        'zero-shot: the ID class whose "yes" text is nearest in CLIPN, no label. Rounds: VLPure with a linear head on '
        "CLIPN's frozen image tower. full-shot: the same head on all ID training images. The OOD ratio concerns the "
        "rounds alone; the paper does not state it, its code has 60 %.",
    ),
)


def main() -> int:
    """Run the command, and return its exit code."""
    return main_of(TABLE6)


if __name__ == "__main__":
    sys.exit(main())
