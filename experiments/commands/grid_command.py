"""The command line of the commands that run a grid: which table, which preset, and what the flags change of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.console import CommandParser
from data.files import path_argument
from experiments.commands.flags import (
    add_output_flags,
    add_run_flags,
    add_trial_flags,
    comma_list,
    experiment_name,
    given,
    given_run_settings,
    ood_ratio,
    ray_address,
    seed_list,
    strategy_names,
    trial_overrides,
)
from experiments.presets import ARMS, PRESETS
from experiments.results.paper import PaperValues
from experiments.tables.table import Table
from orchestrator.ledger.output import OutputFolder
from orchestrator.plan import PlannedTrial
from orchestrator.settings.grid import GridConfig, Nested, RunSettings, load_preset, merge, preset_name

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class GridCommand:
    """The command of a table: what it runs, and how its tables are made from the results.

    Its data sets, ratios and settings are the preset's, changed by the preset's section `tables: {<name>: ...}`.
    """

    name: str
    """Name of the files it writes, of their folder in the output folder, and of its section in presets."""
    title: str
    description: str
    tables: Callable[[pd.DataFrame, pd.DataFrame], list[Table]] = lambda trials, rounds: []
    """Makes the tables of the frames `trials` and `rounds` (`experiments.results.frames`); empty for figures."""
    preset: str = "paper"
    """Preset that it takes if the command line names none."""
    rows: Callable[[tuple[str, ...]], tuple[str, ...]] = tuple
    """Makes the names of its strategies and arms from the preset's, if the command line gives none."""
    further_rows: Callable[[Nested], tuple[str, ...]] = lambda settings: ()
    """Makes further names of rows from the settings of its trials, if the command line gives none."""
    paper: Callable[[], PaperValues] = dict
    """Reads the paper's values."""
    notes: tuple[str, ...] = ()
    """Lines that the report prints below its tables."""
    settings: Nested | None = None
    """Settings of its trials if the preset has no `detection`, for a command that needs detection trials."""
    report: Callable[[Sequence[PlannedTrial], OutputFolder, argparse.Namespace], list[Path]] | None = None
    """Writes and prints its report, and returns the files; None: the report that the paper's tables share."""


def make_parser(command: GridCommand) -> CommandParser:
    """The command line of a grid command."""
    parser = CommandParser(
        prog=f"{command.name}.py",
        description=command.description,
        epilog=f"Example: {command.name}.py --preset demo --seeds 0-4 --dry-run",
    )
    grid = parser.add_argument_group("the grid (default: the preset's)")
    presets = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
    grid.add_argument(
        "--preset", default=command.preset, metavar="NAME",
        help=f"settings to start from: {presets} (default: {command.preset})",
    )  # fmt: skip
    grid.add_argument("--datasets", type=comma_list(str), metavar="A,B", help="data sets, or folder:<path>")
    grid.add_argument("--mismatch-ratios", type=comma_list(float), metavar="R,R", help="shares of ID classes")
    grid.add_argument(
        "--ood-ratios", type=comma_list(ood_ratio), metavar="R,R",
        help="shares of OOD images in the pool; all: every OOD image there is",
    )  # fmt: skip
    grid.add_argument(
        "--strategies",
        type=comma_list(str),
        metavar="A,B",
        help=f"query strategies: {strategy_names()}; or rows with settings of their own: {', '.join(ARMS)}",
    )
    seeds = grid.add_mutually_exclusive_group()
    seeds.add_argument("--seeds", type=seed_list, metavar="N-N", help="seeds, for example 0-4 or 0,2")
    seeds.add_argument(
        "--lite", action="store_true", help="the preset's first seed alone: every cell once; more seeds can be added"
    )
    add_trial_flags(parser)
    _add_run_flags(parser, command)
    add_output_flags(parser)
    return parser


def _add_run_flags(parser: CommandParser, command: GridCommand) -> None:
    run = parser.add_argument_group("how it is run (default: the preset's)")
    run.add_argument(
        "-o", "--output-dir", type=path_argument, metavar="DIR",
        help=f"records, shared by all tables, and the report in its folder {command.name} (default: runs/<preset>)",
    )  # fmt: skip
    only = run.add_mutually_exclusive_group()
    only.add_argument("--dry-run", action="store_true", help="print what is left and what it costs; compute nothing")
    only.add_argument("--status", action="store_true", help="print the progress of the last launch; only read")
    run.add_argument(
        "--rates", type=Path, metavar="FILE",
        help="with --dry-run: estimate trials on a GPU from the JSON file of make gpu-check, before any has run",
    )  # fmt: skip
    run.add_argument(
        "--address", default="auto", type=ray_address, metavar="ADDRESS",
        help="Ray cluster: auto (a running one, else a local one), local, or an address (default: auto)",
    )  # fmt: skip
    add_run_flags(parser, run, RunSettings.model_fields)
    where = run.add_mutually_exclusive_group()
    where.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow (default: $MLFLOW_TRACKING_URI, else a file in DIR)"
    )
    where.add_argument("--no-tracking", action="store_true", help="keep MLflow out of it")
    run.add_argument(
        "--experiment-name", default=f"vlpure-{command.name}", type=experiment_name, metavar="NAME",
        help=f"experiment in MLflow (default: vlpure-{command.name})",
    )  # fmt: skip


def grid_of(command: GridCommand, args: argparse.Namespace) -> GridConfig:
    """The preset of the command, with the changes of the command line."""
    axes = {name: getattr(args, name) for name in ("datasets", "mismatch_ratios", "ood_ratios", "strategies", "seeds")}
    changed = given_run_settings(args)
    grid = load_preset(PRESETS, args.preset, given(axes), changed, table=command.name, arms=ARMS)
    if args.lite:
        grid = grid.model_copy(update={"seeds": grid.seeds[:1]})
    if command.settings and not grid.trial.get("detection"):
        grid = grid.model_copy(update={"trial": merge(grid.trial, command.settings)})
    if args.strategies:
        return grid
    rows = command.rows(grid.strategies) + command.further_rows(merge(grid.trial, trial_overrides(args)))
    return grid.model_copy(update={"strategies": rows})


def output_path(args: argparse.Namespace) -> Path:
    """The output folder that the flags name."""
    path: Path = args.output_dir or Path("runs") / preset_name(args.preset)
    return path
