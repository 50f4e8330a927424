"""Cost of encoding images: operations of an image tower, and this machine's speed. Importing this needs no torch.

Shapes: S image size, P patch size, W width.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

SHARE_OF_PEAK = 0.9
"""Share of the matrix-product peak that a ViT-B/16 reaches on a CPU core in float32: 92 % on an AMD EPYC, n = 1
(benchmarks/image_tower.py)."""
MATRIX_SIZE = 512
PROBE_SECONDS = 0.1


def operations_an_image(config: Mapping[str, Any]) -> float:
    """Number of multiplications and additions for one image in the image tower of an open_clip config."""
    vision = config["vision_cfg"]
    if isinstance(vision["layers"], int):
        return 2 * _transformer_products(vision)
    return 2 * _resnet_products(vision)


def seconds_on_a_core(config: Mapping[str, Any], num_images: int) -> float | None:
    """Estimated seconds of encoding on one core of this machine in float32, from a matrix product timed now.

    None for a tower of timm, whose config does not say how large it is.
    """
    if "timm_model_name" in config["vision_cfg"]:
        return None
    return num_images * operations_an_image(config) / (SHARE_OF_PEAK * _operations_a_second())


def _transformer_products(vision: Mapping[str, Any]) -> float:
    """Number of products in a ViT: patches, then for each layer its matrices and attention over all tokens."""
    patch, width = vision["patch_size"], vision["width"]
    patches = (vision["image_size"] // patch) ** 2
    tokens = patches + 1
    mlp = vision.get("mlp_ratio", 4.0)
    layer = tokens * (4 + 2 * mlp) * width**2 + 2 * tokens**2 * width
    return float(3 * patch**2 * width * patches + vision["layers"] * layer)


def _resnet_products(vision: Mapping[str, Any]) -> float:
    """Number of products in CLIP's ResNet: three convolutions, bottlenecks, pooling by one attention query."""
    width, side = vision["width"], vision["image_size"] // 2
    half = width // 2
    total = 9 * side**2 * (3 * half + half**2 + half * width)
    side, inputs = side // 2, width
    for level, blocks in enumerate(vision["layers"]):
        planes = width * 2**level
        for block in range(blocks):
            out_side = side // 2 if level and not block else side
            total += side**2 * (inputs * planes + 9 * planes**2) + out_side**2 * 4 * planes**2
            total += 0 if block else out_side**2 * inputs * 4 * planes
            side, inputs = out_side, 4 * planes
    tokens = side**2 + 1
    return float(total + (1 + 2 * tokens) * inputs**2)


def _operations_a_second() -> float:
    """Operations per second of a float32 matrix product on this machine, the best within `PROBE_SECONDS`."""
    left, right = np.random.default_rng(0).random((2, MATRIX_SIZE, MATRIX_SIZE), dtype=np.float32)
    fastest, until = np.inf, time.perf_counter() + PROBE_SECONDS
    while time.perf_counter() < until:
        started = time.perf_counter()
        _ = left @ right
        fastest = min(fastest, time.perf_counter() - started)
    return float(2 * MATRIX_SIZE**3 / fastest)
