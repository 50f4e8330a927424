"""One purity round: our service on stored features against the official code's way, on this machine, in one run.

The official way is written here from its description: encode every image again, twice in a round, then try the 1,000
logit scales in a loop, with scikit-learn's balanced accuracy for each. Both sides get the same features, so their
chosen scales and decisions can be compared; the image tower has random weights, which cost what trained ones cost.

python benchmarks/scoring.py

Shapes: N pool images, L labelled images, K ID classes, D embedding.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from strategies.purity.contract import PurityRequest

QUERIES = 9
"""Purity rounds of one trial of the paper: 10 trainings, 9 queries."""
ENCODINGS = 2
"""How often the official code encodes the images in one purity round."""
DIMS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What both sides are given."""

    features_AD: NDArray[np.float32]
    yes_KD: NDArray[np.float32]
    no_KD: NDArray[np.float32]
    request: PurityRequest


def main() -> int:
    """Print the two tables."""
    args = _parser().parse_args()
    import sklearn.metrics  # noqa: F401  (so that no measurement contains its import)
    import torch

    torch.set_num_threads(1)
    print(
        f"one purity round, {args.pool:,} pool images, 1 thread, torch {torch.__version__}; "
        f"CPU seconds; ours: median of {args.repeats}"
    )
    official_encoding = _report_encoding(args)
    print("\nsearch and scores, without encoding (s a round)")
    print("  K     L  official      ours   ratio  same scale  same decisions  first round of ours")
    slowest = ours_slowest = 0.0
    for num_classes in args.classes:
        for num_labelled in args.labelled:
            official, ours = _report_search(num_classes, num_labelled, args)
            slowest, ours_slowest = max(slowest, official), max(ours_slowest, ours)
    if official_encoding is not None:
        _report_total(official_encoding, slowest, ours_slowest)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scoring.py", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--pool", type=int, default=25_000, metavar="N", help="unlabelled images (default: 25000)")
    parser.add_argument("--classes", type=int, nargs="+", default=[4, 40], metavar="K", help="default: 4 40")
    parser.add_argument("--labelled", type=int, nargs="+", default=[500, 5000], metavar="L", help="default: 500 5000")
    parser.add_argument("--images", type=int, default=32, metavar="N", help="to encode; 0: leave out (default: 32)")
    parser.add_argument("--model", default="ViT-B-16", metavar="NAME", help="open_clip's (default: ViT-B-16)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="measurements of our side (default: 3)")
    return parser


def _report_encoding(args: argparse.Namespace) -> float | None:
    """Measure the image tower from 32x32 pixels to unit features; the seconds of the official encodings of a round."""
    if not args.images:
        return None
    import numpy as np

    from data.imageset import ArrayImages
    from models.clipn.encode import ImageRows
    from models.clipn.model import Clipn
    from models.clipn.source import clip_config

    pixels = np.random.default_rng(0).integers(0, 256, (args.images, 32, 32, 3), dtype=np.uint8)
    rows = ImageRows(Clipn(clip_config(args.model)).eval(), ArrayImages(pixels))
    rows.compute(0, min(4, args.images))  # the first pass allocates
    seconds = _median(lambda: rows.compute(0, args.images), 1)
    rate = args.images / seconds
    total: float = ENCODINGS * args.pool / rate
    print(f"\nencoding, {args.model} fp32, random weights: {rate:.2f} images/s, measured on {args.images} images")
    print(f"  official, extrapolated: {ENCODINGS} x {args.pool:,} images a round = {total:,.0f} s a round")
    print(f"  ours, extrapolated: {args.pool:,} images once, ever = {total / ENCODINGS:,.0f} s; then 0 s a round")
    return total


def _report_search(num_classes: int, num_labelled: int, args: argparse.Namespace) -> tuple[float, float]:
    """Measure everything but the encoding, on both sides; their seconds."""
    import numpy as np
    import torch

    from models.clipn.features import VisionLanguage
    from orchestrator.trial.purity_scorer import LocalPurityScorer

    given = _make_round(num_classes, num_labelled, args.pool)
    language = VisionLanguage(
        image_features_ND=given.features_AD, logit_scale=100.0, encode_classes=lambda _: (given.yes_KD, given.no_KD)
    )
    scorer = LocalPurityScorer({"benchmark": language}, torch.device("cpu"))
    started = time.process_time()
    answer = scorer.score(given.request)  # with the cosines of images and classes, which are kept
    first = time.process_time() - started
    ours = _median(lambda: scorer.score(given.request), args.repeats)
    started = time.process_time()
    scale, is_id = official_search(given)  # once: its loop runs 1,000 times
    official = time.process_time() - started
    same = bool(np.array_equal(is_id, answer.is_id))
    print(
        f"{num_classes:3d} {num_labelled:5d}  {official:8.2f}  {ours:8.3f}  {official / ours:6.1f}  "
        f"{scale == answer.logit_scale!s:10}  {same!s:14}  {first:.3f}"
    )
    return official, ours


def _report_total(encoding: float, search: float, ours: float) -> None:
    """Both parts together, at the dearest of the settings."""
    official = encoding + search
    print("\ntotal at the dearest setting (encoding extrapolated)")
    print(f"  a round, features stored: {official:,.0f} s against {ours:.3f} s, ratio {official / ours:,.0f}")
    trial, our_trial = QUERIES * official, encoding / ENCODINGS + QUERIES * ours
    print(
        f"  a first trial of {QUERIES} queries, our one encoding included: {trial:,.0f} s against {our_trial:,.0f} s, "
        f"ratio {trial / our_trial:.1f}"
    )


def _make_round(num_classes: int, num_labelled: int, num_pool: int) -> Round:
    """Unit features that lean towards a class or away from all; half of the labelled images are ID."""
    import numpy as np

    from strategies.purity.contract import PurityOptions, PurityRequest

    rng = np.random.default_rng(num_classes)
    yes_KD, no_KD = _unit(rng.normal(size=(2, num_classes, DIMS)))
    num_images = num_labelled + num_pool
    labels = rng.integers(0, 2 * num_classes, num_images)  # the second half of the classes is OOD
    labels[:num_labelled:2] = rng.integers(0, num_classes, len(labels[:num_labelled:2]))
    labels[1:num_labelled:2] = num_classes
    is_id = labels < num_classes
    towards = np.where(is_id[:, None], yes_KD[labels % num_classes], no_KD[labels % num_classes])
    features_AD = _unit(towards + 2.0 * _unit(rng.normal(size=(num_images, DIMS))))
    labelled = np.arange(num_labelled)
    request = PurityRequest(
        data_fingerprint="benchmark",
        class_names=tuple(f"class {k}" for k in range(num_classes)),
        labelled_id_idx=labelled[is_id[:num_labelled]],
        labelled_id_labels=labels[:num_labelled][is_id[:num_labelled]],
        labelled_ood_idx=labelled[~is_id[:num_labelled]],
        unlabelled_idx=np.arange(num_labelled, num_images),
        options=PurityOptions(),
    )
    return Round(features_AD=features_AD, yes_KD=yes_KD, no_KD=no_KD, request=request)


def official_search(given: Round) -> tuple[float, NDArray[np.bool_]]:
    """The chosen scale and the decisions (N,), by a loop over the scales and a metrics library."""
    import numpy as np
    import torch
    from sklearn.metrics import balanced_accuracy_score

    request = given.request
    features_AD, yes_KD, no_KD = (torch.from_numpy(a) for a in (given.features_AD, given.yes_KD, given.no_KD))
    id_features_ID = features_AD[torch.from_numpy(request.labelled_id_idx)]
    id_labels = torch.from_numpy(request.labelled_id_labels)
    prototypes_KD = torch.stack([id_features_ID[id_labels == k].mean(dim=0) for k in range(len(yes_KD))])

    def cosines(idx: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        features_ND = features_AD[torch.from_numpy(idx)]
        return features_ND @ yes_KD.T, features_ND @ no_KD.T, features_ND @ prototypes_KD.T

    def decide(yes_NK: torch.Tensor, no_NK: torch.Tensor, visual_NK: torch.Tensor, scale: float) -> NDArray[np.bool_]:
        joint_NK = torch.sigmoid(scale * (yes_NK - no_NK)) * torch.softmax(scale * yes_NK, dim=1)
        id_N = (joint_NK * torch.softmax(scale * visual_NK, dim=1)).max(dim=1).values
        decision: NDArray[np.bool_] = (id_N > (1 - joint_NK.sum(dim=1)) / yes_NK.shape[1]).numpy()
        return decision

    of_labelled = cosines(np.concatenate([request.labelled_id_idx, request.labelled_ood_idx]))
    truth = np.arange(len(of_labelled[0])) < len(request.labelled_id_idx)
    best_scale, best = 0.0, -1.0
    for tenth in range(1, 1001):
        accuracy = balanced_accuracy_score(truth, decide(*of_labelled, tenth / 10))
        if accuracy > best:
            best_scale, best = tenth / 10, accuracy
    return best_scale, decide(*cosines(request.unlabelled_idx), best_scale)


def _unit(values: NDArray[np.float64]) -> NDArray[np.float32]:
    import numpy as np

    unit: NDArray[np.float32] = (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)
    return unit


def _median(work: Callable[[], object], repeats: int) -> float:
    """Median CPU seconds: other work on the machine changes them least, and with one thread they are the wall's."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    sys.exit(main())
