"""Runs one trial in this process and prints one line per round; no Ray, no tracker.

python experiments/trial.py --dataset digits --strategy vlpure --seed 0
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data.console import DONE, CommandParser, run_command, to_stderr
from data.files import path_argument
from data.registry import split_protocol_of
from data.stopping import INTERRUPTED, stoppable
from experiments.commands.bill import this_machine
from experiments.commands.flags import (
    add_output_flags,
    add_run_flags,
    add_trial_flags,
    given_run_settings,
    ignored_flags,
    ood_ratio,
    slow_arithmetic,
    strategy_names,
    trial_overrides,
)
from experiments.presets import ARMS, PRESETS
from orchestrator.ledger.output import OutputFolder, open_output
from orchestrator.ledger.records import RoundRecord, summarise
from orchestrator.ledger.repair import mending
from orchestrator.plan import PlannedTrial, plan_trials
from orchestrator.settings.grid import ArmTrial, GridConfig, RunSettings, load_preset

DEFAULT_MISMATCH = 0.2
"""Mismatch ratio of a trial whose ID classes are neither named nor given as a ratio."""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(
        prog="trial.py",
        description="Run one trial in this process and print one line per round.",
        epilog="Example: trial.py --dataset digits --mismatch-ratio 0.2 --ood-ratio 0.6 --strategy vlpure --seed 0",
    )
    what = parser.add_argument_group("the trial")
    what.add_argument(
        "--dataset", default="digits", metavar="NAME", help="data set, or folder:<path> (default: digits)"
    )
    what.add_argument(
        "--mismatch-ratio",
        type=float,
        metavar="R",
        help="share of ID classes (default: 0.2); or name them: --id-classes",
    )
    what.add_argument(
        "--ood-ratio", type=ood_ratio, default=0.6, metavar="R",
        help="share of OOD images, or all for every OOD image there is (default: 0.6)",
    )  # fmt: skip
    what.add_argument(
        "--strategy",
        default="vlpure",
        metavar="NAME",
        help=f"query strategy (default: vlpure): {strategy_names()}, or an arm",
    )
    what.add_argument("--seed", type=int, default=0, metavar="N", help="seed of everything random (default: 0)")
    what.add_argument(
        "--preset",
        metavar="NAME",
        help="settings to start from (default: demo for digits, domainnet for its domains, else cpu)",
    )
    add_trial_flags(parser)
    how = parser.add_argument_group("how it is computed")
    add_run_flags(parser, how, ("cpus_per_trial", "gpus_per_trial", "deterministic", "plain_steps", "no_compile"))
    how.add_argument(
        "-o", "--output-dir", type=path_argument, metavar="DIR", help="keep the records here, and continue from them"
    )
    add_output_flags(parser)
    return parser


def main() -> int:
    """Run the command, and return its exit code."""
    return run_command(make_parser(), _run)


def _run(args: argparse.Namespace) -> int:
    grid = _grid(args)
    (arm_trial,) = grid.arm_trials(trial_overrides(args))
    _check_machine(args)
    advice = slow_arithmetic([arm_trial.trial], gpus=grid.run.gpus_per_trial)
    for line in ignored_flags(args, [arm_trial.trial]) + advice:
        print(line, file=sys.stderr)
    kept = "nothing is saved without --output-dir"
    if args.output_dir is not None:
        kept = f"finished rounds are in {args.output_dir}, and the same command continues from there"
    try:
        with stoppable(f"stopped at once; {kept}"), ExitStack() as stack:
            output = stack.enter_context(open_output(args.output_dir).locked()) if args.output_dir else None
            return _compute(arm_trial, grid.run, args, output=output)
    except KeyboardInterrupt:
        print(f"interrupted: {kept}", file=sys.stderr)
        return INTERRUPTED


def _check_machine(args: argparse.Namespace) -> None:
    """Raises ValueError for more CPUs than this machine has, and for a GPU if it has none."""
    cpus = this_machine().cpus
    if args.cpus_per_trial is not None and args.cpus_per_trial > cpus:
        raise ValueError(f"--cpus-per-trial is {args.cpus_per_trial}, but this machine has {cpus} CPU(s)")
    if args.gpus_per_trial:
        from models.device import pick_device  # imports torch: only if a GPU is wanted

        pick_device(args.gpus_per_trial)


def _grid(args: argparse.Namespace) -> GridConfig:
    """The preset, reduced to the one trial."""
    axes = {
        "datasets": (args.dataset,),
        "mismatch_ratios": (DEFAULT_MISMATCH if args.mismatch_ratio is None else args.mismatch_ratio,),
        "ood_ratios": (args.ood_ratio,),
        "strategies": (args.strategy,),
        "seeds": (args.seed,),
    }
    # A preset's share of a card is meant for grids; one trial uses a GPU only if asked to.
    run = {"gpus_per_trial": 0} | given_run_settings(args)
    return load_preset(PRESETS, args.preset or _preset_of(args.dataset), axes, run, arms=ARMS)


def _preset_of(dataset: str) -> str:
    """Name of the default preset of a data set."""
    if split_protocol_of(dataset) == "domain":
        return "domainnet"
    return "demo" if dataset == "digits" else "cpu"


def _compute(arm_trial: ArmTrial, run: RunSettings, args: argparse.Namespace, *, output: OutputFolder | None) -> int:
    """Run the trial from the end of its records."""
    (planned,) = plan_trials([arm_trial], mending(output.ledger, to_stderr) if output else None)
    trial = planned.trial
    show = _Printer(planned, quiet=args.quiet)
    from orchestrator.trial.compute import (  # torch, only now that the input is known to be good
        compute_trial,
        local_scorer,
    )

    for record in planned.records:
        show.line(record)

    def keep(record: RoundRecord) -> None:
        if output:
            output.ledger.append(planned.fingerprint, trial.model_dump(mode="json"), record)
        show.line(record)

    records = compute_trial(
        planned,
        scorer=local_scorer(
            [trial],
            cpus=run.cpus_per_trial,
            gpus=run.gpus_per_trial,
            progress=show.note,
            deterministic=run.deterministic,
        ),
        history=planned.records,
        report=keep,
        classifiers=output.classifiers if output else None,
        run=run,
        progress=show.steps if args.verbose else None,
    )
    show.summary(records)
    return DONE


class _Printer:
    """Prints rounds on the standard output, and everything else on the standard error stream."""

    def __init__(self, planned: PlannedTrial, *, quiet: bool) -> None:
        self._planned = planned
        self._quiet = quiet
        self._has_header = False
        self._started = time.perf_counter()

    def note(self, line: str) -> None:
        """Print what is being done before the first round."""
        if not self._quiet:
            print(line, file=sys.stderr, flush=True)

    def steps(self, done: int, total: int) -> None:
        """Print how far a training is."""
        self.note(f"  step {done} of {total}")

    def line(self, record: RoundRecord) -> None:
        """Print one round, after a header before the first."""
        if self._quiet:
            return
        if not self._has_header:
            print(self._planned.label)
            print("round  accuracy  precision    ID   OOD   scale  seconds")
            self._has_header = True
        precision = "-" if record.precision is None else f"{record.precision:.4f}"
        scale = "-" if record.logit_scale is None else f"{record.logit_scale:.1f}"
        print(
            f"{record.round:5d}  {record.accuracy:8.4f}  {precision:>9}  {record.num_id:4d}  {record.num_ood:4d}  "
            f"{scale:>6}  {sum(record.seconds.values()):7.2f}",
            flush=True,
        )

    def summary(self, records: list[RoundRecord]) -> None:
        """Print the summary of the trial: AUBC, last accuracy, labels, seconds."""
        summary, last = summarise(records), records[-1]
        precision = "" if summary.mean_precision is None else f", mean precision {summary.mean_precision:.4f}"
        print(
            f"aubc {summary.aubc:.4f} (paper's rule {summary.aubc_paper:.4f}), "
            f"last accuracy {summary.last_accuracy:.4f}{precision}, "
            f"{last.num_id + last.num_ood} labels, {last.num_ood} of them wasted, "
            f"{time.perf_counter() - self._started:.1f} s"
        )


if __name__ == "__main__":
    sys.exit(main())
