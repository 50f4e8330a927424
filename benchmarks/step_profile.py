"""Where the CPU time of a training step goes, and what share of the machine's peak its convolutions reach.

One thread; the profiler itself costs some per cent, so the step is also timed without it.

python benchmarks/step_profile.py
python benchmarks/step_profile.py --width 64 --steps 10
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.image_tower import matrix_peak
from benchmarks.training import MEAN, NUM_CLASSES, STD, step_operations
from models.classifier.fit import fit
from models.classifier.inputs import Normalise
from models.classifier.networks import build_classifier
from models.classifier.recipe import Recipe
from models.device import Machine, open_machine

PARTS = {
    "convolutions, forward": ("aten::mkldnn_convolution", "aten::_slow_conv2d_forward"),
    "convolutions, backward": ("aten::convolution_backward",),
    "batch norms": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
    "ReLUs": ("aten::clamp_min", "aten::clamp_min_", "aten::threshold_backward"),
    "shortcuts and sums of gradients": ("aten::add", "aten::add_", "aten::fill_", "aten::copy_"),
    "SGD": ("aten::_fused_sgd_",),
}
"""Part of a step -> the operations that it consists of; all others are counted together."""


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage (16)")
    parser.add_argument("--steps", type=int, default=30, help="steps that are timed (30)")
    args = parser.parse_args()
    machine = open_machine(cpus=1, gpus=0)
    recipe = Recipe(width=args.width, steps=args.steps)
    train(recipe.model_copy(update={"steps": 3}), machine)
    start = time.process_time()
    train(recipe, machine)
    step_ms = 1000 * (time.process_time() - start) / args.steps
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        train(recipe, machine)
    part_of = {operation: part for part, operations in PARTS.items() for operation in operations}
    spent: Counter[str] = Counter()
    for event in profiler.key_averages():
        spent[part_of.get(event.key, "other operations")] += event.self_cpu_time_total / 1000 / args.steps
    peak = matrix_peak(machine.device, torch.float32, 1.0)
    floor_ms = 1000 * recipe.batch_size * step_operations(recipe, training=True) / peak
    print(f"ResNet-18, width {args.width}, batch {recipe.batch_size}, 32 pixels, fp32, one thread, {args.steps} steps")
    print(f"a step: {step_ms:.1f} ms; its arithmetic at this machine's best matrix product: {floor_ms:.1f} ms")
    print(f"{'':34}{'ms':>8}{'share':>8}")
    total = spent.total()
    for part in (*PARTS, "other operations"):
        print(f"{part:34}{spent[part]:8.1f}{spent[part] / total:8.1%}")
    convolutions = sum(ms for part, ms in spent.items() if part.startswith("convolutions"))
    print(f"{'all':34}{total:8.1f}")
    print(f"convolutions at {floor_ms / convolutions:.2f} of the best matrix product's rate")
    return 0


def train(recipe: Recipe, machine: Machine) -> None:
    """Train a fresh network on random images as a trial does."""
    pixels = np.random.default_rng(0).integers(0, 256, (500, 32, 32, 3), dtype=np.uint8)
    network = build_classifier(recipe, NUM_CLASSES, weights_seed=0)
    normalise = Normalise(MEAN, STD, machine.device)
    fit(
        network,
        pixels,
        np.arange(500) % NUM_CLASSES,
        recipe=recipe,
        normalise=normalise,
        batches_seed=0,
        machine=machine,
    )


if __name__ == "__main__":
    sys.exit(main())
