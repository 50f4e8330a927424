"""Draws the paper's Figures 5 to 12, after running the trials that they need and that are not finished yet.

python experiments/figures.py --figure 8 --preset demo
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data.console import DONE, SOME_FAILED, run_command
from data.stopping import stoppable
from experiments.commands.flags import trial_overrides
from experiments.commands.grid import run_and_report, status_of
from experiments.commands.grid_command import GridCommand, grid_of, make_parser, output_path
from experiments.plots.plan import FIGURES, FigurePlan, figure_numbers, plan_figure
from orchestrator.ledger.output import OutputFolder, open_output
from orchestrator.plan import PlannedTrial, feature_lines, plan_trials
from orchestrator.settings.grid import GridConfig, preset_name

COMMAND = GridCommand(
    name="figures",
    title="Figures",
    description="Draw the paper's Figures 5 to 12 as PNG and PDF, each with a caption, after running the trials that "
    "they need and that are not in the output folder yet. Figures 5 and 6 need none.",
)


def main() -> int:
    """Run the command, and return its exit code."""
    parser = make_parser(COMMAND)
    figures = parser.add_argument_group("which figures")
    figures.add_argument(
        "--figure", type=figure_numbers, default=FIGURES, metavar="N,N",
        help="5 examples of the purity step, 6 its accuracy against the logit scale, 7 precision over rounds, 8 and 9 "
        "accuracy over rounds by OOD and by mismatch ratio, 10 with a pool without OOD images, 11 without "
        "visual weights, 12 queried images in the plane; or all (default: all)",
    )  # fmt: skip
    figures.add_argument(
        "--embedding", choices=("classifier", "clipn"), default="classifier",
        help="what Figure 12 puts into the plane: features of the classifier of round 0, which is trained for it when "
        "the figure is drawn (default), or CLIPN's, which are stored",
    )  # fmt: skip
    figures.add_argument("--no-run", action="store_true", help="draw what the output folder holds; run no trial")
    return run_command(parser, _run)


def _run(args: argparse.Namespace) -> int:
    if args.status:
        return status_of(COMMAND, args)
    grid, overrides = grid_of(COMMAND, args), trial_overrides(args)
    plans = [plan_figure(number, grid, overrides, embedding=args.embedding) for number in args.figure]
    # Trials that are only looked at are checked like the others: missing data or weights must be one clear line.
    studied = plan_trials([each for plan in plans for each in plan.studied], None)
    trials = list(dict.fromkeys(each for plan in plans for each in plan.trials))
    if trials and not args.no_run:
        undrawn: list[int] = []
        report = partial(_draw, plans=plans, grid=grid, args=args, undrawn=undrawn)
        code = run_and_report(COMMAND, grid, trials, args, report)
        return SOME_FAILED if undrawn and code == DONE else code
    output = open_output(output_path(args))
    planned = plan_trials(trials, output.ledger)
    if args.dry_run:
        print(f"nothing to run; {sum(p.is_finished for p in planned)} of {len(planned)} trials to draw are finished")
        for line in feature_lines(studied):
            print(line)
        return DONE
    if trials and output.grid_id is None:
        raise ValueError(f"{output.path} holds no run to draw; omit --no-run, or name the folder of a run with -o")
    undrawn = []
    with stoppable(), output.locked() as locked:
        _draw(planned, locked, plans=plans, grid=grid, args=args, undrawn=undrawn)
    return SOME_FAILED if undrawn else DONE


def _draw(
    planned: Sequence[PlannedTrial],
    output: OutputFolder,
    *,
    plans: Sequence[FigurePlan],
    grid: GridConfig,
    args: argparse.Namespace,
    undrawn: list[int],
) -> list[Path]:
    """Draw the figures and return their files; the numbers of figures without any data yet are added to `undrawn`."""
    from experiments.plots.canvas import NothingToDraw
    from experiments.plots.make import FigureMaker, write_pictures

    def tell(line: str) -> None:
        if not args.quiet:
            print(line, flush=True)

    folder = output.path / COMMAND.name
    run = f"{output.path.name}, preset {preset_name(args.preset)}, grid {(output.grid_id or '')[:8]}"
    written: list[Path] = []
    maker = FigureMaker(planned, run=run, tell=tell, cpus=grid.run.cpus_per_trial)
    for plan in plans:
        try:
            pictures = list(maker.pictures(plan))
        except NothingToDraw as error:
            undrawn.append(plan.number)
            print(f"not drawn: {error}", file=sys.stderr)
            continue
        written += write_pictures(folder, plan.number, pictures)
        for picture in pictures:
            tell(f"{folder / picture.name}.png, .pdf, .txt")
            for note in picture.notes:
                tell(f"  {note}")
    return written


if __name__ == "__main__":
    sys.exit(main())
