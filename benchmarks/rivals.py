"""What a query of the newer strategies costs: CPU seconds and peak memory of their cores, one thread, and growth.

25,000 pool images with 512 features, 5,500 labelled (5,000 ID of 40 classes, 500 OOD), 500 picks.

python benchmarks/rivals.py                       (at N = 25,000)
python benchmarks/rivals.py --growth              (from 10,000 to 100,000 pool images)
python benchmarks/rivals.py --only neat

Every core runs in a process of its own, so that its peak of resident memory is its own.

Shapes: N pool images, L labelled images, D features.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks.memory import peak, restart_peak

NUM_LABELLED, NUM_OOD, NUM_CLASSES, DIM, PICKS = 5_500, 500, 40, 512, 500


def _rows(num: int, seed: int) -> np.ndarray:
    """Unit rows in clusters, as features of images are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(60, DIM)).astype(np.float32)
    rows = centres[rng.integers(60, size=num)] + rng.normal(size=(num, DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def _labels() -> np.ndarray:
    rng = np.random.default_rng(5)
    ood = np.full(NUM_OOD, NUM_CLASSES)
    return np.concatenate([rng.integers(NUM_CLASSES, size=NUM_LABELLED - NUM_OOD), ood]).astype(np.int64)


def _logits(num: int) -> np.ndarray:
    return np.random.default_rng(6).normal(size=(num, NUM_CLASSES + 1)).astype(np.float32) * 3


def neat(num: int) -> Callable[[], Any]:
    """The vote, the disagreement and the order."""
    from strategies.neat import disagreements, most_known_first, vote

    pool, labelled, labels, logits = _rows(num, 1), _rows(NUM_LABELLED, 2), _labels(), _logits(num)[:, :-1]

    def work() -> Any:
        votes = vote(pool, labelled, labels, NUM_CLASSES, 10)
        known = most_known_first(votes, np.random.default_rng(0))[: 2 * PICKS]
        return known[np.argsort(-disagreements(logits, votes.counts_NK)[known])][:PICKS]

    return work


def uherding(num: int) -> Callable[[], Any]:
    """Width, coverage by the labelled images, and the exact greedy."""
    import torch

    from strategies.numeric.herding import coverage, herd, kernel_width

    pool, labelled = torch.from_numpy(_rows(num, 1)), torch.from_numpy(_rows(NUM_LABELLED, 2))
    weights = torch.rand(num, generator=torch.Generator().manual_seed(0))

    def work() -> Any:
        width = kernel_width(labelled)
        return herd(pool, weights, coverage(pool, labelled, width), width, PICKS)

    return work


def eaoa(num: int) -> Callable[[], Any]:
    """Energies, reverse neighbours, mixtures and candidates; without the detector."""
    from strategies.eaoa import (
        aleatoric,
        class_candidates,
        detector_energies,
        neighbour_energies,
        posteriors,
        reverse_counts,
    )

    pool, labelled, labels, logits = _rows(num, 1), _rows(NUM_LABELLED, 2), _labels(), _logits(num)

    def work() -> Any:
        counts = reverse_counts(pool, labelled, labels, NUM_CLASSES + 1, 250)
        reverse = neighbour_energies(counts, np.bincount(labels, minlength=NUM_CLASSES + 1))
        known = posteriors(detector_energies(logits), of_larger=False) * posteriors(reverse, of_larger=False)
        tie = aleatoric(logits[:, :-1])
        predicted = logits[:, :-1].argmax(axis=1)
        return class_candidates(predicted, known, posteriors(tie, of_larger=True), tie, share=13, width=5)

    return work


def typiclust(num: int) -> Callable[[], Any]:
    """k-means and typicality, without a label."""
    from strategies.typiclust import typical_points

    pool = _rows(num, 1)
    return lambda: typical_points(pool, 0, PICKS, np.random.default_rng(0))


def poal(num: int) -> Callable[[], Any]:
    """Mahalanobis distances, entropies and fronts."""
    from strategies.poal import likeness, pareto_fronts
    from strategies.uncertainty import entropies

    pool, labelled, logits = _rows(num, 1), _rows(NUM_LABELLED - NUM_OOD, 2), _logits(num)[:, :-1]
    labels = _labels()[:-NUM_OOD]
    return lambda: pareto_fronts(entropies(logits), likeness(pool, labelled, labels, NUM_CLASSES))


CORES: dict[str, Callable[[int], Callable[[], Any]]] = {
    "neat": neat, "uherding": uherding, "eaoa": eaoa, "typiclust": typiclust, "poal": poal,
}  # fmt: skip


def measured(make: Callable[[int], Callable[[], Any]], num: int) -> tuple[float, float]:
    """CPU seconds, and MiB of resident memory at the work's peak beyond what its inputs took."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_measure, args=(make, num, results))
    process.start()
    took, grown = results.get()
    process.join()
    return took, grown


def _measure(make: Callable[[int], Callable[[], Any]], num: int, results: Any) -> None:
    import sklearn.cluster  # noqa: F401  (its import is neither time nor memory of a query)
    import torch

    torch.set_num_threads(1)
    job = make(num)
    gc.collect()
    before, start = restart_peak(), time.process_time()
    job()
    results.put((time.process_time() - start, peak() - before))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=sorted(CORES), help="one core")
    parser.add_argument("--growth", action="store_true", help="10,000, 30,000 and 100,000 pool images")
    args = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"  # read by the processes that are started below
    print(f"{'core':12}{'N':>9}{'CPU s':>10}{'MiB more':>10}")
    for name, make in CORES.items():
        if args.only in (None, name):
            for num in (10_000, 30_000, 100_000) if args.growth else (25_000,):
                took, grown = measured(make, num)
                print(f"{name:12}{num:9,}{took:10.2f}{grown:10.0f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
