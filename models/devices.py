"""Which device and how many threads a process computes with."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from data.code_version import code_version
from models.recipe import Recipe


def use_threads(num_threads: int) -> None:
    """Let torch use `num_threads` threads in this process.

    Set on purpose: torch's default is one thread a core in every process, and processes that share cores then wait
    for each other's threads (two on two busy cores took up to 10 times the CPU time of one thread).
    """
    torch.set_num_threads(max(1, num_threads))


def pick_device(gpus: float) -> torch.device:
    """`cuda` where part of a GPU was given, else `cpu`. Raises ValueError for a GPU where there is none."""
    if gpus <= 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("gpus_per_trial is above 0, but torch sees no GPU here; use --gpus-per-trial 0")
    return torch.device("cuda")


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a recipe's arithmetic runs."""
    if recipe.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def describe_environment(device: torch.device) -> dict[str, str | int]:
    """Hardware, code (`code_version`) and versions behind a record, for the record."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor_name()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        **code_version(),
    }


def _processor_name() -> str:
    """The CPU's name; Linux keeps it where platform.processor() does not look."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_memory_mib(device: torch.device) -> int:
    """Most memory this process has held so far, MiB: on the GPU, or resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    import resource  # not on Windows, where no trial runs

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
