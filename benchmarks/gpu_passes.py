"""Measurements of `make gpu-check`: passes over a pool, CLIPN's image tower, and a purity request.

Shapes: N images, D embedding, B batch, S image size.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu_steps import HALF, NUM_CLASSES, WIDTH, Figures, fresh_device, images
from benchmarks.image_tower import matrix_peak
from data.imageset import ArrayImages
from experiments.commands.rates import PURITY_IMAGES
from models.classifier.inputs import Normalise
from models.classifier.networks import build_classifier
from models.classifier.predict import predict
from models.classifier.recipe import Recipe

POOLS = {32: 40_000, 64: 20_000}
"""Size of the images -> images of a pass."""
TOWER_FLOPS = 35.1e9
"""Of ViT-B/16 for one image of 224 pixels."""


def passes_part() -> Figures:
    """Images per second of a pool pass and of CLIPN's image tower."""
    device = fresh_device()
    found: Figures = {"pool_images_a_second": {}}
    recipe = Recipe(width=WIDTH, precision="bf16")
    for size, num in POOLS.items():
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


def purity_seconds(device: torch.device) -> float:
    """Seconds of a purity request over `PURITY_IMAGES` images and four classes."""
    from models.clipn.features import VisionLanguage
    from orchestrator.trial.purity_scorer import LocalPurityScorer
    from strategies.purity.contract import PurityOptions, PurityRequest

    rng = np.random.default_rng(0)

    def unit(num: int) -> NDArray[np.float32]:
        rows_ND = rng.standard_normal((num, 512)).astype(np.float32)
        return rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)

    texts = unit(4), unit(4)
    bank = VisionLanguage(image_features_ND=unit(PURITY_IMAGES), logit_scale=100.0, encode_classes=lambda names: texts)
    scorer = LocalPurityScorer({"-": bank}, device)
    request = PurityRequest(
        data_fingerprint="-", class_names=("a", "b", "c", "d"), labelled_id_idx=np.arange(400),
        labelled_id_labels=np.arange(400) % 4, labelled_ood_idx=np.arange(400, 800),
        unlabelled_idx=np.arange(800, PURITY_IMAGES), options=PurityOptions(),
    )  # fmt: skip
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        scorer.score(request)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])
