"""How many labels `suggest.py` saves on photos whose classes are known: an oracle answers ten rounds of 50.

python benchmarks/labels_saved.py CIFAR10 --clipn-checkpoint clipn.pt --clip-model clipn.json -o runs/labels_saved

CIFAR10 is an image folder with train/ and test/; benchmarks/oracle_photos.py says what is made of it. Accuracy is that
of a linear head, learnt from the wanted answers only and started at zero, on the test images of the wanted classes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks.oracle_photos import Problem, Shelf
from data.console import DONE, CommandParser, run_command
from data.files import path_argument, write_text_atomically
from experiments.annotate.settings import default_drawn
from experiments.commands.flags import seed_list
from models.clipn.source import ClipnSource
from models.device import use_threads

ARMS = ("random", "suggest", "probe")
ROUNDS, COUNT = 10, 50


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(prog="labels_saved.py", description="Labels that suggest.py saves, with an oracle.")
    parser.add_argument("images", type=path_argument, metavar="CIFAR10")
    parser.add_argument("--clipn-checkpoint", type=path_argument, required=True, metavar="PATH")
    parser.add_argument("--clip-model", required=True, metavar="NAME")
    parser.add_argument("--classes", default="cat,dog,horse,deer", metavar="A,B,C,D")
    parser.add_argument("--arms", default=",".join(ARMS), help="random, suggest, probe, or suggest:STRATEGY")
    parser.add_argument("--seeds", type=seed_list, default=(0, 1, 2, 3, 4), metavar="LIST", help="such as 0-4")
    parser.add_argument("-o", "--output-dir", type=path_argument, required=True, metavar="DIR")
    parser.add_argument("--picture", type=path_argument, metavar="FILE.png", help="draw the means over seeds")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def rounds(problem: Problem, arm: str, seed: int) -> Iterator[dict[str, object]]:
    """One row per round of an arm."""
    rng = np.random.default_rng(seed)
    kind, _, strategy = arm.partition(":")
    asked, draws = np.empty(0, dtype=np.int64), []
    for number in range(1, ROUNDS + 1):
        free_N = np.ones(len(problem.hidden), dtype=bool)
        free_N[asked] = False
        expected, folder = None, None
        # Without text and answers there is nothing to rank by: both kinds begin with the same random batch.
        if kind == "random" or (kind == "probe" and number == 1):
            new = rng.permutation(np.flatnonzero(free_N))[:COUNT]
        else:
            ranker = problem.with_text if kind == "suggest" else problem.without_text
            ranking = ranker.rank(
                problem.answers(asked), free_N, COUNT,
                strategy=strategy or None, num_drawn=default_drawn(COUNT) if kind == "suggest" else 0, draws=draws,
                rng=rng,
            )  # fmt: skip
            draws.append(problem.draws(ranking))
            new, expected, folder = ranking.picks.idx, ranking.batch, ranking.folder
        asked = np.concatenate([asked, new])
        wanted = int((problem.hidden[new] < len(problem.classes)).sum())
        yield {
            "arm": arm, "seed": seed, "round": number, "labels": len(asked), "wanted": wanted,
            "expected": "" if expected is None else round(expected, 2),
            "folder": "" if folder is None else round(folder.mean, 1),
            "low": "" if folder is None else round(folder.low, 1),
            "high": "" if folder is None else round(folder.high, 1),
            "accuracy": round(problem.accuracy(asked, problem.without_text), 4),
            "accuracy_from_texts": round(problem.accuracy(asked, problem.with_text), 4),
        }  # fmt: skip


def _run(args: argparse.Namespace) -> int:
    use_threads(1)
    rows: list[dict[str, object]] = []
    source = ClipnSource(checkpoint=args.clipn_checkpoint, model=args.clip_model)
    shelf = Shelf(args.images, source, args.output_dir)
    for seed in args.seeds:
        problem = Problem(shelf, tuple(args.classes.split(",")), seed)
        for arm in args.arms.split(","):
            rows += rounds(problem, arm, seed)
            own = [row for row in rows if row["arm"] == arm and row["seed"] == seed]
            print(arm, seed, [row["wanted"] for row in own], [row["accuracy"] for row in own], flush=True)
        lines = [",".join(map(str, row.values())) for row in rows]
        write_text_atomically(args.output_dir / "rounds.csv", "\n".join([",".join(rows[0]), *lines]) + "\n")
    if args.picture is not None:
        _draw_curves(rows, args.picture)
    return DONE


def _draw_curves(rows: list[dict[str, object]], path: Path) -> None:
    """Wanted images found and accuracy against labels, mean over seeds with the seeds as thin lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, 2)
    colours = {"random": "tab:gray", "suggest": "tab:blue", "probe": "tab:orange"}
    for arm in dict.fromkeys(str(row["arm"]) for row in rows):
        seeds = sorted({str(row["seed"]) for row in rows})
        own = [[row for row in rows if row["arm"] == arm and str(row["seed"]) == seed] for seed in seeds]
        labels = [float(str(row["labels"])) for row in own[0]]
        for panel, values in (
            (panels[0], [np.cumsum([float(str(row["wanted"])) for row in each]) for each in own]),
            (panels[1], [np.array([float(str(row["accuracy"])) for row in each]) for each in own]),
        ):
            for each in values:
                panel.plot(labels, each, color=colours.get(arm), linewidth=0.4)
            panel.plot(labels, np.mean(values, axis=0), color=colours.get(arm), linewidth=2, label=arm)
    panels[0].set(xlabel="labels", ylabel="wanted images found")
    panels[1].set(xlabel="labels", ylabel="accuracy of the head on other images")
    panels[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(run_command(make_parser(), _run))
