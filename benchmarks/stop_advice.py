"""What the advice to stop saves and costs: label curves of 20 rounds, three sets of classes, ten seeds each.

python benchmarks/stop_advice.py CIFAR10 --clipn-checkpoint clipn.pt --clip-model clipn.json -o runs/stop_advice

benchmarks/oracle_photos.py says what is made of the image folder CIFAR10. Each round asks 50 images; OUT/curves.csv
holds what the advice knows after each, and the accuracy on other images, which it does not know. Curves that are there
already are not made again.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from itertools import pairwise
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

CLASS_SETS = ("cat,dog,horse,deer", "bird,ship,deer,truck", "airplane,automobile,frog,cat")
ROUNDS, COUNT = 20, 50
Row = dict[str, object]


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(prog="stop_advice.py", description="What the advice to stop saves and costs.")
    parser.add_argument("images", type=path_argument, metavar="CIFAR10")
    parser.add_argument("--clipn-checkpoint", type=path_argument, required=True, metavar="PATH")
    parser.add_argument("--clip-model", required=True, metavar="NAME")
    parser.add_argument("--classes", action="append", metavar="A,B,C,D", help="may be repeated (default: three sets)")
    parser.add_argument("--seeds", type=seed_list, default=tuple(range(10)), metavar="LIST", help="such as 0-9")
    parser.add_argument("-o", "--output-dir", type=path_argument, required=True, metavar="DIR")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def curve(problem: Problem, seed: int) -> Iterator[Row]:
    """One row per round: what is known after its answers."""
    rng = np.random.default_rng(seed)
    asked, draws = np.empty(0, dtype=np.int64), []
    heads = [problem.with_text.fit(problem.answers(asked))]
    features_ND = problem.photos.features_ND
    for number in range(ROUNDS + 1):
        free_N = np.ones(len(problem.hidden), dtype=bool)
        free_N[asked] = False
        ranking = problem.with_text.rank(
            problem.answers(asked), free_N, COUNT, num_drawn=default_drawn(COUNT), draws=draws, rng=rng
        )
        if number:
            heads.append(ranking.head)
            probable_ND = features_ND[free_N & (ranking.wanted_N > 0.5)]
            predicted = [head.probabilities(probable_ND).argmax(axis=1) for head in heads[-4:]]
            changed = [float((ours != theirs).mean()) for ours, theirs in pairwise(predicted)]
            right_L = ranking.head.right_L
            yield {
                "classes": " ".join(problem.classes), "seed": seed, "round": number, "labels": len(asked),
                "found": ranking.num_known, "truth": int((problem.hidden < len(problem.classes)).sum()),
                "folder": round(ranking.folder.mean, 2), "low": round(ranking.folder.low, 2),
                "high": round(ranking.folder.high, 2),
                "by_curve": round(ranking.by_curve.total.mean, 2), "curve_low": round(ranking.by_curve.total.low, 2),
                "curve_high": round(ranking.by_curve.total.high, 2), "variance": round(ranking.by_curve.variance, 3),
                "num_free": ranking.num_free, "probable": len(probable_ND),
                # Errors of the images that this round drew at random, found by the ranking before.
                "errors": " ".join(f"{error:.4f}" for error in draws[-1].errors_M),
                "changed": " ".join(f"{share:.4f}" for share in changed),
                "right": "" if right_L is None else int(right_L.sum()),
                "accuracy": round(problem.accuracy(asked, problem.without_text), 4),
                "accuracy_from_texts": round(problem.accuracy(asked, problem.with_text), 4),
            }  # fmt: skip
        draws.append(problem.draws(ranking))
        asked = np.concatenate([asked, ranking.picks.idx])


def _run(args: argparse.Namespace) -> int:
    use_threads(1)
    source = ClipnSource(checkpoint=args.clipn_checkpoint, model=args.clip_model)
    shelf = Shelf(args.images, source, args.output_dir)
    path = args.output_dir / "curves.csv"
    rows: list[Row] = list(csv.DictReader(path.open())) if path.exists() else []
    done = {(str(row["classes"]), str(row["seed"])) for row in rows}
    for classes in args.classes or CLASS_SETS:
        for seed in args.seeds:
            if (classes.replace(",", " "), str(seed)) in done:
                continue
            rows += curve(Problem(shelf, tuple(classes.split(",")), seed), seed)
            lines = [",".join(map(str, row.values())) for row in rows]
            write_text_atomically(path, "\n".join([",".join(rows[0]), *lines]) + "\n")
            print(classes, seed, rows[-1]["accuracy"], flush=True)
    return DONE


if __name__ == "__main__":
    sys.exit(run_command(make_parser(), _run))
