"""Training and pool inference: our loop against the usual PyTorch loop and against the arithmetic floor, in one run.

The usual loop is what a tutorial writes: a DataLoader with worker processes, torchvision transforms image by image, and
the loss read back in every step. Same network, same images, same precision, same number of steps, one after the other
in turns; its workers are started anew every 100 steps, as the paper's official code does. The floor is the rate at
which this machine's best matrix product would do the step's floating-point operations, as torch counts them: products
with the zeros of a convolution's border are among them (about 15 % at 32 pixels), and need not be computed.

python benchmarks/training.py
python benchmarks/training.py --accuracy folder:PATH      (both loops' accuracies over seeds, as a trial trains)
python benchmarks/training.py --device cuda               (the paper's recipe; 1, 2 and 4 trials a card; GPU-hours)
python benchmarks/training.py --trials 1 2                (so many trainings at a time, here on the CPU)

Shapes: N images, B batch, K classes.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2

from benchmarks.image_tower import matrix_peak
from data.imageset import ArrayImages
from data.registry import open_data_set
from data.splits.ratios import draw_split
from experiments.results.statistics import estimate
from models.classifier.fit import fit
from models.classifier.inputs import Normalise
from models.classifier.networks import build_classifier
from models.classifier.predict import predict
from models.classifier.recipe import Recipe, named_recipe
from models.classifier.steps import autocast
from models.device import Machine, open_machine

NUM_CLASSES = 4
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
TABLE_4 = {"32 pixels": 960, "64 pixels": 480}
"""Trials of the paper's Table 4; a 64-pixel step costs four times a 32-pixel one."""
STEPS_A_LOADER = 100


class ImageDataset(Dataset[tuple[torch.Tensor, int]]):
    """Images one by one, as torchvision's data sets give them."""

    def __init__(self, pixels_NHW3: NDArray[np.uint8], labels: NDArray[np.int64], transform: v2.Transform) -> None:
        self.pixels, self.labels, self.transform = pixels_NHW3, labels, transform

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        """A transformed image and its label."""
        image = v2.functional.to_pil_image(self.pixels[number])
        return self.transform(image), int(self.labels[number])


def usual_transform(size: int, *, augment: bool) -> v2.Transform:
    """What the usual loop does to each image of `size` x `size` pixels."""
    random = [v2.RandomHorizontalFlip(), v2.RandomCrop(size, padding=4)] if augment else []
    return v2.Compose([*random, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


def loader(data: ImageDataset, workers: int, **settings: Any) -> DataLoader[tuple[torch.Tensor, int]]:
    """A DataLoader whose workers are forked, as they are by default where a program is started by a user."""
    return DataLoader(data, num_workers=workers, multiprocessing_context="fork" if workers else None, **settings)


def usual_fit(
    network: nn.Module,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    recipe: Recipe,
    *,
    workers: int,
    device: str,
    seed: int,
) -> nn.Module:
    """The usual loop: as many steps of the same recipe."""
    torch.manual_seed(seed)
    data = ImageDataset(pixels, labels, usual_transform(pixels.shape[1], augment=True))
    network = network.to(device).to(memory_format=torch.contiguous_format).train()
    optimiser = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    milestones = [int(share * recipe.steps) for share in recipe.milestones]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, gamma=recipe.decay)
    losses = []
    for done in range(0, recipe.steps, STEPS_A_LOADER):
        num_images = min(STEPS_A_LOADER, recipe.steps - done) * recipe.batch_size
        sampler = RandomSampler(data, replacement=True, num_samples=num_images)
        for images, targets in loader(data, workers, batch_size=recipe.batch_size, sampler=sampler):
            images, targets = images.to(device), targets.to(device)
            optimiser.zero_grad()
            with autocast(recipe, torch.device(device)):
                loss = F.cross_entropy(network(images)[0].float(), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
    if not math.isfinite(losses[-1]):
        raise ArithmeticError(f"the usual loop diverged: loss {losses[-1]}")
    return network.eval()


@torch.no_grad()
def usual_predict(
    network: nn.Module, pixels: NDArray[np.uint8], recipe: Recipe, *, workers: int, device: str
) -> NDArray[np.float32]:
    """The usual pass over a pool, in batches of 64."""
    data = ImageDataset(pixels, np.zeros(len(pixels), dtype=np.int64), usual_transform(pixels.shape[1], augment=False))
    logits = []
    for images, _ in loader(data, workers, batch_size=64):
        with autocast(recipe, torch.device(device)):
            logits.append(network(images.to(device))[0].float().cpu().numpy())
    return np.concatenate(logits)


def seconds(work: Callable[[], Any], device: str) -> float:
    """Wall seconds of some work, on a GPU until it is really done."""
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def timed(
    kind: str, recipe: Recipe, pixels: NDArray[np.uint8], labels: NDArray[np.int64], pool: NDArray[np.uint8],
    args: argparse.Namespace,
) -> float:  # fmt: skip
    """Wall seconds of a training or a pass over the pool by one of the loops, in a process that does only its own."""
    device = torch.device(args.device)
    if kind.endswith("usual"):
        torch.set_num_threads(args.threads)
        machine = Machine(device=device)
    else:
        machine = open_machine(cpus=args.threads, gpus=float(args.device == "cuda"), plain_steps=kind == "train plain")
    normalise, usual = Normalise(MEAN, STD, device), {"workers": args.workers, "device": args.device}
    network = build_classifier(recipe, NUM_CLASSES, weights_seed=0)
    work: dict[str, Callable[[], Any]] = {
        "train usual": lambda: usual_fit(network, pixels, labels, recipe, **usual, seed=0),
        "pool usual": lambda: usual_predict(network.to(device).eval(), pool, recipe, **usual),
        "pool ours": lambda: predict(
            network.to(device), ArrayImages(pool, fingerprint="-"), np.arange(len(pool)), recipe=recipe,
            normalise=normalise, device=device,
        ),
    }  # fmt: skip
    ours = partial(
        fit, network, pixels, labels, recipe=recipe, normalise=normalise, batches_seed=0, machine=machine
    )  # fmt: skip
    return seconds(work.get(kind, ours), args.device)


def step_operations(recipe: Recipe, *, training: bool) -> float:
    """Floating-point operations an image of a training step, or of a pass without gradient."""
    network = build_classifier(recipe, NUM_CLASSES, weights_seed=0).train(training)
    images = torch.zeros(2, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        loss = network(images)[0].sum()
        if training:
            loss.backward()
    return float(counter.get_total_flops() / 2)


def speed(args: argparse.Namespace) -> None:
    """Print the table of images a second."""
    recipe = Recipe(width=args.width, steps=args.steps, precision=args.precision, eval_batch_size=512)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (500, 32, 32, 3), dtype=np.uint8)
    pool = rng.integers(0, 256, (args.pool, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(500) % NUM_CLASSES
    kinds = ("train usual", "train ours", "pool usual", "pool ours")
    kinds += ("train plain",) if args.device == "cuda" else ()
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    # A process for each loop: a trial sets up its own threads, arithmetic and memory, which the usual loop does not.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as usual_side, ProcessPoolExecutor(1, context) as our_side:
        for repeat in range(args.repeats):
            print(f"repeat {repeat + 1} of {args.repeats}", file=sys.stderr, flush=True)
            for kind in kinds:
                side = usual_side if kind.endswith("usual") else our_side
                times[kind].append(side.submit(timed, kind, recipe, pixels, labels, pool, args).result())
    device = torch.device(args.device)
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    peak = matrix_peak(device, dtype, 1.0)
    print(f"{args.device}, width {args.width}, {args.precision}, {torch.get_num_threads()} thread(s), "
          f"{args.workers} loader worker(s); median of {args.repeats}")  # fmt: skip
    print(f"best matrix product {peak / 1e9:,.0f} GFLOP/s")
    print(f"{'':8}{'usual':>12}{'ours':>12}{'floor':>12}{'ours/usual':>12}{'ours/floor':>12}   images/s")
    for kind, num in (("train", args.steps * recipe.batch_size), ("pool", len(pool))):
        usual, ours = (num / statistics.median(times[f"{kind} {side}"]) for side in ("usual", "ours"))
        floor = peak / step_operations(recipe, training=kind == "train")
        print(f"{kind:8}{usual:12,.0f}{ours:12,.0f}{floor:12,.0f}{ours / usual:12.2f}{ours / floor:12.3f}")
    if "train plain" in times:
        plain = args.steps * recipe.batch_size / statistics.median(times["train plain"])
        print(f"train, ours with --plain-steps: {plain:,.0f} images/s")


def accuracy(args: argparse.Namespace) -> None:
    """Accuracies of both loops over seeds, on the initial labelled set of CIFAR-like trials (mismatch 0.4, OOD 0.2)."""
    data = open_data_set(args.accuracy)
    settings = {"name": "cpu", "width": args.width, "steps": args.steps}
    plain, recipe = (
        Recipe(**named_recipe(settings | {"precision": precision})) for precision in ("fp32", args.precision)
    )
    device = torch.device(args.device)
    normalise = Normalise(data.mean, data.std, device)
    found: dict[str, list[float]] = {"usual": [], "ours": []}
    for seed in range(args.seeds):
        split = draw_split(
            data.train.labels, num_classes=data.num_classes, mismatch_ratio=0.4, ood_ratio=0.2, budget=args.budget,
            seed=seed,
        )  # fmt: skip
        pixels = data.train.images.load(split.initial_id_idx)
        labels = split.relabel(data.train.labels)[split.initial_id_idx]
        test_labels = split.relabel(data.test.labels)
        test_idx = np.flatnonzero(test_labels < split.num_id_classes)
        for name, network in both(pixels, labels, plain, recipe, normalise, seed, args.workers, device):
            given = predict(network, data.test.images, test_idx, recipe=recipe, normalise=normalise, device=device)
            found[name].append(float((given.logits_NK.argmax(axis=1) == test_labels[test_idx]).mean()))
        print(f"seed {seed}: usual {found['usual'][-1]:.4f}, ours {found['ours'][-1]:.4f}", flush=True)
    differences = np.subtract(found["ours"], found["usual"])
    for name, values in (*found.items(), ("ours - usual, by seed", differences)):
        of = estimate(values)
        print(f"{name:22} {of.mean:.4f} +- {of.half_width:.4f} (95 % t-interval, n = {of.num_seeds})")


def both(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64], plain: Recipe, recipe: Recipe, normalise: Normalise,
    seed: int, workers: int, device: torch.device,
) -> Iterator[tuple[str, nn.Module]]:  # fmt: skip
    """The same initial network, trained by each loop."""
    network = build_classifier(plain, NUM_CLASSES, weights_seed=seed)
    yield "usual", usual_fit(network, pixels, labels, plain, workers=workers, device=device.type, seed=seed)
    network = build_classifier(recipe, NUM_CLASSES, weights_seed=seed)
    yield (
        "ours",
        fit(
            network,
            pixels,
            labels,
            recipe=recipe,
            normalise=normalise,
            batches_seed=seed,
            machine=Machine(device=device),
        ),
    )


def one_of_several(recipe: Recipe, device_name: str, threads: int, barrier: Any, results: Any) -> None:
    """One trial's training on a shared device, after one that does not count; its seconds a step."""
    torch.set_num_threads(threads)
    device = torch.device(device_name)
    pixels = np.random.default_rng(0).integers(0, 256, (4000, 32, 32, 3), dtype=np.uint8)
    labels, normalise = np.arange(4000) % NUM_CLASSES, Normalise(MEAN, STD, device)

    def train(recipe: Recipe) -> None:
        network = build_classifier(recipe, NUM_CLASSES, weights_seed=0)
        fit(network, pixels, labels, recipe=recipe, normalise=normalise, batches_seed=0, machine=Machine(device=device))

    train(recipe.model_copy(update={"steps": min(20, recipe.steps)}))
    barrier.wait(timeout=300)
    results.put(seconds(lambda: train(recipe), device_name) / recipe.steps)


def table4_hours(args: argparse.Namespace) -> None:
    """Seconds a round of 20,000 steps with so many trials at a time, and the hours of Table 4 on such a device."""
    recipe = Recipe(width=args.width, steps=args.steps, precision=args.precision)
    context = multiprocessing.get_context("spawn")
    for trials in args.trials:
        barrier, results = context.Barrier(trials), context.SimpleQueue()
        given = (recipe, args.device, args.threads, barrier, results)
        processes = [context.Process(target=one_of_several, args=given) for _ in range(trials)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise RuntimeError(f"{trials} trials at a time: a training failed, see above")
        a_step = statistics.mean(results.get() for _ in processes)
        a_round = 20_000 * a_step
        hours = (TABLE_4["32 pixels"] + 4 * TABLE_4["64 pixels"]) * 10 * a_round / trials / 3600
        print(f"{trials} trial(s) at a time: {a_round:,.0f} s a round of 20,000 steps at 32 pixels; Table 4: "
              f"{hours:,.0f} hours of this device (training alone, extrapolated)", flush=True)  # fmt: skip


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (1)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the usual loop's loader (2)")
    parser.add_argument("--width", type=int, default=None, help="channels of the first stage (16; on CUDA 64)")
    parser.add_argument("--steps", type=int, default=None, help="training steps a repeat (100; on CUDA 200)")
    parser.add_argument("--pool", type=int, default=3000, help="pool images a repeat (3000)")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of every side, in turns (3)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default=None, help="fp32; on CUDA bf16")
    parser.add_argument("--accuracy", metavar="DATASET", help="compare accuracies on this data set instead")
    parser.add_argument("--seeds", type=int, default=5, help="with --accuracy (5)")
    parser.add_argument("--budget", type=int, default=500, help="with --accuracy: size of the initial set (500)")
    parser.add_argument(
        "--trials", type=int, nargs="+", help="only this: so many trials at a time (on CUDA 1 2 4, too)"
    )
    args = parser.parse_args()
    on_gpu = args.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("training.py: error: --device cuda: torch sees no GPU here", file=sys.stderr)
        return 2
    args.width = args.width or (64 if on_gpu else 16)
    args.steps = args.steps or (300 if args.accuracy else 200 if on_gpu else 100)
    args.precision = args.precision or ("bf16" if on_gpu else "fp32")
    torch.set_num_threads(args.threads)
    if args.accuracy:
        accuracy(args)
        return 0
    if not args.trials:
        speed(args)
        args.trials = (1, 2, 4) if on_gpu else ()
    table4_hours(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
