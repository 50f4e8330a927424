"""Device work that is repeated many times: compiled once a process and shape, recorded as a CUDA graph, and replayed.

A small network's step is hundreds of short kernels, and launching them one by one takes a GPU's host longer than the
GPU needs to compute them. A CUDA graph launches them all at once. Recording costs a few plain steps' time, so each
training records its own: nothing has to be kept from one to the next. Compiling fuses the kernels between the
convolutions; it costs seconds, so it is done for long trainings only and kept on disk.

What cannot be compiled is recorded as it is, and what cannot be recorded is launched kernel by kernel; either is
reported in one line and changes numbers by no more than rounding.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from data.console import to_stderr
from data.files import cache_root
from models.device import card_index

WARM_UP = 3
"""Plain steps before one is recorded: libraries choose their kernels in them, and SGD makes its momentum."""

COMPILE_FROM = 10_000
"""Steps of a process's trainings from which compiling pays: on an H200 it saves 0.6 ms per step at 32 pixels (n = 3
repeats of one training) and costs 33 s for the first process of a machine and 4 s for the later ones (n = 1)."""

MOST_SHAPES = 64
"""Compiled variants of one function that a process keeps; torch gives up after 8, and a grid's worker sees more."""

MOST_LETTERS = 300
"""Of another library's message in a line of ours."""

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Notes the device work of a function without doing it; what it returns does that work, on the same tensors. Raises
NotRecordable."""

Forward = Callable[[nn.Module, Tensor], Any]
"""Computes what calling the network on the inputs would."""

Way = Literal["plain", "recorded", "compiled and recorded"]
"""How steps were taken."""


class NotRecordable(RuntimeError):
    """Work that cannot be captured as a CUDA graph, for instance because it waits for the device."""


class Replays:
    """Does work on some tensors: a few times as it is, then by a recording made once for each kind of work."""

    def __init__(self, record: Record | None) -> None:
        """Without `record` all work is done as it is."""
        self._record = record
        self._done: Counter[Hashable] = Counter()
        self._recorded: dict[Hashable, tuple[tuple[Tensor, ...], Callable[[], None]]] = {}

    @property
    def has_recorded(self) -> bool:
        """Whether anything was replayed or is about to be."""
        return bool(self._recorded)

    def __call__(self, kind: Hashable | None, work: Callable[..., None], *inputs: Tensor) -> None:
        """Do `work(*inputs)`. Work of equal kinds launches equal kernels on the same tensors but for `inputs`.

        Work of kind None is never recorded.
        """
        if self._record is None or kind is None:
            work(*inputs)
            return
        if kind not in self._recorded:
            if self._done[kind] < WARM_UP:
                self._done[kind] += 1
                work(*inputs)
                return
            static = tuple(tensor.clone() for tensor in inputs)
            try:
                self._recorded[kind] = static, self._record(lambda: work(*static))
            except NotRecordable as error:
                to_stderr(f"steps are launched kernel by kernel: they cannot be recorded ({_first_lines(error)})")
                self._record = None
                work(*inputs)
                return
        static, replay = self._recorded[kind]
        for target, value in zip(static, inputs, strict=True):
            target.copy_(value)
        replay()


@contextmanager
def recorder(device: torch.device, generator: torch.Generator, *, wanted: bool) -> Iterator[Record | None]:
    """What records work that draws from `generator` and from torch's own generators; None: nothing is to be recorded.

    Only a CUDA device can. Inside, all its work goes to a stream of its own, because the default one cannot be
    recorded; what was recorded is gone afterwards, with its memory.
    """
    if device.type != "cuda" or not wanted:
        yield None
        return
    graphs = _Graphs(device, generator)
    outside = torch.cuda.current_stream(device)
    with _borrowed_stream(device) as own:
        own.wait_stream(outside)
        try:
            with torch.cuda.stream(own):
                yield graphs.record
        finally:
            outside.wait_stream(own)
            graphs.forget()


_IDLE_STREAMS: dict[int, list[torch.cuda.Stream]] = {}


@contextmanager
def _borrowed_stream(device: torch.device) -> Iterator[torch.cuda.Stream]:
    """A stream that nobody else uses now.

    A process keeps its streams, because cuBLAS keeps a workspace for each that it has seen: with a new one for each
    training, 66 MB were lost each time (H200, torch 2.11, n = 6 trainings; none with a shared one).
    """
    idle = _IDLE_STREAMS.setdefault(card_index(device), [])
    stream = idle.pop() if idle else torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    try:
        yield stream
    finally:
        idle.append(stream)


class _Graphs:
    """CUDA graphs with a common pool of memory: they run one after the other, and none reads what another left."""

    def __init__(self, device: torch.device, generator: torch.Generator) -> None:
        self._device, self._generator = device, generator
        self._graphs: list[torch.cuda.CUDAGraph] = []

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture `work` on the current stream. Raises NotRecordable; the generators are then as they were."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        pool = self._graphs[0].pool() if self._graphs else None
        own, shared = self._generator.get_state(), torch.cuda.get_rng_state(self._device)
        try:
            with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream()):
                work()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._release_generators()
            self._generator.set_state(own)
            torch.cuda.set_rng_state(shared, self._device)
            raise NotRecordable(_first_lines(error)) from error
        self._graphs.append(graph)
        return graph.replay

    def _release_generators(self) -> None:
        """End the capture for the generators, by one that succeeds.

        After a capture that failed they refuse to draw ("Offset increment outside graph capture", torch 2.11) until
        one that they take part in has ended.
        """
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            torch.rand(1, generator=self._generator, device=self._device)
            torch.rand(1, device=self._device)
        graph.reset()

    def forget(self) -> None:
        """Wait for the last replay, and give the memory back."""
        torch.cuda.synchronize()
        for graph in self._graphs:
            graph.reset()
        torch.cuda.empty_cache()


class _Process:
    """What this process knows of its trainings."""

    steps = 0
    """Of all trainings on a CUDA device, the one that was last asked about included."""
    failure: str | None = None
    """Why compiling failed; then it is not tried again."""


def worth_compiling(device: torch.device, num_steps: int) -> bool:
    """Whether to compile the steps of a training of that length, which is about to begin.

    On a CUDA device, once the process's trainings have `COMPILE_FROM` steps together. Never with deterministic
    algorithms: the compiler tries out kernels by the clock, and another choice rounds differently. Not after compiling
    has failed in this process.
    """
    if device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        return False
    _Process.steps += num_steps
    return _Process.steps >= COMPILE_FROM and _Process.failure is None


class CompiledForward:
    """A network's forward and backward pass through torch's compiler, while `inside`; if that fails, its own."""

    def __init__(self, forward: Forward | None) -> None:
        """`forward` as `compiled_forward` gives it; None leaves every network as it is."""
        self._forward = forward
        self._ready: set[Hashable] = set()

    @property
    def is_used(self) -> bool:
        """Whether passes are compiled."""
        return self._forward is not None

    def run(self, network: nn.Module, work: Callable[[], None], kind: Hashable) -> None:
        """Do `work`, in which calls of the network are compiled, or if that fails its own.

        The first work of a `kind` compiles, or finds in the cache what another process has compiled.
        """
        if self._forward is None:
            work()
            return
        if kind in self._ready:
            with _replaced_forward(network, self._forward):
                work()
            return
        try:
            with warnings.catch_warnings(), _replaced_forward(network, self._forward):
                warnings.simplefilter("ignore")  # the compiler's advice, for instance to round products to TF32
                work()
            self._ready.add(kind)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            # Compilers raise almost anything; if it was not the compiler, `work` raises it again.
            self._forward = None
            work()
            _Process.failure = f"{type(error).__name__}: {_first_lines(error)}"
            to_stderr(f"training steps are not compiled: {_Process.failure}")


@contextmanager
def _replaced_forward(network: nn.Module, forward: Forward) -> Iterator[None]:
    """Inside, calling the network calls `forward`; its type, which others ask for, stays the same."""
    network.forward = lambda inputs: forward(network, inputs)
    try:
        yield
    finally:
        del network.forward


def _plain_forward(network: nn.Module, inputs: Tensor) -> Any:
    """What the network's class computes, past a `forward` that stands in for it."""
    return type(network).forward(network, inputs)


@cache
def compiled_forward() -> Forward:
    """The compiled pass of any network. It is made once a process: networks of equal shapes share what was compiled.

    Small kernels of equal ranges are launched as one (combo kernels): 1.66 ms per step against 1.76 with the compiler's
    defaults and 2.29 without compiling; searching block sizes and autotuned convolutions took minutes and
    were given up (ResNet-18, width 64, batch 64, bf16, 32 pixels, H200, n = 3).
    """
    compiled_folder().mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(compiled_folder()))
    import torch._dynamo  # seconds; only trainings that compile need it

    torch._dynamo.config.recompile_limit = MOST_SHAPES
    forward: Forward = torch.compile(_plain_forward, dynamic=False, fullgraph=True, options={"combo_kernels": True})
    return forward


def compiled_folder() -> Path:
    """Where the compiler keeps its results."""
    return cache_root() / "compiled"


def _first_lines(error: BaseException) -> str:
    """An error's message up to its first empty line, as one line."""
    lines = str(error).strip().partition("\n\n")[0].splitlines()
    return " ".join(line.strip() for line in lines)[:MOST_LETTERS] or type(error).__name__
