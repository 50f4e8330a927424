"""Measurements of `make gpu-check`: a classifier's steps, alone and side by side, and a card's memory after many.

Times of steps are medians over blocks of 100 steps of a real training (`fit`), waited for at the end of each block;
what compiles and records a step comes before the first block that counts.

Shapes: N images, S image size.
"""

from __future__ import annotations

import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.image_tower import matrix_peak
from benchmarks.training import usual_fit
from models import graphs
from models.classifier.fit import fit
from models.classifier.inputs import Normalise
from models.classifier.networks import build_classifier
from models.classifier.recipe import Recipe
from models.classifier.steps import Objective
from models.device import Machine, use_arithmetic, use_threads

Figures = dict[str, Any]
NUM_CLASSES = 4
HALF = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
BATCH, WIDTH = 64, 64
FLOPS_A_STEP = {32: 213e9, 64: 852e9}
"""Of a ResNet-18 of width 64 at batch 64, products with a border's zeros included."""
SIZES = (32, 64)
BLOCK = 100
"""Steps between two looks at the clock."""
WARM_BLOCKS = 1
"""Blocks at the start of a training that do not count."""
TRAININGS = 20
"""Trainings whose memory is looked at."""
DEVICE = torch.device("cuda")


def fresh_device() -> torch.device:
    """The GPU, computing as fast as it can."""
    use_threads(2)
    use_arithmetic(DEVICE, deterministic=False)
    return DEVICE


def images(num: int, size: int) -> NDArray[np.uint8]:
    """Random pixels: what they show costs nothing."""
    return np.random.default_rng(0).integers(0, 256, (num, size, size, 3), dtype=np.uint8)


def ms_a_step(
    size: int,
    *,
    blocks: int = 4,
    plain_steps: bool = False,
    compiled: bool = True,
    batch_size: int = BATCH,
    objective: Objective | None = None,
    classifier: nn.Module | None = None,
    inputs: NDArray[np.float32] | None = None,
    at_start: Callable[[], None] | None = None,
    **settings: Any,
) -> float:
    """Milliseconds per step of the classifier's training, or of that of another `classifier`.

    `at_start` is called before the first block that counts; `settings` are the recipe's.
    """
    times: list[float] = []

    def look(done: int, total: int) -> None:
        torch.cuda.synchronize()
        if at_start is not None and done == BLOCK * WARM_BLOCKS:
            at_start()
        times.append(time.perf_counter())

    steps = BLOCK * (WARM_BLOCKS + blocks)
    recipe = Recipe(**{"width": WIDTH, "steps": steps, "batch_size": batch_size, "precision": "bf16"} | settings)
    graphs.COMPILE_FROM = 0  # as in a long training
    fit(
        classifier or build_classifier(recipe, NUM_CLASSES, weights_seed=0),
        images(4000, size) if inputs is None else inputs,
        np.arange(4000) % NUM_CLASSES,
        recipe=recipe,
        normalise=Normalise(*HALF, DEVICE),
        batches_seed=0,
        machine=Machine(device=DEVICE, plain_steps=plain_steps, no_compile=not compiled),
        objective=objective,
        progress=look,
    )
    counted = times[WARM_BLOCKS - 1 :]
    return statistics.median(np.diff(counted)) / BLOCK * 1e3


def usual_ms(size: int, *, steps: int = 40) -> float:
    """Milliseconds per step of the usual loop: a DataLoader with 8 workers, and the loss read in each step."""
    recipe = Recipe(width=WIDTH, steps=steps, precision="bf16")
    network = build_classifier(recipe, NUM_CLASSES, weights_seed=0)
    given = images(2000, size), np.arange(2000) % NUM_CLASSES
    usual_fit(network, *given, recipe.model_copy(update={"steps": 5}), workers=8, device="cuda", seed=0)  # warms up
    started = time.perf_counter()
    usual_fit(network, *given, recipe, workers=8, device="cuda", seed=0)
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / steps * 1e3


def steps_part() -> Figures:
    """One training on the card in each way, and the peak of its matrix products."""
    device = fresh_device()
    peak = max(matrix_peak(device, torch.bfloat16, 0.5) for _ in range(3))  # a card that was idle is slow at first
    found: Figures = {"device": torch.cuda.get_device_name(), "peak_tflops": peak / 1e12, "steps": []}
    ways: dict[str, Callable[[int], float]] = {
        "usual": usual_ms,
        "plain": lambda size: ms_a_step(size, blocks=1, plain_steps=True, compiled=False),
        "recorded": lambda size: ms_a_step(size, compiled=False),
        "compiled and recorded": ms_a_step,
    }
    for size in SIZES:
        for way, measure in ways.items():
            row = {"pixels": size, "way": way, "trials": 1, "sharing": "alone", "ms": measure(size)}
            found["steps"].append(row | {"share_of_peak": share_of_peak(row, found["peak_tflops"])})
    return found


def share_of_peak(row: Figures, peak_tflops: float) -> float:
    """Of the card's best matrix product, by the time per step and training."""
    return float(FLOPS_A_STEP[row["pixels"]] / (row["ms"] / 1e3) / (peak_tflops * 1e12))


def _one_of_several(number: int, phases: Sequence[tuple[int, Any, Any]], results: Any) -> None:
    fresh_device()
    for trials, begin, end in phases:
        if number < trials:
            for size in SIZES:
                results.put((trials, size, ms_a_step(size, blocks=2, at_start=begin.wait)))
        end.wait()


def sharing_part(sharing: str, several: Sequence[int] = (4, 2)) -> Figures:
    """Trainings side by side, a process each.

    The caller has started MPS or not, and this process leaves the card alone. The same processes take part in all of
    `several`, the largest number first: starting them takes longer than they run.
    """
    context = multiprocessing.get_context("spawn")
    results, most = context.Queue(), max(several)
    phases = [
        (trials, context.Barrier(trials, timeout=60), context.Barrier(most, timeout=60)) for trials in several
    ]  # fmt: skip
    processes = [context.Process(target=_one_of_several, args=(number, phases, results)) for number in range(most)]
    for process in processes:
        process.start()
    found = [results.get(timeout=90) for _ in range(len(SIZES) * sum(several))]
    for process in processes:
        process.join()
    return {
        "steps": [
            {
                "pixels": size,
                "way": "compiled and recorded",
                "trials": trials,
                "sharing": sharing,
                "ms": statistics.mean(ms for *which, ms in found if which == [trials, size]) / trials,
            }
            for trials in several
            for size in SIZES
        ]
    }


def memory_part() -> Figures:
    """Megabytes reserved after two and after twenty trainings in one process."""
    device = fresh_device()
    recipe = Recipe(width=WIDTH, steps=12, precision="bf16")
    reserved = []
    for _ in range(TRAININGS):
        network = build_classifier(recipe, NUM_CLASSES, weights_seed=0)
        fit(
            network, images(500, 32), np.arange(500) % NUM_CLASSES, recipe=recipe,
            normalise=Normalise(*HALF, device), batches_seed=0, machine=Machine(device=device),
        )  # fmt: skip
        del network
        gc.collect()
        torch.cuda.empty_cache()
        reserved.append(torch.cuda.memory_reserved() / 2**20)
    return {"memory_mib_after_2": reserved[1], "memory_mib_after_20": reserved[-1]}
