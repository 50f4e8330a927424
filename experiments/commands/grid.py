"""The run and the report that all commands which run a grid share."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.cache import NotKept, only_kept
from data.console import DONE, SOME_FAILED, run_command, to_stderr
from data.stopping import INTERRUPTED, stoppable
from experiments.commands.bill import bill_lines, this_machine
from experiments.commands.flags import (
    check_tracking_uri,
    ignored_flags,
    shared_card,
    slow_arithmetic,
    trial_overrides,
)
from experiments.commands.grid_command import GridCommand, grid_of, make_parser, output_path
from experiments.commands.live_page import LivePage
from experiments.commands.rates import GpuRates
from experiments.commands.report_folder import ReportFolder, report_folder
from experiments.commands.status import show_status
from experiments.commands.terminal import Progress
from experiments.results.reproduce import trial_command
from orchestrator.cluster.placement import parse_place
from orchestrator.cluster.run_grid import RayGivenUp, run_grid
from orchestrator.launch import note_launch
from orchestrator.ledger.classifiers import forget_finished
from orchestrator.ledger.output import OutputFolder, open_output
from orchestrator.ledger.repair import mending
from orchestrator.plan import PlannedTrial, distinct, look_up, plan_trials
from orchestrator.settings.grid import (
    AXES,
    ArmTrial,
    GridConfig,
)
from orchestrator.tracking.content import GridCard
from orchestrator.tracking.tracker import Tracker
from orchestrator.tracking.uri import URI_VARIABLE, default_tracking_uri, masked, without_secrets
from orchestrator.weights import check_weights

if TYPE_CHECKING:
    pass


def main_of(command: GridCommand) -> int:
    """Run a grid command, and return its exit code."""
    return run_command(make_parser(command), lambda args: _run(command, args))


def _run(command: GridCommand, args: argparse.Namespace) -> int:
    if args.status:
        return status_of(command, args)
    grid = grid_of(command, args)
    trials = grid.arm_trials(trial_overrides(args))
    return run_and_report(
        command, grid, trials, args, partial(_report, command=command, args=args), page=partial(_page, command=command)
    )


def status_of(command: GridCommand, args: argparse.Namespace) -> int:
    """Print the progress of the last launch of the command, and return the exit code."""
    _check_status_alone(args)
    return show_status(output_path(args), command.name)


def run_and_report(
    command: GridCommand,
    grid: GridConfig,
    trials: Sequence[ArmTrial],
    args: argparse.Namespace,
    report: Callable[[Sequence[PlannedTrial], OutputFolder], list[Path]],
    page: Callable[[Sequence[PlannedTrial], OutputFolder], Path] | None = None,
) -> int:
    """Run what the output folder lacks of the trials, then `report` on all of them; the exit code.

    `report` gives the files that it wrote, which go to MLflow; `page` writes the page alone, while the grid runs. With
    --dry-run the plan is printed and nothing else is done.
    """
    for option, place in (("--scorers-on", grid.run.scorers_on), ("--trials-on", grid.run.trials_on)):
        if place is not None:
            parse_place(place, option=option, share=1.0)
    output = open_output(output_path(args))
    if not args.no_tracking:
        uri = args.tracking_uri if args.tracking_uri is not None else default_tracking_uri(output.path)
        check_tracking_uri(uri, option=URI_VARIABLE if args.tracking_uri is None else "--tracking-uri")
    # A run sets damaged files aside and computes their trials again; a dry run, which changes nothing, names the first.
    try:
        # A dry run decodes no images: it would take minutes to say what the run costs.
        with only_kept() if args.dry_run else nullcontext():
            planned = plan_trials(trials, output.ledger if args.dry_run else mending(output.ledger, to_stderr))
    except NotKept as error:
        print(f"{command.title}: {len(trials)} trials. {error}; the run reads and checks the images first, once.")
        print("A dry run does not read them, and without them it cannot tell what is finished and what the rest costs.")
        return DONE
    progress = Progress(planned, ledger=output.ledger, quiet=args.quiet, verbose=args.verbose)
    if args.rates and not args.dry_run:
        raise ValueError("--rates is for --dry-run, which prints what they come to")
    advice = slow_arithmetic((p.trial for p in planned), gpus=grid.run.gpus_per_trial)
    advice += shared_card(grid.run.gpus_per_trial, address=args.address)
    for line in ignored_flags(args, [p.trial for p in planned]) + advice:
        progress.warn(line)
    progress.plan(command.title, output.path)
    if args.dry_run:
        rates = GpuRates.read(args.rates) if args.rates else None
        for line in bill_lines(
            planned, grid.run, output.ledger, address=args.address, machine=this_machine(), rates=rates
        ):
            print(line)
        return DONE
    with stoppable(), output.locked() as locked:
        check_weights(p.trial for p in planned if not p.is_finished)
        # Another launch may have finished trials between the plan and the lock.
        planned = refreshed(planned, locked, progress.warn)
        tracker = None if args.no_tracking else _tracker(planned, locked, command, args, progress)
        live = None if page is None else _live_page(planned, locked, page, progress)
        code = _compute(planned, grid, locked, command, args, progress, tracker, live)
        planned = refreshed(planned, locked, progress.warn)
        forget_finished(locked.classifiers, (p.fingerprint for p in planned if p.is_finished))
        files = report(planned, locked)
        if tracker is not None:
            tracker.publish(files)
            if not args.quiet:
                print(ui_line(args.tracking_uri or default_tracking_uri(locked.path), tracker.page))
    return code or (DONE if all(p.is_finished for p in planned) else SOME_FAILED)


def _check_status_alone(args: argparse.Namespace) -> None:
    """Raises ValueError for flags that choose trials: the status is of the trials that the last launch chose."""
    chosen = [name for name in (*AXES, "lite", "id_classes", "rounds", "budget", "assignments") if getattr(args, name)]
    if chosen:
        flag = "--set" if chosen[0] == "assignments" else f"--{chosen[0].replace('_', '-')}"
        raise ValueError(
            f"{flag} cannot be combined with --status, which always reports the whole last launch; omit it"
        )


def refreshed(planned: Sequence[PlannedTrial], output: OutputFolder, tell: Callable[[str], None]) -> list[PlannedTrial]:
    """The plan with what the ledger holds now; `tell` gets a line about each damaged file, which is set aside."""
    ledger = mending(output.ledger, tell)
    return [look_up(ledger, p.trial, p.fingerprint, p.data_fingerprint, arm=p.arm) for p in planned]


def _tracker(
    planned: Sequence[PlannedTrial],
    output: OutputFolder,
    command: GridCommand,
    args: argparse.Namespace,
    progress: Progress,
) -> Tracker:
    """What mirrors the grid to MLflow."""
    uri = args.tracking_uri or default_tracking_uri(output.path)
    line = without_secrets(shlex.join([f"{command.name}.py", *sys.argv[1:]]), uri)
    return Tracker(
        planned,
        output,
        uri=uri,
        experiment=args.experiment_name,
        card=GridCard(
            title=f"{command.title} ({args.preset})",
            table=command.name,
            facts={"preset": args.preset, "command": line},
        ),
        tell=progress.warn,
    )


def _compute(
    planned: Sequence[PlannedTrial],
    grid: GridConfig,
    output: OutputFolder,
    command: GridCommand,
    args: argparse.Namespace,
    progress: Progress,
    tracker: Tracker | None,
    live: LivePage | None,
) -> int:
    """Run what is left, with MLflow and the page following; the exit code as far as it is decided by how that ended."""
    todo = [p for p in distinct(planned) if not p.is_finished]
    begun = False

    def begin() -> None:
        """Only now is everything known to be good, the cluster too: from here on there is something to keep."""
        nonlocal begun
        note_launch(output, command.name, planned)
        if tracker is not None:
            tracker.start()
        begun = True  # only now: a disk that is full at the note left a tracker to finish that had never started
        if live is not None and todo:
            live.start()

    code = DONE
    try:
        if todo:
            with progress.live(on_begin=begin), live or nullcontext():
                run_grid(todo, output, grid.run, address=args.address, listener=progress)
        else:
            begin()
    except KeyboardInterrupt:
        code = INTERRUPTED
        progress.warn(
            "interrupted: every finished round is saved; the same command goes on from there (Ctrl-C again: no report)"
        )
    except RayGivenUp as error:
        code = SOME_FAILED
        progress.warn(f"failed: {error}")
    finally:
        if tracker is not None and begun:
            progress.tell("MLflow: sending what is left")
            tracker.finish()
    return code


def _live_page(
    planned: Sequence[PlannedTrial],
    output: OutputFolder,
    page: Callable[[Sequence[PlannedTrial], OutputFolder], Path],
    progress: Progress,
) -> LivePage:
    """What keeps the page up to date while the grid runs; where it lies is printed as soon as it is there."""
    is_told = False

    def write() -> None:
        nonlocal is_told
        path = page(refreshed(planned, output, progress.warn), output)
        if not is_told:
            progress.tell(f"report: {path.resolve().as_uri()} (fills while the grid runs)")
        is_told = True

    fingerprints = [p.fingerprint for p in distinct(planned)]
    return LivePage(write, lambda: tuple(map(output.ledger.version, fingerprints)), progress.warn)


def _page(planned: Sequence[PlannedTrial], output: OutputFolder, command: GridCommand) -> Path:
    """Write the page as it stands while the grid runs; where it lies."""
    from experiments.pages.files import write_running_page

    folder = report_folder(output.path, command.name, planned)
    write_running_page(folder.path / "index.html", **_report_parts(planned, command, folder))
    return folder.path / "index.html"


def _report_parts(planned: Sequence[PlannedTrial], command: GridCommand, folder: ReportFolder) -> dict[str, Any]:
    """What a report is made of, as `write_report` and `write_running_page` take it."""
    from experiments.results.details import details_of
    from experiments.results.frames import rounds_frame, trials_frame

    trials, rounds = trials_frame(planned), rounds_frame(planned)
    return {
        "title": command.title if folder.note is None else f"{command.title}, {folder.note}",
        "tables": command.tables(trials, rounds),
        "trials": trials,
        "rounds": rounds,
        "notes": command.notes,
        "details": details_of(planned),
        "paper": command.paper(),
    }


def _report(
    planned: Sequence[PlannedTrial], output: OutputFolder, command: GridCommand, args: argparse.Namespace
) -> list[Path]:
    """Write the tables and the picture, print the tables, and say where everything lies; the files."""
    if command.report is not None:
        return command.report(planned, output, args)
    from experiments.pages.files import write_report
    from experiments.results.queries import queries_of
    from experiments.tables.table4 import report_text

    folder = report_folder(output.path, command.name, planned)
    parts = _report_parts(planned, command, folder)
    tables, trials = parts["tables"], parts["trials"]
    files = write_report(folder.path, name=command.name, queries=queries_of(planned), **parts)
    print()
    print(report_text(tables, trials, notes=command.notes))
    for p in distinct(planned):
        if p.error is not None and not p.is_finished:
            print(f"failed: {p.label}: {p.error}\n  alone: {trial_command(p.trial)}", file=sys.stderr)
    if not args.quiet:
        print(f"\nresults in {folder.path}" + (f", {folder.note}:" if folder.note else ":"))
        print("  " + "  ".join(file.name for file in files.all))
    return list(files.all)


def ui_line(uri: str, page: str | None) -> str:
    """How to look at a tracking store, and where in its UI the charts of the experiment are."""
    if uri.startswith(("http://", "https://")):
        return f"compare runs in MLflow: {masked(uri).rstrip('/')}/{page or ''}"
    command = f"{Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {shlex.quote(masked(uri))}"
    address = "http://127.0.0.1:5000/" + (page or "")
    return f"compare runs in MLflow: {command}\n  then open {address}"
