"""Measurements of `make gpu-check`: all that trains beside the classifier.

CLIPN's two stages, a contrastive encoder, the detectors of LfOSA and EOAL, a linear head.

Shapes: N images, C classes, T templates, L tokens.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.gpu_passes import purity_seconds
from benchmarks.gpu_steps import DEVICE, NUM_CLASSES, SIZES, WIDTH, Figures, fresh_device, images, ms_a_step
from data.imageset import ArrayImages
from models import graphs
from models.classifier.fit import CrossEntropy
from models.classifier.networks import build_classifier
from models.classifier.open_set import OpenSetObjective, build_detector
from models.classifier.recipe import Recipe

CLIPN_STEPS = 600
"""Steps of each of CLIPN's stages; the second half counts."""

PASS_STEPS = 50
"""Steps of a pass of the contrastive encoder."""


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
    return ms_a_step(0, classifier=head, inputs=features, compiled=False, **linear)


def lfosa_ms(size: int) -> float:
    """Milliseconds per step of LfOSA's detector."""
    return ms_a_step(size, batch_size=128, objective=CrossEntropy(0.5), rotation=15.0, blocks=2)


def eoal_ms(size: int, device: torch.device) -> float:
    """Milliseconds per step of EOAL's detector, without the clustering before each pass."""
    recipe = Recipe(width=WIDTH)
    clusters = torch.arange(1000, device=device) % 3
    network = build_classifier(recipe, NUM_CLASSES, weights_seed=0)
    objective = OpenSetObjective(
        num_known=NUM_CLASSES - 1, is_ood_N=torch.arange(4000, device=device) % NUM_CLASSES == NUM_CLASSES - 1,
        temperature=0.5, alpha=0.8, regulariser=0.1, ood_features=lambda network: torch.zeros(0),
        cluster=lambda features: (torch.ones(3, network.head.in_features, device=device), clusters),
    )  # fmt: skip
    objective.prepare = _once(objective.prepare)  # type: ignore[method-assign]
    detector = build_detector(network, NUM_CLASSES - 1, weights_seed=0)
    return ms_a_step(size, batch_size=128, objective=objective, classifier=detector, rotation=15.0, blocks=2)


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
    generator, steps = torch.Generator(device).manual_seed(0), CLIPN_STEPS
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
    recipe, times = ContrastiveRecipe(width=WIDTH, epochs=5, batch_size=32), []
    training = encoder._Training(
        encoder._new_encoder(recipe), images(PASS_STEPS * 32, size), "csi", recipe, DEVICE, _silent
    )
    take_pass = training._pass

    def timed(*given: Any) -> None:
        take_pass(*given)
        torch.cuda.synchronize()
        times.append(time.perf_counter())

    training._pass = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        training.run(Path(folder) / "state.pt")
    return statistics.median(np.diff(times)) / PASS_STEPS * 1e3
