"""Device, threads and arithmetic of a process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import torch

from models.freed_memory import keep_freed_memory


def use_threads(num_threads: int) -> None:
    """Let torch use `num_threads` threads in this process."""
    # torch's default is one thread per core in every process, and processes that share cores then wait for each other's
    # threads (two on two busy cores took up to 10 times the CPU time of one thread).
    torch.set_num_threads(max(1, num_threads))


def free_cores() -> int:
    """Number of cores that this process may use and that are idle by the load average: at least 1, at most 16."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(16, allowed - round(os.getloadavg()[0])))


CONTEXT_BYTES = 1 << 30
"""GPU memory that CUDA itself takes in each process, in addition to torch's; a round figure."""


def pick_device(gpus: float) -> torch.device:
    """The device `cuda` if a part of a GPU was given, else `cpu`. Raises ValueError for a GPU if there is none.

    The process can then use at most its part of the GPU's memory.
    """
    if gpus <= 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("gpus_per_trial is above 0, but torch sees no GPU here; use --gpus-per-trial 0")
    # Trials that share a card must not take each other's memory.
    torch.cuda.set_per_process_memory_fraction(
        memory_share(gpus, torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    )
    return torch.device("cuda")


def memory_share(gpus: float, total_bytes: int) -> float:
    """Share, in (0, 1], of a card's memory for a process with that part of it: the part minus CUDA's own memory, at
    least half the part."""
    return 1.0 if gpus >= 1 else max(gpus / 2, gpus - CONTEXT_BYTES / total_bytes)


def card_index(device: torch.device) -> int:
    """The index of a CUDA device; that of the current device if the name has no index."""
    index = cast("int | None", device.index)  # torch's own type hides that "cuda" has no index
    return torch.cuda.current_device() if index is None else index


def process_memory(device: torch.device) -> int:
    """Bytes of a GPU's memory that this process may use."""
    index = card_index(device)
    total = torch.cuda.get_device_properties(index).total_memory
    return int(torch.cuda.get_per_process_memory_fraction(index) * total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Device and way of computing of a process; made once, by `open_machine`."""

    device: torch.device
    gpus: float = 0.0
    """Part of a card that the trial has."""
    plain_steps: bool = False
    """Whether training steps on a GPU are launched kernel by kernel, not recorded and replayed as CUDA graphs."""
    no_compile: bool = False
    """Whether long trainings on a GPU are not compiled."""
    ways: set[str] = field(default_factory=set, compare=False)
    """The ways in which steps were taken since the set was last cleared, for the record."""


def open_machine(
    *, cpus: int, gpus: float, deterministic: bool = False, plain_steps: bool = False, no_compile: bool = False
) -> Machine:
    """Set up the threads, device and arithmetic of this process. Raises ValueError for a GPU if torch sees none."""
    use_threads(cpus)
    keep_freed_memory()
    device = pick_device(gpus)
    use_arithmetic(device, deterministic=deterministic)
    return Machine(device=device, gpus=gpus, plain_steps=plain_steps, no_compile=no_compile)


def use_arithmetic(device: torch.device, *, deterministic: bool) -> None:
    """Let this process compute on a GPU as fast as it can or, if `deterministic`, equal to the bit each time.

    A CPU is deterministic anyway, so nothing is changed for it. Must be called before any product on the GPU.
    Deterministic also means without TF32, and a RuntimeError from torch for an operation that has no such form.
    """
    # Everything is set in both cases, because a process computes trial after trial.
    on_gpu = device.type == "cuda"
    wanted = deterministic and on_gpu
    if wanted != torch.are_deterministic_algorithms_enabled():  # setting even the default imports dynamo: 1 CPU second
        torch.use_deterministic_algorithms(wanted)
    if not on_gpu:
        return
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS reads it once, at the first product
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic  # shapes hardly change: cuDNN may look for the fastest kernels
    torch.backends.cudnn.allow_tf32 = not deterministic
    torch.backends.cuda.matmul.allow_tf32 = False


@contextmanager
def clear_memory_errors(when: str, advice: str) -> Iterator[None]:
    """Raise MemoryError, in one line with `advice`, if the GPU's memory is too small for the work inside."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(
            f"the GPU's memory is too small {when}: give a trial more of a card (--gpus-per-trial), or {advice}"
        ) from error


def peak_memory_mib(device: torch.device) -> int:
    """Largest memory of this process so far in MiB: on the GPU, or resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    import resource  # not on Windows, where no trial runs

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
