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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks.oracle_photos import Problem, Shelf
from data.console import DONE, CommandParser, run_command
from data.files import path_argument, write_text_atomically
from experiments.annotate.advice import LAST, Advice
from experiments.annotate.estimate import ByCurve, Draws, Estimate, corrected
from experiments.annotate.settings import default_drawn
from experiments.commands.flags import seed_list
from models.clipn.source import ClipnSource
from models.device import use_threads

CLASS_SETS = ("cat,dog,horse,deer", "bird,ship,deer,truck", "airplane,automobile,frog,cat")
ROUNDS, COUNT = 20, 50
CHOSEN_ON = 10
"""Curves, by seed, on which the rules were chosen: three seeds of each set of classes, and one more of the first."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What is known after a round of a curve, and what is not."""

    labels: int
    truth: int
    folder: Estimate
    by_curve: Estimate
    advice: Advice
    accuracy: tuple[float, float]
    """Of a head that starts at zero, and of one that starts at the class names."""


def read_curve(rows: Sequence[Mapping[str, str]]) -> Iterator[Round]:
    """The rounds of one curve: estimate and advice by the rules of today, from the numbers that are kept."""
    draws: list[Draws] = []
    for number, row in enumerate(rows):
        if number:  # drawn with the beliefs of the round before; those of the first round have none that are kept
            before = rows[number - 1]
            errors = np.array([float(error) for error in row["errors"].split()])
            draws.append(
                Draws(
                    by_curve=float(before["by_curve"]), num_free=int(before["num_free"]),
                    variance=float(before["variance"]), errors_M=errors,
                )
            )  # fmt: skip
        labels, found = int(row["labels"]), int(row["found"])
        curve = Estimate(mean=float(row["by_curve"]), low=float(row["curve_low"]), high=float(row["curve_high"]))
        num_left, variance = int(row["num_free"]), float(row["variance"])
        folder = corrected(ByCurve(total=curve, known=found, num_left=num_left, variance=variance), draws)
        is_any_probable = int(row["probable"]) > 0
        changed = [float(share) if is_any_probable else 0.0 for share in row["changed"].split()]
        yield Round(
            labels=labels,
            truth=int(row["truth"]),
            folder=folder,
            by_curve=curve,
            advice=Advice(
                left=folder.mean - found, left_low=folder.low - found, left_high=folder.high - found, found=found,
                changed=tuple(changed[-LAST:]), right=int(row["right"]) if row["right"] else None, labelled=found,
            ),
            accuracy=(float(row["accuracy"]), float(row["accuracy_from_texts"])),
        )  # fmt: skip


def figures(curves: Sequence[Sequence[Round]]) -> Iterator[str]:
    """Lines about estimate and advice over some curves."""
    for words, estimates in (
        ("by the curve alone", [[each.by_curve for each in curve] for curve in curves]),
        ("corrected", [[each.folder for each in curve] for curve in curves]),
    ):
        for first in (10, ROUNDS):
            pairs = [
                (estimate, each.truth)
                for curve, own in zip(curves, estimates, strict=True)
                for each, estimate in zip(curve[:first], own, strict=False)
            ]
            held = np.mean([estimate.low <= truth <= estimate.high for estimate, truth in pairs])
            off = np.mean([abs(estimate.mean - truth) for estimate, truth in pairs])
            half = np.mean([(estimate.high - estimate.low) / 2 for estimate, _ in pairs])
            yield f"{words}, {first} rounds: held {held:.2f}, off by {off:.0f}, half width {half:.0f}"
        means = [np.mean([own[at].mean for own in estimates]) for at in range(0, ROUNDS, 3)]
        yield f"  every third round: {' '.join(f'{mean:.0f}' for mean in means)}"
    stops = [next((at for at, each in enumerate(curve) if each.advice.may_stop), len(curve) - 1) for curve in curves]
    labels = [curve[at].labels for curve, at in zip(curves, stops, strict=True)]
    found = [curve[at].advice.found / curve[at].truth for curve, at in zip(curves, stops, strict=True)]
    yield (
        f"stop: {np.mean(labels):.0f} labels on average ({min(labels)} to {max(labels)}), "
        f"never in {sum(at == ROUNDS - 1 for at in stops)} of {len(curves)}; {np.mean(found):.2f} of the wanted found"
    )
    same = round(float(np.mean(stops)))
    for head, words in enumerate(("from zero", "from the class names")):
        costs = [curve[-1].accuracy[head] - curve[at].accuracy[head] for curve, at in zip(curves, stops, strict=True)]
        fixed = [curve[-1].accuracy[head] - curve[same].accuracy[head] for curve in curves]
        last = np.mean([curve[-1].accuracy[head] for curve in curves])
        yield (
            f"  accuracy, {words}: {last:.4f} after all; costs {np.mean(costs):.4f}, most {max(costs):.4f}; "
            f"stopping always after {50 * (same + 1)} labels: {np.mean(fixed):.4f}, most {max(fixed):.4f}"
        )


def _print_figures(rows: Sequence[Mapping[str, str]]) -> None:
    """Print the figures of the first ten curves, on which the rules were chosen, and of the others."""
    groups: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in sorted(rows, key=lambda row: int(row["seed"])):
        groups.setdefault((row["classes"], row["seed"]), []).append(row)
    curves = [list(read_curve(own)) for own in groups.values()]
    for words, part in (("chosen on", curves[:CHOSEN_ON]), ("the others", curves[CHOSEN_ON:])):
        if part:
            print(f"{words}: {len(part)} curves", *figures(part), sep="\n")


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
    _print_figures(list(csv.DictReader(path.open())))
    return DONE


if __name__ == "__main__":
    sys.exit(run_command(make_parser(), _run))
