"""What every command that runs a grid shares: its flags, its run, its report."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.flags import (
    DONE,
    INTERRUPTED,
    PRESETS,
    SOME_FAILED,
    add_gpu_flags,
    add_output_flags,
    add_trial_flags,
    comma_list,
    given,
    run_command,
    seed_list,
    trial_overrides,
)
from experiments.progress import Progress
from orchestrator.grid import GridConfig, load_preset
from orchestrator.output import OutputFolder, open_output
from orchestrator.plan import PlannedTrial, look_up, plan_trials
from orchestrator.tracking import Tracker, default_tracking_uri, masked


@dataclass(frozen=True, slots=True, kw_only=True)
class GridCommand:
    """A table's command."""

    name: str
    """Of the files it writes, and of its default output folder."""
    title: str
    description: str


def make_parser(command: GridCommand) -> argparse.ArgumentParser:
    """The command line of a grid command."""
    parser = argparse.ArgumentParser(
        prog=f"{command.name}.py",
        description=command.description,
        epilog=f"Example: {command.name}.py --preset demo --seeds 0-4 --dry-run",
    )
    grid = parser.add_argument_group("the grid (default: the preset's)")
    presets = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
    grid.add_argument(
        "--preset", default="paper", metavar="NAME", help=f"settings to start from: {presets} (default: paper)"
    )
    grid.add_argument("--datasets", type=comma_list(str), metavar="A,B", help="data sets, or folder:<path>")
    grid.add_argument("--mismatch-ratios", type=comma_list(float), metavar="R,R", help="shares of ID classes")
    grid.add_argument("--ood-ratios", type=comma_list(float), metavar="R,R", help="shares of OOD images in the pool")
    grid.add_argument("--strategies", type=comma_list(str), metavar="A,B", help="query strategies")
    grid.add_argument("--seeds", type=seed_list, metavar="N-N", help="seeds, for example 0-4 or 0,2")
    add_trial_flags(parser)
    _add_run_flags(parser, command)
    add_output_flags(parser)
    return parser


def _add_run_flags(parser: argparse.ArgumentParser, command: GridCommand) -> None:
    run = parser.add_argument_group("how it is run")
    run.add_argument(
        "-o", "--output-dir", type=Path, metavar="DIR", help=f"results (default: runs/{command.name}-<preset>)"
    )
    run.add_argument("--dry-run", action="store_true", help="print what is done and what is left; compute nothing")
    run.add_argument(
        "--address", default="auto", metavar="ADDRESS",
        help="Ray cluster: auto (a running one, else a local one), local, or an address (default: auto)",
    )  # fmt: skip
    run.add_argument("--max-concurrent", type=int, metavar="N", help="most trials at a time (default: what fits)")
    run.add_argument("--cpus-per-trial", type=int, metavar="N", help="CPUs and torch threads of a trial")
    run.add_argument("--gpus-per-trial", type=float, metavar="X", help="GPUs of a trial; 0.25: four trials a card")
    run.add_argument("--scorers", type=int, metavar="N", help="scoring actors")
    run.add_argument("--gpus-per-scorer", type=float, metavar="X", help="GPUs of a scoring actor")
    add_gpu_flags(run)
    run.add_argument("--tracking-uri", metavar="URI", help="MLflow (default: an SQLite file in the output folder)")
    run.add_argument("--experiment-name", default=f"vlpure-{command.name}", metavar="NAME", help="experiment in MLflow")
    run.add_argument("--no-tracking", action="store_true", help="keep MLflow out of it")


def main_of(command: GridCommand) -> int:
    """Run a grid command; its exit code."""
    return run_command(make_parser(command), lambda args: _run(command, args))


def _run(command: GridCommand, args: argparse.Namespace) -> int:
    grid = _grid(args)
    path = args.output_dir or Path("runs") / f"{command.name}-{args.preset}"
    output = open_output(path)
    planned = plan_trials(grid.trials(trial_overrides(args)), output.ledger)
    progress = Progress(planned, ledger=output.ledger, quiet=args.quiet, verbose=args.verbose)
    progress.plan(command.title, output.path)
    if args.dry_run:
        progress.bill(grid.run)
        return DONE
    with output.locked() as locked:
        # Another launch may have finished trials between the plan and the lock.
        planned = refreshed(planned, locked)
        interrupted = _compute(planned, grid, locked, command, args, progress)
        planned = refreshed(planned, locked)
        _report(planned, locked, args)
    if interrupted:
        return INTERRUPTED
    return DONE if all(p.is_finished for p in planned) else SOME_FAILED


def refreshed(planned: Sequence[PlannedTrial], output: OutputFolder) -> list[PlannedTrial]:
    """The plan with what the ledger holds now."""
    return [look_up(output.ledger, p.trial, p.fingerprint, p.data_fingerprint) for p in planned]


def _grid(args: argparse.Namespace) -> GridConfig:
    """The preset with what the command line changes."""
    axes = {name: getattr(args, name) for name in ("datasets", "mismatch_ratios", "ood_ratios", "strategies", "seeds")}
    run = (
        "cpus_per_trial", "gpus_per_trial", "scorers", "gpus_per_scorer", "max_concurrent", "deterministic",
        "plain_steps",
    )  # fmt: skip
    return load_preset(PRESETS, args.preset, given(axes), given({name: getattr(args, name) for name in run}))


def _compute(
    planned: Sequence[PlannedTrial],
    grid: GridConfig,
    output: OutputFolder,
    command: GridCommand,
    args: argparse.Namespace,
    progress: Progress,
) -> bool:
    """Run what is left, with MLflow following; whether the user interrupted it."""
    todo = [p for p in planned if not p.is_finished]
    tracker = None
    if not args.no_tracking:
        tracker = Tracker(
            planned,
            output,
            uri=args.tracking_uri or default_tracking_uri(output.path),
            experiment=args.experiment_name,
            title=f"{command.title} ({args.preset})",
            tell=progress.warn,
        )
        tracker.start()
    interrupted = False
    try:
        if todo:
            from orchestrator.runner import run_grid  # Ray, only now that the input is known to be good

            run_grid(todo, output, grid.run, address=args.address, listener=progress)
    except KeyboardInterrupt:
        interrupted = True
        progress.warn("interrupted: every finished round is saved; the same command goes on from there")
    finally:
        if tracker is not None:
            progress.tell("MLflow: sending what is left")
            tracker.finish()
    return interrupted


def _report(planned: Sequence[PlannedTrial], output: OutputFolder, args: argparse.Namespace) -> None:
    """Write the tables and the picture, print the table, and say where everything lies."""
    from experiments.reporting.files import write_report
    from experiments.reporting.frames import rounds_frame, trials_frame
    from experiments.reporting.tables import table4_text

    trials = trials_frame(planned)
    files = write_report(output.path, trials=trials, rounds=rounds_frame(planned))
    print()
    print(table4_text(trials))
    for p in planned:
        if p.error is not None and not p.is_finished:
            print(f"failed: {p.trial.label}: {p.error}", file=sys.stderr)
    if args.quiet:
        return
    print(f"\nresults in {output.path}:")
    print("  " + "  ".join(file.name for file in files.all))
    if not args.no_tracking:
        uri = args.tracking_uri or default_tracking_uri(output.path)
        print("compare runs in the MLflow UI: " + ui_command(uri))


def ui_command(uri: str) -> str:
    """How to look at a tracking store."""
    if uri.startswith(("http://", "https://")):
        return masked(uri)
    return f"{Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {shlex.quote(masked(uri))}"
