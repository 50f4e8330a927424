"""Which device and how many threads a process computes with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import torch


def use_threads(num_threads: int) -> None:
    """Let torch use `num_threads` threads in this process.

    Set on purpose: torch's default is one thread a core in every process, and processes that share cores then wait
    for each other's threads (two on two busy cores took up to 10 times the CPU time of one thread).
    """
    torch.set_num_threads(max(1, num_threads))


def free_cores() -> int:
    """Cores that this process may use and nobody seems to: at least 1, at most 16."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(16, allowed - round(os.getloadavg()[0])))


CONTEXT_BYTES = 1 << 30
"""GPU memory that CUDA itself takes in each process, beside what torch hands out; a round figure."""


def pick_device(gpus: float) -> torch.device:
    """`cuda` where part of a GPU was given, else `cpu`. Raises ValueError for a GPU where there is none.

    Of the GPU this process then takes at most its part of the memory, so that trials which share a card cannot take
    each other's.
    """
    if gpus <= 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("gpus_per_trial is above 0, but torch sees no GPU here; use --gpus-per-trial 0")
    torch.cuda.set_per_process_memory_fraction(
        memory_share(gpus, torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    )
    return torch.device("cuda")


def memory_share(gpus: float, total_bytes: int) -> float:
    """Share, in (0, 1], of a card's memory for a process with that part of it: less what CUDA itself takes, if need be
    half of it."""
    return 1.0 if gpus >= 1 else max(gpus / 2, gpus - CONTEXT_BYTES / total_bytes)


def card_index(device: torch.device) -> int:
    """The number of a CUDA device, also of the current one that has none in its name."""
    index = cast("int | None", device.index)  # torch's own type hides that "cuda" has no index
    return torch.cuda.current_device() if index is None else index


def process_memory(device: torch.device) -> int:
    """Bytes of a GPU that this process may take."""
    index = card_index(device)
    total = torch.cuda.get_device_properties(index).total_memory
    return int(torch.cuda.get_per_process_memory_fraction(index) * total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a process computes a trial with, and how; made once, by `open_machine`."""

    device: torch.device
    gpus: float = 0.0
    """The trial's part of a card."""
    plain_steps: bool = False
    """On a GPU: training steps are launched kernel by kernel, not recorded and replayed as CUDA graphs."""
    no_compile: bool = False
    """On a GPU: long trainings do without torch's compiler."""
    ways: set[str] = field(default_factory=set, compare=False)
    """How steps were taken since somebody last cleared it: a record says so."""


def open_machine(
    *, cpus: int, gpus: float, deterministic: bool = False, plain_steps: bool = False, no_compile: bool = False
) -> Machine:
    """Threads, device and arithmetic of this process, set up. Raises ValueError for a GPU if torch sees none."""
    use_threads(cpus)
    device = pick_device(gpus)
    use_arithmetic(device, deterministic=deterministic)
    return Machine(device=device, gpus=gpus, plain_steps=plain_steps, no_compile=no_compile)


def use_arithmetic(device: torch.device, *, deterministic: bool) -> None:
    """Let this process compute on a GPU either as fast as it can or, `deterministic`, the same each time to the bit.

    A CPU does the latter anyway, so nothing is changed for it. All is set either way, because a process computes trial
    after trial. Before any product on the GPU: cuBLAS reads its setting once. Deterministic also means without TF32,
    and RuntimeError from torch for an operation that has no such form.
    """
    on_gpu = device.type == "cuda"
    wanted = deterministic and on_gpu
    if wanted != torch.are_deterministic_algorithms_enabled():  # setting even the default imports dynamo: 1 CPU second
        torch.use_deterministic_algorithms(wanted)
    if not on_gpu:
        return
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic  # shapes hardly change: cuDNN may look for the fastest kernels
    torch.backends.cudnn.allow_tf32 = not deterministic
    torch.backends.cuda.matmul.allow_tf32 = False


@contextmanager
def clear_memory_errors(when: str, advice: str) -> Iterator[None]:
    """Raises MemoryError, in one line with `advice`, where the GPU's memory does not suffice inside."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(
            f"the GPU's memory does not suffice {when}: give a trial more of a card (--gpus-per-trial), or {advice}"
        ) from error


def peak_memory_mib(device: torch.device) -> int:
    """Most memory this process has held so far, MiB: on the GPU, or resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    import resource  # not on Windows, where no trial runs

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
