"""Prints the paper's Tables 1 to 3, computed by the data code.

python experiments/report.py --data
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments.flags import DONE, add_output_flags, run_command


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="report.py", description="Print tables of what there is.")
    parser.add_argument("--data", action="store_true", help="Tables 1 to 3: data sets and open-set problems")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="with --data: folder with the data sets' files")
    add_output_flags(parser)
    return parser


def main() -> int:
    """The command; its exit code."""
    return run_command(make_parser(), _run)


def _run(args: argparse.Namespace) -> int:
    if not args.data:
        raise ValueError("nothing to report: give --data")
    from experiments.reporting.data_tables import data_tables
    from experiments.reporting.layout import render_text

    print("\n".join(render_text(table, width=160) for table in data_tables(args.data_root)))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
