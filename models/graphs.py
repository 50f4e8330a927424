"""Repeated device work: compiled once per process and shape, recorded as a CUDA graph, and replayed.

A small network's step is hundreds of short kernels, and launching them one by one takes a GPU's host longer than the
GPU needs to compute them. A CUDA graph launches them all at once. Recording costs a few plain steps' time, so each
training records its own: nothing has to be kept from one to the next. Compiling fuses the kernels between the
convolutions; it costs seconds, so it is done for long trainings only and kept on disk.

Work that cannot be compiled is recorded uncompiled, and work that cannot be recorded is launched kernel by kernel; both
are reported in one line and change numbers by no more than rounding.
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
"""Number of steps of a process's trainings from which they are compiled."""
# On an H200 compiling saves 0.6 ms per step at 32 pixels (n = 3 repeats of one training) and costs 33 s for the first
# process of a machine and 4 s for the later ones (n = 1).

MOST_SHAPES = 64
"""Number of compiled variants of one function that a process keeps; torch's 8 are too few for a grid's worker."""

MOST_LETTERS = 300
"""Largest number of characters of another library's message in a line of ours."""

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""A function that records the device work of another without doing it, and returns a function that does this work on
the same tensors. Raises NotRecordable."""

Forward = Callable[[nn.Module, Tensor], Any]
"""A function that computes the network's outputs for the inputs."""

Way = Literal["plain", "recorded", "compiled and recorded"]
"""Way in which training steps are taken."""


class NotRecordable(RuntimeError):
    """Work that cannot be captured as a CUDA graph, for instance because it waits for the device."""


class Replays:
    """Repeated work on some tensors: a few times unrecorded, then by a recording made once for each kind of work."""

    def __init__(self, record: Record | None) -> None:
        """Without `record` no work is recorded."""
        self._record = record
        self._done: Counter[Hashable] = Counter()
        self._recorded: dict[Hashable, tuple[tuple[Tensor, ...], Callable[[], None]]] = {}

    @property
    def has_recorded(self) -> bool:
        """Whether any work was recorded."""
        return bool(self._recorded)

    def __call__(self, kind: Hashable | None, work: Callable[..., None], *inputs: Tensor) -> None:
        """Do `work(*inputs)`. Work of equal kinds launches equal kernels on the same tensors except `inputs`.

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
    """A recorder of work that draws from `generator` and from torch's own generators; None if nothing is recorded.

    Only a CUDA device can record. Inside, all its work goes to a separate stream; recordings and their memory are freed
    afterwards.
    """
    if device.type != "cuda" or not wanted:
        yield None
        return
    graphs = _Graphs(device, generator)
    outside = torch.cuda.current_stream(device)
    # A separate stream, because the default one cannot be recorded.
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
    """A stream that is not in use elsewhere; it is returned afterwards."""
    # A process keeps its streams, because cuBLAS keeps a workspace for each that it has seen: with a new one for each
    # training, 66 MB were lost each time (H200, torch 2.11, n = 6 trainings; none with a shared one).
    idle = _IDLE_STREAMS.setdefault(card_index(device), [])
    stream = idle.pop() if idle else torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    try:
        yield stream
    finally:
        idle.append(stream)


class _Graphs:
    """CUDA graphs with a common pool of memory, which is safe as they run one after the other and share no data."""

    def __init__(self, device: torch.device, generator: torch.Generator) -> None:
        self._device, self._generator = device, generator
        self._graphs: list[torch.cuda.CUDAGraph] = []

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture `work` on the current stream. Raises NotRecordable, after restoring the generators."""
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
        """Make the generators usable after a failed capture, by a capture that succeeds."""
        # After a failed capture they refuse to draw ("Offset increment outside graph capture", torch 2.11) until a
        # capture that they take part in has ended.
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            torch.rand(1, generator=self._generator, device=self._device)
            torch.rand(1, device=self._device)
        graph.reset()

    def forget(self) -> None:
        """Wait for the last replay, and free the memory."""
        torch.cuda.synchronize()
        for graph in self._graphs:
            graph.reset()
        torch.cuda.empty_cache()


class _Process:
    """State of this process's trainings on a CUDA device."""

    steps = 0
    """Number of steps of all trainings so far, the latest included."""
    failure: str | None = None
    """Reason why compiling failed; it is then not tried again."""


def worth_compiling(device: torch.device, num_steps: int) -> bool:
    """Whether to compile the steps of a training of that length, which is about to start.

    On a CUDA device, once the process's trainings have `COMPILE_FROM` steps together; never with deterministic
    algorithms, nor after compiling has failed in this process.
    """
    # Not with deterministic algorithms: the compiler chooses kernels by timing, and another choice rounds differently.
    if device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        return False
    _Process.steps += num_steps
    return _Process.steps >= COMPILE_FROM and _Process.failure is None


class CompiledForward:
    """Compiled forward and backward pass of a network; if compiling fails, the network's own."""

    def __init__(self, forward: Forward | None, *, what: str = "training steps are") -> None:
        """`forward` is `compiled_forward`; None leaves every network uncompiled.

        `what` is not compiled, in the line that reports a failure.
        """
        self._forward, self._what = forward, what
        self._ready: set[Hashable] = set()

    @property
    def is_used(self) -> bool:
        """Whether passes are compiled."""
        return self._forward is not None

    def run(self, network: nn.Module, work: Callable[[], None], kind: Hashable) -> None:
        """Do `work` with compiled calls of the network or, if compiling fails, with its own.

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
            to_stderr(f"{self._what} not compiled: {_Process.failure}")


@contextmanager
def _replaced_forward(network: nn.Module, forward: Forward) -> Iterator[None]:
    """Make calls of the network call `forward` inside."""
    # An attribute, not a wrapper: callers ask for the network's type, which must stay the same.
    network.forward = lambda inputs: forward(network, inputs)
    try:
        yield
    finally:
        del network.forward


def _plain_forward(network: nn.Module, inputs: Tensor) -> Any:
    """The outputs by the network class's own `forward`, not by one that replaces it."""
    return type(network).forward(network, inputs)


def compiled_forward(network: nn.Module, inputs: Tensor) -> Any:
    """The outputs by compiled code, which networks of equal shapes share."""
    # The compiler is set up in the first pass, not before: CompiledForward does without it if that fails, too.
    return _compiled()(network, inputs)


@cache
def _compiled() -> Forward:
    """The compiled pass of any network, made once per process."""
    compiled_folder().mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(compiled_folder()))
    import torch._dynamo  # seconds; only trainings that compile need it

    torch._dynamo.config.recompile_limit = MOST_SHAPES
    # Combo kernels launch small kernels of equal ranges as one: 1.66 ms per step against 1.76 with the compiler's
    # defaults and 2.29 without compiling; searching block sizes and autotuned convolutions took minutes and were given
    # up (ResNet-18, width 64, batch 64, bf16, 32 pixels, H200, n = 3).
    forward: Forward = torch.compile(_plain_forward, dynamic=False, fullgraph=True, options={"combo_kernels": True})
    return forward


def compiled_folder() -> Path:
    """Folder of the compiler's results in the cache."""
    return cache_root() / "compiled"


def _first_lines(error: BaseException) -> str:
    """An error's message up to its first empty line, as one line."""
    lines = str(error).strip().partition("\n\n")[0].splitlines()
    return " ".join(line.strip() for line in lines)[:MOST_LETTERS] or type(error).__name__
