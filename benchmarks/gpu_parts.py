"""The measurements of `make gpu-check`, each part in a process of its own (`benchmarks/gpu_check.py` starts them).

A part gives figures by name, as JSON. Times of steps are medians over blocks of 100 steps of a real training (`fit`),
waited for at the end of each block; what compiles and records a step comes before the first block that counts.

Shapes: N images, B batch, S image size.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.image_tower import matrix_peak
from benchmarks.training import usual_fit
from data.imageset import ArrayImages
from models import graphs
from models.classifier.fit import CrossEntropy, fit
from models.classifier.inputs import Normalise
from models.classifier.networks import build_classifier
from models.classifier.open_set import OpenSetObjective, build_detector
from models.classifier.predict import predict
from models.classifier.recipe import Recipe
from models.classifier.steps import Objective
from models.device import Machine, use_arithmetic, use_threads

Figures = dict[str, Any]
NUM_CLASSES = 4
HALF = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
BATCH = 64
FLOPS_A_STEP = {32: 213e9, 64: 852e9}
"""Of a ResNet-18 of width 64 at batch 64, products with a border's zeros included."""
SIZES = (32, 64)
BLOCK = 100
"""Steps between two looks at the clock."""
WARM_BLOCKS = 1
"""Blocks at the start of a training that do not count."""
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
    network: nn.Module | None = None,
    inputs: NDArray[np.float32] | None = None,
    at_start: Callable[[], None] | None = None,
    **settings: Any,
) -> float:
    """Milliseconds per step of the classifier's training; `at_start` is called before the first block that counts."""
    times: list[float] = []

    def look(done: int, total: int) -> None:
        torch.cuda.synchronize()
        if at_start is not None and done == BLOCK * WARM_BLOCKS:
            at_start()
        times.append(time.perf_counter())

    steps = BLOCK * (WARM_BLOCKS + blocks)
    recipe = Recipe(steps=steps, batch_size=batch_size, precision="bf16", **settings)
    graphs.COMPILE_FROM = 0  # as in a long training
    fit(
        network or build_classifier(recipe, NUM_CLASSES, weights_seed=0),
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
    recipe = Recipe(steps=steps, precision="bf16")
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


def passes_part() -> Figures:
    """Images per second of a pool pass and of CLIPN's image tower."""
    device = fresh_device()
    found: Figures = {"pool_images_a_second": {}}
    recipe = Recipe(precision="bf16")
    for size, num in ((32, 40_000), (64, 20_000)):
        network = build_classifier(recipe, NUM_CLASSES, weights_seed=0).to(device)
        pool, idx, times = ArrayImages(images(num, size), fingerprint="-"), np.arange(num), []
        for _ in range(6):
            started = time.perf_counter()
            predict(network, pool, idx, recipe=recipe, normalise=Normalise(*HALF, device), device=device)
            times.append(time.perf_counter() - started)
        found["pool_images_a_second"][size] = num / statistics.median(times[1:])
        found[f"pool_first_pass_{size}"] = num / times[0]
    return found | tower_figures(device)


def tower_figures(device: torch.device) -> Figures:
    """Images per second of ViT-B/16 in bfloat16 as features are computed, and its share of the peak beside it."""
    from models.clipn.encode import TowerPass, normalised
    from models.clipn.model import Clipn
    from models.clipn.source import clip_config

    clipn = Clipn(clip_config("ViT-B-16")).to(device).eval()
    found: Figures = {}
    peak = matrix_peak(device, torch.bfloat16, 0.5)
    for way in ("recorded", "compiled"):
        tower = TowerPass(clipn, precision="bf16", compiled=way == "compiled")
        pixels_BSS3 = torch.randint(0, 256, (tower.batch_size, 224, 224, 3), dtype=torch.uint8, device=device)
        seconds = []
        for _ in range(4):
            torch.cuda.synchronize()
            started = time.perf_counter()
            for _ in range(5):
                with torch.inference_mode():
                    tower(normalised(pixels_BSS3))
            torch.cuda.synchronize()
            seconds.append((time.perf_counter() - started) / 5)
        rate = tower.batch_size / min(seconds[1:])
        found[f"tower_images_a_second_{way}"] = rate
        found[f"tower_share_of_peak_{way}"] = rate * TOWER_FLOPS / peak
        found["tower_batch"] = tower.batch_size
    return found


TOWER_FLOPS = 35.1e9
"""Of ViT-B/16 for one image of 224 pixels."""


def trainings_part() -> Figures:
    """What else trains: CLIPN's two stages, the contrastive encoder, the detectors, LL's head, a linear head."""
    device = fresh_device()
    found: Figures = clipn_figures(device)
    found["csi_ms"] = {size: contrastive_ms(size) for size in SIZES}
    found["lfosa_ms"], found["eoal_ms"] = {}, {}
    for size in SIZES:
        found["lfosa_ms"][size] = lfosa_ms(size)
        found["eoal_ms"][size] = eoal_ms(size, device)
    found["head_ms"] = head_ms()
    found["purity_seconds"] = purity_seconds(device)
    return found


def head_ms() -> float:
    """Milliseconds per step of a linear head on stored features of a ViT-B/16."""
    linear = {"network": "linear", "encoder": "clipn", "flip": False, "crop_padding": 0}
    head = build_classifier(Recipe(**linear), NUM_CLASSES, weights_seed=0, num_features=768)
    features = np.random.default_rng(0).standard_normal((4000, 768)).astype(np.float32)
    return ms_a_step(0, network=head, inputs=features, compiled=False, **linear)


def lfosa_ms(size: int) -> float:
    """Milliseconds per step of LfOSA's detector."""
    return ms_a_step(size, batch_size=128, objective=CrossEntropy(0.5), rotation=15.0, blocks=2)


def eoal_ms(size: int, device: torch.device) -> float:
    """Milliseconds per step of EOAL's detector, without the clustering before each pass."""
    recipe = Recipe(width=64)
    clusters = torch.arange(1000, device=device) % 3
    objective = OpenSetObjective(
        num_known=NUM_CLASSES - 1, is_ood_N=torch.arange(4000, device=device) % NUM_CLASSES == NUM_CLASSES - 1,
        temperature=0.5, alpha=0.8, regulariser=0.1, ood_features=lambda network: torch.zeros(0),
        cluster=lambda features: (torch.ones(3, 512, device=device), clusters),
    )  # fmt: skip
    objective.prepare = _once(objective.prepare)  # type: ignore[method-assign]
    network = build_detector(build_classifier(recipe, NUM_CLASSES, weights_seed=0), NUM_CLASSES - 1, weights_seed=0)
    return ms_a_step(size, batch_size=128, objective=objective, network=network, rotation=15.0, blocks=2)


def _once(prepare: Callable[[nn.Module, float], None]) -> Callable[[nn.Module, float], None]:
    """`prepare` for the first step only, where batches are drawn with replacement and each step is a pass."""
    called: list[bool] = []

    def first(network: nn.Module, done: float) -> None:
        if not called:
            called.append(True)
            prepare(network, done)

    return first


def clipn_figures(device: torch.device) -> Figures:
    """Steps per second of both stages of CLIPN's training at 32 pixels, as `train_clipn.py` does them."""
    from models.clipn.captions import ClassCaptions
    from models.clipn.prompts import default_templates
    from models.clipn.recipe import ClipRecipe, NoTowerRecipe, small_resnet_config
    from models.clipn.tokens import tokenize_classes
    from models.clipn.training import CaptionedImages, new_clipn, train_clip, train_no_tower

    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    clipn = new_clipn(small_resnet_config(32), 0)
    clipn.visual.to(memory_format=torch.channels_last)
    clipn.to(device)
    tokens_CTL = tokenize_classes(names, default_templates(), clipn.context_length)
    data = CaptionedImages(
        images=ArrayImages(images(5000, 32)), captions=ClassCaptions(np.arange(5000) % 10, tokens_CTL)
    )
    generator, steps = torch.Generator(device).manual_seed(0), 600
    clock = _StepClock(steps)
    train_clip(clipn, data, ClipRecipe(steps=steps), generator, _silent, clock)
    clip_rate, clock = clock.rate, _StepClock(steps)
    train_no_tower(clipn, data, ClipRecipe(), NoTowerRecipe(steps=steps, num_passes=1), generator, _silent, clock)
    return {"clip_steps_a_second": clip_rate, "no_tower_steps_a_second": clock.rate}


def _silent(line: str) -> None:
    """Progress that nobody reads."""


class _StepClock:
    """Snapshots that are never written, but tell when the second half of a stage began and ended."""

    def __init__(self, steps: int) -> None:
        self._steps, self._half, self.rate = steps, 0.0, 0.0

    def restore(self, stage: Any) -> int:
        """Nothing done yet."""
        return 0

    def offer(self, stage: Any, step: int) -> None:
        """Look at the clock, after waiting for the device."""
        if step in (self._steps // 2, self._steps):
            torch.cuda.synchronize()
            if step == self._steps // 2:
                self._half = time.perf_counter()
            else:
                self.rate = (self._steps - self._steps // 2) / (time.perf_counter() - self._half)


def contrastive_ms(size: int) -> float:
    """Milliseconds per step of CSI's encoder with the original study's recipe: 32 images, 256 views."""
    from models.contrastive import encoder
    from models.contrastive.recipe import ContrastiveRecipe

    graphs.COMPILE_FROM = 0
    recipe, times = ContrastiveRecipe(epochs=5, batch_size=32), []
    training = encoder._Training(encoder._new_encoder(recipe), images(50 * 32, size), "csi", recipe, DEVICE, _silent)
    take_pass = training._pass

    def timed(*given: Any) -> None:
        take_pass(*given)
        torch.cuda.synchronize()
        times.append(time.perf_counter())

    training._pass = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        training.run(Path(folder) / "state.pt")
    return statistics.median(np.diff(times)) / 50 * 1e3


def purity_seconds(device: torch.device) -> float:
    """Seconds of a purity request over 40,000 images and four classes."""
    from models.clipn.features import VisionLanguage
    from orchestrator.trial.purity_scorer import LocalPurityScorer
    from strategies.purity.contract import PurityOptions, PurityRequest

    rng = np.random.default_rng(0)

    def unit(num: int) -> NDArray[np.float32]:
        rows_ND = rng.standard_normal((num, 512)).astype(np.float32)
        return rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)

    texts = unit(4), unit(4)
    bank = VisionLanguage(image_features_ND=unit(40_000), logit_scale=100.0, encode_classes=lambda names: texts)
    scorer = LocalPurityScorer({"-": bank}, device)
    request = PurityRequest(
        data_fingerprint="-", class_names=("a", "b", "c", "d"), labelled_id_idx=np.arange(400),
        labelled_id_labels=np.arange(400) % 4, labelled_ood_idx=np.arange(400, 800),
        unlabelled_idx=np.arange(800, 40_000), options=PurityOptions(),
    )  # fmt: skip
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        scorer.score(request)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def memory_part() -> Figures:
    """Megabytes reserved after two and after twenty trainings in one process."""
    device = fresh_device()
    recipe = Recipe(width=64, steps=12, precision="bf16")
    reserved = []
    for _ in range(20):
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


def warm(what: str, size: int) -> None:
    """Compile a training's step into the cache; processes side by side do so while the tests run."""
    device = fresh_device()
    {
        "step": lambda: ms_a_step(size, blocks=1),
        "csi": lambda: contrastive_ms(size),
        "lfosa": lambda: lfosa_ms(size),
        "eoal": lambda: eoal_ms(size, device),
        "tower": lambda: tower_figures(device),
    }[what]()


PARTS: dict[str, Callable[[], Figures]] = {
    "steps": steps_part,
    "passes": passes_part,
    "trainings": trainings_part,
    "memory": memory_part,
}


def main() -> int:
    """Measure one part, named first, and write its figures to the file named second."""
    name, path = sys.argv[1], Path(sys.argv[2])
    if name.startswith("warm:"):
        _, what, size = name.split(":")
        warm(what, int(size))
        return 0
    figures = sharing_part(name.partition(":")[2]) if name.startswith("sharing:") else PARTS[name]()
    if graphs._Process.failure is not None:
        figures["compile_failure"] = graphs._Process.failure
    path.write_text(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
