"""The cores of the strategies against straightforward formulations: seconds, ratio, peak memory, and growth.

Every side runs in a process of its own, so that its peak of resident memory is its own. The straightforward sides are
written from the methods' descriptions with the usual libraries: one matrix of all distances (k-center), scikit-learn's
mixtures class by class (LfOSA), automatic differentiation (MQNet's meta-training), dense cosines (FINCH) and a loop
over images (CCAL).

python benchmarks/queries.py                      (the comparison, about two minutes on an idle core)
python benchmarks/queries.py --growth             (our sides from 10,000 to 100,000 pool images)
python benchmarks/queries.py --only kcenter

Shapes: N pool images, M labelled images, D features, Q picks, K ID classes.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks.memory import peak, restart_peak

Work = Callable[[int], Callable[[], Any]]
"""Makes the inputs for N pool images, and gives what is to be timed."""


def _features(num: int, dims: int, seed: int) -> np.ndarray:
    """Rows in clusters, as features of images are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(40, dims))
    return (centres[rng.integers(40, size=num)] + rng.normal(size=(num, dims))).astype(np.float32)


def kcenter_ours(num: int) -> Callable[[], Any]:
    """500 picks of N with 512 features, 500 labelled."""
    import torch

    from strategies.numeric.kcenter import kcenter_greedy

    labelled, pool = (torch.from_numpy(_features(count, 512, seed)) for count, seed in ((500, 0), (num, 1)))
    return lambda: kcenter_greedy(labelled, pool, 500)[0].numpy()


def kcenter_library(num: int) -> Callable[[], Any]:
    """The same with scikit-learn's pairwise distances in one matrix to which every pick adds a column."""
    from sklearn.metrics import pairwise_distances

    labelled, pool = _features(500, 512, 0), _features(num, 512, 1)

    def work() -> np.ndarray:
        distances = pairwise_distances(pool, labelled)
        picks = []
        for _ in range(500):
            pick = int(distances.min(axis=1).argmax())
            picks.append(pick)
            distances = np.concatenate([distances, pairwise_distances(pool, pool[pick : pick + 1])], axis=1)
        return np.array(picks)

    return work


def kcenter_running(num: int) -> Callable[[], Any]:
    """The same, scikit-learn's distances again, but each pick only lowers a running minimum."""
    from sklearn.metrics import pairwise_distances

    labelled, pool = _features(500, 512, 0), _features(num, 512, 1)

    def work() -> np.ndarray:
        nearest = pairwise_distances(pool, labelled).min(axis=1)
        picks = []
        for _ in range(500):
            picks.append(int(nearest.argmax()))
            np.minimum(nearest, pairwise_distances(pool, pool[picks[-1:]])[:, 0], out=nearest)
        return np.array(picks)

    return work


def mixtures_ours(num: int) -> Callable[[], Any]:
    """LfOSA: N activations of 40 classes."""
    from strategies.numeric.gaussian_mixture import fit_mixtures

    values, groups = _activations(num)
    return lambda: fit_mixtures(values, groups, 40).log_odds_N


def mixtures_library(num: int) -> Callable[[], Any]:
    """The same, class by class, with scikit-learn."""
    from sklearn.mixture import GaussianMixture

    values, groups = _activations(num)

    def work() -> np.ndarray:
        scores = np.zeros(num)
        for label in range(40):
            members = values[groups == label, None]
            mixture = GaussianMixture(2, tol=1e-2, max_iter=10, reg_covar=5e-4, random_state=0).fit(members)
            scores[groups == label] = mixture.predict_proba(members)[:, mixture.means_[:, 0].argmax()]
        return scores

    return work


def _activations(num: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(np.where(rng.random(num) < 0.5, 4.0, 9.0), 1.5), rng.integers(40, size=num)


def meta_ours(num: int) -> Callable[[], Any]:
    """MQNet: 11,200 steps on 500 queried images, whatever N is."""
    from strategies.numeric.query_network import QueryNetwork, train_query_network

    rng = np.random.default_rng(0)
    inputs, targets = np.exp(rng.normal(size=(500, 2))), rng.exponential(size=500)
    start = QueryNetwork.random(rng)
    return lambda: train_query_network(start, inputs, targets, epochs=100, learning_rate=1e-3).scores(inputs)


def meta_library(num: int) -> Callable[[], Any]:
    """The same with torch's automatic differentiation."""
    import torch

    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(np.exp(rng.normal(size=(500, 2)))).float()
    targets = torch.from_numpy(rng.exponential(size=500)).float()
    weights = [torch.rand(shape, requires_grad=True) for shape in ((2, 64), (64,), (64,))]

    def work() -> Any:
        optimiser = torch.optim.SGD(weights, lr=1e-3)
        for _ in range(100 * 7):
            for start in range(0, 500, 32):
                batch, wanted = inputs[start : start + 32], targets[start : start + 32]
                scores = torch.sigmoid(batch @ weights[0].relu() + weights[1]) @ weights[2].relu()
                half = len(wanted) // 2
                first, second = slice(0, half), slice(-half, None)
                sign = torch.where(wanted[first] > wanted[second].flip(0), 1.0, -1.0)
                loss = (1 - sign * (scores[first] - scores[second].flip(0))).relu().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        return scores.detach()

    return work


def finch_ours(num: int) -> Callable[[], Any]:
    """FINCH of N images with 128 features."""
    from strategies.numeric.finch import finch

    points = _features(num, 128, 0)
    return lambda: finch(points)


def finch_library(num: int) -> Callable[[], Any]:
    """The same first neighbours from one dense matrix of cosine distances, and links through a dense matrix."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components
    from sklearn.metrics import pairwise_distances

    points = _features(num, 128, 0).astype(np.float64)

    def work() -> list[np.ndarray]:
        labels, levels, rows = np.arange(num), [], points
        while len(rows) > 1:
            distances = pairwise_distances(rows, metric="cosine")
            np.fill_diagonal(distances, np.inf)
            nearest = distances.argmin(axis=1)
            links = np.zeros((len(rows), len(rows)), dtype=bool)
            links[np.arange(len(rows)), nearest] = True
            count, merged = connected_components(csr_matrix(links | links.T), directed=False)
            if levels and (count <= 1 or len(rows) - count <= 1):
                break
            labels = merged[labels]
            levels.append(labels)
            rows = np.stack([points[labels == number].mean(axis=0) for number in range(count)])
        return levels

    return work


def ccal_ours(num: int) -> Callable[[], Any]:
    """CCAL's distinctive scores: N images, 4 rotations, 40 classes of 12 labelled images."""
    from strategies.ccal import distinctive_raw

    pool, classes = _rotations(num)
    return lambda: np.stack([distinctive_raw(pool, labelled) for labelled in classes])


def ccal_library(num: int) -> Callable[[], Any]:
    """The same, image by image and class by class; on 200 images, extrapolated."""
    from sklearn.metrics.pairwise import cosine_similarity

    pool, classes = _rotations(200)

    def work() -> list[float]:
        scores = []
        for labelled in classes:
            for image in pool:
                parts = []
                for turn in range(4):
                    cosines = cosine_similarity(image[None, turn], labelled[:, turn])[0]
                    first, second = np.argsort(-cosines)[:2]
                    between = cosine_similarity(labelled[first, turn][None], labelled[second, turn][None])[0, 0]
                    parts.append(2 * cosines[first] - cosines[second] + between)
                scores.append(float(np.mean(parts)))
        return scores

    return work


def _rotations(num: int) -> tuple[np.ndarray, list[np.ndarray]]:
    pool = _features(num * 4, 128, 0).reshape(num, 4, 128)
    labelled = _features(40 * 12 * 4, 128, 1).reshape(40, 12, 4, 128)
    return pool, list(labelled)


CORES: dict[str, tuple[int, Work, Work]] = {
    "kcenter": (25_000, kcenter_ours, kcenter_library),
    "kcenter-minimum": (25_000, kcenter_ours, kcenter_running),
    "mixtures": (25_000, mixtures_ours, mixtures_library),
    "meta-training": (25_000, meta_ours, meta_library),
    "finch": (8_000, finch_ours, finch_library),
    "ccal": (25_000, ccal_ours, ccal_library),
}
"""Pool images of the comparison, our side, the straightforward side."""
EXTRAPOLATED = {"ccal": 200}
"""Straightforward sides that are run on fewer images."""


def measured(work: Work, num: int, threads: int) -> tuple[float, float]:
    """Wall seconds, and MiB of resident memory at the work's peak beyond what its inputs took."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_measure, args=(work, num, threads, results))
    process.start()
    took, grown = results.get()
    process.join()
    return took, grown


def _measure(work: Work, num: int, threads: int, results: Any) -> None:
    import torch

    torch.set_num_threads(threads)
    job = work(num)
    gc.collect()
    before = restart_peak()
    start = time.perf_counter()
    job()
    took = time.perf_counter() - start
    results.put((took, peak() - before))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=sorted(CORES), help="one core")
    parser.add_argument("--growth", action="store_true", help="our sides at 10,000 to 100,000 pool images")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (1)")
    args = parser.parse_args()
    chosen = {name: core for name, core in CORES.items() if args.only in (None, name)}
    if args.growth:
        print(f"{'ours':15}{'N':>9}{'seconds':>10}{'MiB more':>10}")
        for name, (_, ours, _) in chosen.items():
            for num in (10_000, 30_000, 100_000):
                took, grown = measured(ours, num, args.threads)
                print(f"{name:15}{num:9,}{took:10.2f}{grown:10.0f}", flush=True)
        return 0
    print(f"{'core':15}{'N':>9}{'usual s':>10}{'ours s':>10}{'ratio':>8}{'usual MiB':>11}{'ours MiB':>10}")
    for name, (num, ours, usual) in chosen.items():
        (our_time, our_memory), (their_time, their_memory) = (
            measured(side, num, args.threads) for side in (ours, usual)
        )
        their_time *= num / EXTRAPOLATED.get(name, num)
        note = f"  usual side extrapolated from {EXTRAPOLATED[name]} images" if name in EXTRAPOLATED else ""
        print(
            f"{name:15}{num:9,}{their_time:10.2f}{our_time:10.3f}{their_time / our_time:8.1f}{their_memory:11.0f}"
            f"{our_memory:10.0f}{note}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
