"""Throughput of CLIPN's image tower against this machine's measured peak of matrix products.

The tower has random weights, which cost what trained ones cost; the peak is the best of a few square products in the
same precision, measured beside each mode. On the CPU one thread is timed in CPU seconds, which other work on it
changes least; on CUDA wall seconds, with the stream waited for.

python benchmarks/image_tower.py
python benchmarks/image_tower.py --device cuda --batch-size 256

Shapes: B batch, S image size.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

if TYPE_CHECKING:
    import torch
    from torch import nn

MATRIX_SIZES = {"cpu": (512, 1024), "cuda": (4096, 8192)}


def main() -> int:
    """Print one line a precision and mode."""
    args = _parser().parse_args()
    import torch

    from models.clipn.model import Clipn
    from models.clipn.source import clip_config
    from orchestrator.trial.environment import describe_environment

    torch.set_num_threads(1)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("image_tower.py: error: --device cuda: torch sees no GPU here", file=sys.stderr)
        return 2
    clipn = Clipn(clip_config(args.model)).eval()
    flops = _flops_an_image(clipn.visual, clipn.image_size)
    print(" ".join(f"{name}: {value}" for name, value in describe_environment(device).items()))
    print(f"{args.model}: {flops / 1e9:.1f} GFLOP an image, batch {args.batch_size}")
    print("precision  mode      images/s  GFLOP/s  peak GFLOP/s  share of peak")
    for precision in args.precisions:
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        peak = 0.0
        tower = clipn.visual.to(device, dtype)
        images_B3SS = torch.randn(args.batch_size, 3, clipn.image_size, clipn.image_size, device=device, dtype=dtype)
        for mode in args.modes:
            peak = max(peak, matrix_peak(device, dtype, args.seconds))
            try:
                rate = args.batch_size / _seconds_a_pass(_in_mode(tower, mode), images_B3SS, args.seconds)
            except Exception as error:  # a compiler that is missing or fails is a result here
                print(f"{precision:9}  {mode:8}  failed: {type(error).__name__}: {str(error).splitlines()[0]}")
                continue
            print(
                f"{precision:9}  {mode:8}  {rate:8.2f}  {rate * flops / 1e9:7.0f}  {peak / 1e9:12.0f}  "
                f"{rate * flops / peak:13.0%}",
                flush=True,
            )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="image_tower.py", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--model", default="ViT-B-16", metavar="NAME", help="open_clip's (default: ViT-B-16)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: cpu")
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--modes", nargs="+", choices=["eager", "compiled"], default=["eager", "compiled"])
    parser.add_argument("--batch-size", type=int, default=4, metavar="B", help="images a pass (default: 4)")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of each measurement (default: 3)")
    return parser


def _in_mode(tower: nn.Module, mode: str) -> Callable[[torch.Tensor], object]:
    import torch

    return torch.compile(tower) if mode == "compiled" else tower


def _flops_an_image(tower: nn.Module, size: int) -> int:
    """Floating-point operations of the tower's matrix products and convolutions for one image."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter cannot see into fused attention
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        tower(torch.zeros(1, 3, size, size))
    torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())


def matrix_peak(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """The most floating-point operations a second that square matrix products reach.

    On a CPU by any of torch's libraries: in fp32 on an AMD EPYC with AVX-512 `matmul` (MKL) reaches 115 GFLOP/s a core
    and oneDNN, which computes the convolutions, 255; in bf16 `matmul` and `linear` may differ 20 times.
    """
    import torch
    from torch.nn.functional import linear

    rates: list[float] = []
    for size in MATRIX_SIZES[device.type]:
        left, right = torch.randn(2, size, size, device=device).to(dtype)
        ways: list[tuple[Callable[..., torch.Tensor], torch.Tensor]] = [(torch.matmul, left), (linear, left)]
        if device.type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.enabled:
            ways.append((linear, left.to_mkldnn()))
        rates += [
            2 * size**3 / _seconds_a_pass(partial(_product, way, right), given, seconds / 4) for way, given in ways
        ]
    return max(rates)


def _product(way: Callable[..., torch.Tensor], right: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
    return way(left, right)


def _seconds_a_pass(work: Callable[[torch.Tensor], object], given: torch.Tensor, seconds: float) -> float:
    """Mean seconds of a pass, measured for about `seconds` after one pass that does not count."""
    import torch

    with torch.inference_mode():
        work(given)
        _wait(given.device)
        clock = time.process_time if given.device.type == "cpu" else time.perf_counter
        started, passes = clock(), 0
        while clock() - started < seconds:
            work(given)
            _wait(given.device)
            passes += 1
        return (clock() - started) / passes


def _wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
