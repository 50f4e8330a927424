"""Makes a report of the records of one or several run folders, or of an MLflow experiment.

python experiments/report.py runs/demo
python experiments/report.py --data                (the paper's Tables 1 to 3, computed by the data code)
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from data.files import path_argument

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data.console import DONE, CommandParser, run_command
from experiments.commands.flags import add_output_flags
from experiments.presets import ARMS
from experiments.results.statistics import CellKey, unique
from experiments.table4 import TABLE4
from experiments.table5 import TABLE5
from experiments.table6 import TABLE6
from experiments.table7 import TABLE7
from experiments.table8 import TABLE8
from experiments.table9 import TABLE9
from experiments.table10 import TABLE10

if TYPE_CHECKING:
    from experiments.results.from_ledgers import FoundTrials
    from orchestrator.plan import PlannedTrial

TABLES = (TABLE4, TABLE5, TABLE6, TABLE7, TABLE8, TABLE10)
"""The commands whose tables a report has, if they ran some of its trials."""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(
        prog="report.py",
        description="Make a report from records alone: tables, statistics, curves, and a page that needs no network.",
        epilog="Example: report.py runs/paper runs/more-seeds -o both",
    )
    parser.add_argument(
        "run_dirs",
        nargs="*",
        type=path_argument,
        metavar="RUN_DIR",
        help="output folder of a grid; several are reported together",
    )
    parser.add_argument(
        "--from-mlflow", metavar="URI", help="in place of folders: a tracking server, or sqlite:///FILE"
    )
    parser.add_argument("--experiment", metavar="NAME", help="with --from-mlflow: name of the experiment")
    parser.add_argument(
        "-o", "--output-dir", type=path_argument, metavar="DIR",
        help="folder of the report (default: report in the first RUN_DIR; with --from-mlflow: report)",
    )  # fmt: skip
    parser.add_argument("--data", action="store_true", help="in place of folders: Tables 1 to 3, on data and problems")
    parser.add_argument(
        "--data-root", type=path_argument, metavar="DIR", help="with --data: folder with the data sets' files"
    )
    parser.add_argument(
        "--publish", type=path_argument, metavar="DIR",
        help="in place of -o: a version for others to read, check and cite (docs/publishing.md)",
    )  # fmt: skip
    parser.add_argument(
        "--author", action="append", default=[], metavar="NAME", help="with --publish: who is cited; may be repeated"
    )
    parser.add_argument("--title", help="heading (default: names what the report was made from)")
    add_output_flags(parser)
    return parser


def main() -> int:
    """Run the command, and return its exit code."""
    return run_command(make_parser(), _run)


def _run(args: argparse.Namespace) -> int:
    if args.data:
        if args.run_dirs or args.from_mlflow is not None:
            raise ValueError("--data reports data sets, not runs: omit RUN_DIR and --from-mlflow")
        return _print_data(args)
    if args.data_root is not None:
        raise ValueError("--data-root is read only with --data; omit it")
    if args.from_mlflow is not None:
        return _report_mlflow(args)
    if args.experiment is not None:
        raise ValueError("--experiment names an experiment in MLflow; give --from-mlflow URI too")
    if args.author and args.publish is None:
        raise ValueError("--author is read only with --publish; omit it")
    if not args.run_dirs:
        raise ValueError(
            "nothing to report: give a RUN_DIR (the output folder of a grid), --from-mlflow URI, or --data"
        )
    return _report_folders(args) if args.publish is None else _publish(args)


def _print_data(args: argparse.Namespace) -> int:
    """Print Tables 1 to 3."""
    from experiments.tables.table import render_text
    from experiments.tables.tables1to3 import data_tables

    print("\n".join(render_text(table, width=160) for table in data_tables(args.data_root)))
    return DONE


def _report_folders(args: argparse.Namespace) -> int:
    """Write the report of run folders."""
    from experiments.results.from_ledgers import trials_of_ledgers

    found = trials_of_ledgers(args.run_dirs)
    for line in found.lines:
        print(f"warning: {line}", file=sys.stderr)
    names = ", ".join(folder.resolve().name for folder in args.run_dirs)
    return _write(found, args, default=args.run_dirs[0] / "report", title=f"Report of {names}")


def _publish(args: argparse.Namespace) -> int:
    """Publish the records of run folders, and print where."""
    from experiments.commands.publication import Card
    from experiments.commands.publish import publish

    if args.output_dir is not None:
        raise ValueError("--publish DIR names the folder itself; omit --output-dir")
    given = {"title": args.title, "authors": tuple(args.author)}
    card = Card(**{name: value for name, value in given.items() if value})

    def write(found: FoundTrials, folder: Path, title: str) -> None:
        quiet = argparse.Namespace(**vars(args) | {"output_dir": folder, "title": title, "quiet": True})
        _write(found, quiet, default=folder, title=title)

    folder = publish(args.run_dirs, args.publish, card, write)
    print(f"published: {folder / 'index.html'}")
    return DONE


def _report_mlflow(args: argparse.Namespace) -> int:
    """Write the report of an MLflow experiment."""
    if args.run_dirs:
        raise ValueError("give RUN_DIRs or --from-mlflow, not both")
    if args.publish is not None:
        raise ValueError("--publish keeps the records with the report, and MLflow has none: give RUN_DIRs")
    if args.experiment is None:
        raise ValueError("--from-mlflow needs --experiment NAME")
    from experiments.results.from_mlflow import trials_of_experiment

    found = trials_of_experiment(args.from_mlflow, args.experiment)
    return _write(found, args, default=Path("report"), title=f"Report of {args.experiment}")


def _write(found: FoundTrials, args: argparse.Namespace, *, default: Path, title: str) -> int:
    """Write the report, and print its tables and its path; Table 9's trials get a separate report in a folder."""
    detection = [each for each in found.planned if each.trial.detection is not None]
    others = replace(found, planned=[each for each in found.planned if each.trial.detection is None])
    if detection:
        _write_detection(detection, args, folder=(args.output_dir or default) / TABLE9.name)
    return _write_tables(others, args, default=default, title=title) if others.planned else DONE


def _write_detection(planned: list[PlannedTrial], args: argparse.Namespace, *, folder: Path) -> None:
    """Write and print the report of detection trials, which are in no other table."""
    from experiments.pages.detection import write_detection_report
    from experiments.results.from_ledgers import row_names, with_missing_seeds

    named = [replace(each, arm=row) for each, row in zip(planned, row_names(planned, ARMS), strict=True)]
    files, text = write_detection_report(folder, with_missing_seeds(named), title=TABLE9.title, notes=TABLE9.notes)
    print(text)
    if not args.quiet:
        print(f"report: {files.page}")


def _write_tables(found: FoundTrials, args: argparse.Namespace, *, default: Path, title: str) -> int:
    """Write and print the report of the trials that trained classifiers."""
    from experiments.pages.files import write_report
    from experiments.results.details import details_of
    from experiments.results.frames import rounds_frame, trials_frame
    from experiments.results.from_ledgers import cell_of, row_names, with_missing_seeds
    from experiments.results.queries import queries_of
    from experiments.tables.own import own_tables
    from experiments.tables.table4 import report_text

    named = [replace(each, arm=row) for each, row in zip(found.planned, row_names(found.planned, ARMS), strict=True)]
    cells: dict[str, set[CellKey]] = {
        command.title: {
            cell_of(now)
            for before, now in zip(found.planned, named, strict=True)
            if (before.fingerprint, before.row) in found.by_command.get(command.name, ())
        }
        for command in TABLES
    }
    planned = with_missing_seeds(named)
    trials, rounds = trials_frame(planned), rounds_frame(planned)
    tables = list(own_tables(trials, rounds, cells, {command.title: command.tables for command in TABLES}))
    notes = [
        *found.lines,
        *unique(note for command in TABLES if cells[command.title] for note in command.notes),
        "Made from records alone: a trial that never started is reported as missing only if another row of its "
        "condition has the seed.",
    ]
    paper: dict[str, dict[CellKey, float]] = {}
    # Reversed, so that the first table that has a value wins if several tables of the paper print the same cell.
    for command in reversed(TABLES):
        for metric, values in command.paper().items():
            paper.setdefault(metric, {}).update(values)
    files = write_report(
        args.output_dir or default,
        name="report",
        title=args.title or title,
        tables=tables,
        trials=trials,
        rounds=rounds,
        notes=notes,
        details=details_of(planned),
        paper=paper,
        # A publication shows no images: they belong to others, and a clone without them could not make it again.
        queries=queries_of(planned) if args.publish is None else None,
    )
    print(report_text(tables, trials, notes=notes))
    if not args.quiet:
        print(f"report: {files.page}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
