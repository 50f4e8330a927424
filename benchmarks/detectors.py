"""What a round of each purity detector costs: CPU seconds of the first, of a later one, and with new classes; memory.

Random features, clustered as CLIP's are (a large common part, classes around it). Each detector runs in a process of
its own, so that its peak of memory is its own.

python benchmarks/detectors.py
python benchmarks/detectors.py --detectors probe knn --pool 25000 --labelled 5000

Shapes: A images, L labelled images, K ID classes, D embedding, W words.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.memory import peak, restart_peak
from strategies.purity.detectors import DETECTORS

WORDS = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""
"""CIFAR-100's classes: how many words are synonyms or kinds of a class decides what `neglabel` costs."""
NAMES, OTHER_NAMES = tuple(WORDS.split()), tuple(reversed(WORDS.split()))

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from models.clipn.features import VisionLanguage
    from models.feature_store import RowSource
    from strategies.purity.contract import PurityRequest


def main() -> int:
    """Print the table; the exit code."""
    args = _parser().parse_args()
    if args.one:
        print(json.dumps(_measure(args.one, args)))
        return 0
    print(
        f"{args.pool:,} images, {args.labelled:,} labelled, D = {args.dims}, K = {args.classes}, "
        f"{args.threads} thread(s)"
    )
    print("detector               first round   later round   new classes   peak memory")
    sizes = [f"--{name}={getattr(args, name)}" for name in ("pool", "labelled", "classes", "dims", "threads", "share")]
    for name in args.detectors:
        command = [sys.executable, __file__, "--one", name, *sizes]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        cost = json.loads(done.stdout)
        seconds = f"{cost['first']:8.2f} s {cost['later']:11.3f} s {cost['new']:11.2f} s"
        print(f"{name:22s} {seconds} {cost['mib']:9.0f} MiB", flush=True)
    print("seconds: CPU; memory: above that of the process with the features")
    print("new classes: a first round with other classes, after what the store keeps for any classes was computed")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="detectors.py", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--detectors", nargs="+", choices=list(DETECTORS), default=list(DETECTORS), metavar="NAME")
    parser.add_argument("--pool", type=int, default=25_000, metavar="A", help="images (default: 25000)")
    parser.add_argument("--labelled", type=int, default=5000, metavar="L", help="default: 5000")
    parser.add_argument("--classes", type=int, default=40, metavar="K", help="ID classes, at most 100 (default: 40)")
    parser.add_argument("--dims", type=int, default=512, metavar="D", help="default: 512")
    parser.add_argument("--share", type=float, default=1.0, metavar="X", help="of the negative words (default: 1)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--one", choices=list(DETECTORS), help=argparse.SUPPRESS)
    return parser


def _measure(detector: str, args: argparse.Namespace) -> dict[str, float]:
    """CPU seconds of the first and of a later round of a detector, and MiB at its peak above the start."""
    with tempfile.TemporaryDirectory() as folder:
        return _measure_in(Path(folder), detector, args)


def _measure_in(folder: Path, detector: str, args: argparse.Namespace) -> dict[str, float]:
    """`_measure` with a folder that stands for the store."""
    import torch

    from orchestrator.trial.purity_scorer import LocalPurityScorer

    torch.set_num_threads(args.threads)
    language, request = _make_round(folder, detector, args)
    scorer = LocalPurityScorer({"benchmark": language}, torch.device("cpu"))
    before = restart_peak()
    seconds = []
    others = replace(request, class_names=OTHER_NAMES[: args.classes])
    for each in (request, request, others):
        started = time.process_time()
        scorer.score(each)
        seconds.append(time.process_time() - started)
    return {"first": seconds[0], "later": seconds[1], "new": seconds[2], "mib": peak() - before}


def _make_round(folder: Path, detector: str, args: argparse.Namespace) -> tuple[VisionLanguage, PurityRequest]:
    import numpy as np

    from models.clipn.features import VisionLanguage
    from strategies.purity.contract import PurityOptions, PurityRequest, WordOptions

    rng = np.random.default_rng(0)
    num_all = 2 * args.classes  # as many OOD classes as ID ones
    common = 2 * rng.standard_normal(args.dims)
    means = rng.standard_normal((num_all, args.dims)) + common
    classes = rng.integers(num_all, size=args.pool)
    features = _unit(means[classes] + 1.5 * rng.standard_normal((args.pool, args.dims)))
    order = rng.permutation(args.pool)
    labelled, unlabelled = order[: args.labelled], order[args.labelled :]
    is_id = classes[labelled] < args.classes

    def encode(names: tuple[str, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        yes = _unit(means[: len(names)] + rng.standard_normal((len(names), args.dims)))
        return yes, _unit(yes + 0.1 * rng.standard_normal(yes.shape))

    def sentences(what: str, texts: tuple[str, ...]) -> NDArray[np.float32]:
        rows = rng.standard_normal((len(texts), args.dims), dtype=np.float32)
        rows += common.astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    kept: dict[str, NDArray[np.float32]] = {}

    def keep(what: str, content: str, open_source: Callable[[], RowSource]) -> NDArray[np.float32]:
        """Rows as the store keeps them, which is timed with the first round."""
        if what not in kept:
            source = open_source()
            for at in range(0, args.pool, 1024):
                rows = source.compute(at, min(at + 1024, args.pool))
                if what not in kept:
                    shape = (args.pool, rows.shape[1])
                    kept[what] = np.lib.format.open_memmap(folder / "rows.npy", "w+", dtype=np.float32, shape=shape)
                kept[what][at : at + len(rows)] = rows
        return kept[what]

    texts_of: dict[tuple[str, ...], NDArray[np.float32]] = {}
    language = VisionLanguage(
        image_features_ND=features,
        logit_scale=100.0,
        encode_classes=encode,
        encode_texts=lambda what, texts: texts_of.setdefault(texts, sentences(what, texts)),
        keep=keep,
    )
    request = PurityRequest(
        data_fingerprint="benchmark",
        class_names=NAMES[: args.classes],
        labelled_id_idx=labelled[is_id],
        labelled_id_labels=classes[labelled[is_id]],
        labelled_ood_idx=labelled[~is_id],
        unlabelled_idx=unlabelled,
        options=PurityOptions(
            detector=detector, visual_similarity=detector == "atd", words=WordOptions(share=args.share)
        ),
    )
    return language, request


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """The rows at unit length."""
    import numpy as np

    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
