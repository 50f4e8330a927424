"""How many labels `suggest.py` saves on photos whose classes are known: an oracle answers ten rounds of 50.

python benchmarks/labels_saved.py CIFAR10 --clipn-checkpoint clipn.pt --clip-model clipn.json -o runs/labels_saved

CIFAR10 is an image folder with train/ and test/. Of the images 0 to 2999 of each training class (the CLIPN must have
been trained on others) 2,000 photos are drawn: 800 of four wanted classes and 1,200 of the six others. Accuracy is that
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
from numpy.typing import NDArray

from data.console import DONE, CommandParser, run_command, to_stderr
from data.files import path_argument, write_text_atomically
from experiments.annotate.photos import Photos, photos_with_features
from experiments.annotate.rank import Ranker
from experiments.annotate.wanted import Answers
from experiments.commands.flags import seed_list
from models.clipn.source import ClipnSource
from models.device import use_threads

ARMS = ("random", "suggest", "probe")
PER_CLASS, WANTED, OTHERS = 3000, 800, 1200
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


class Problem:
    """Photos of one seed with their hidden classes, and the images that heads are tested on."""

    def __init__(self, args: argparse.Namespace, seed: int) -> None:
        self.classes: tuple[str, ...] = tuple(args.classes.split(","))
        source = ClipnSource(checkpoint=args.clipn_checkpoint, model=args.clip_model)

        def opened(folder: Path, state: Path) -> Photos:
            return photos_with_features(folder, self.classes, source, state, device="cpu", progress=to_stderr)

        folder = args.output_dir / f"photos-{seed}"
        _draw(args.images / "train", folder, self.classes, np.random.default_rng(seed))
        self.photos = opened(folder, args.output_dir / f"state-{seed}")
        self.hidden = self._classes_of([name.split("_")[1] for name in self.photos.names])
        test = opened(args.images / "test", args.output_dir / "state-test")
        classes_T = self._classes_of([name.partition("/")[0] for name in test.names])
        own_T = classes_T < len(self.classes)
        self.test_TD, self.test_T = test.features_ND[own_T], classes_T[own_T]
        without = Photos(
            names=self.photos.names, damaged={}, num_other=0, features_ND=self.photos.features_ND, towers=None,
            identity=self.photos.identity,
        )  # fmt: skip
        self.with_text = Ranker(self.photos, self.classes, has_no_texts=True)
        self.without_text = Ranker(without, self.classes, has_no_texts=False)

    def _classes_of(self, names: list[str]) -> NDArray[np.int64]:
        numbers = {name: number for number, name in enumerate(self.classes)}
        return np.array([numbers.get(name, len(numbers)) for name in names], dtype=np.int64)

    def answers(self, idx: NDArray[np.int64]) -> Answers:
        """The oracle's answers about some photos."""
        return Answers(idx=idx, classes=self.hidden[idx], num_classes=len(self.classes))

    def accuracy(self, idx: NDArray[np.int64], ranker: Ranker) -> float:
        """Accuracy of a linear head learnt from the answers about some photos."""
        logits_TK = ranker.fit(self.answers(idx)).outputs(self.test_TD).logits_NK
        return float((logits_TK.argmax(axis=1) == self.test_T).mean())


def _draw(source: Path, folder: Path, wanted: tuple[str, ...], rng: np.random.Generator) -> None:
    """Link the drawn images into one folder, as NUMBER_CLASS.jpg with numbers that say nothing."""
    if folder.exists():
        return
    classes = sorted(path.name for path in source.iterdir())
    drawn = []
    for name in classes:
        files = sorted((source / name).iterdir())[:PER_CLASS]
        count = WANTED // len(wanted) if name in wanted else OTHERS // (len(classes) - len(wanted))
        drawn += [(files[place], name) for place in rng.choice(len(files), count, replace=False)]
    folder.mkdir(parents=True)
    for number, place in enumerate(rng.permutation(len(drawn))):
        file, name = drawn[place]
        (folder / f"{number:04d}_{name}_{file.suffix}").symlink_to(file.resolve())


def rounds(problem: Problem, arm: str, seed: int) -> Iterator[dict[str, object]]:
    """One row per round of an arm."""
    rng = np.random.default_rng(seed)
    kind, _, strategy = arm.partition(":")
    asked = np.empty(0, dtype=np.int64)
    for number in range(1, ROUNDS + 1):
        free_N = np.ones(len(problem.hidden), dtype=bool)
        free_N[asked] = False
        expected, folder = None, None
        # Without text and answers there is nothing to rank by: both kinds begin with the same random batch.
        if kind == "random" or (kind == "probe" and number == 1):
            new = rng.permutation(np.flatnonzero(free_N))[:COUNT]
        else:
            ranker = problem.with_text if kind == "suggest" else problem.without_text
            ranking = ranker.rank(problem.answers(asked), free_N, COUNT, strategy=strategy or None, rng=rng)
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
    for seed in args.seeds:
        problem = Problem(args, seed)
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
