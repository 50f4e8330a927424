"""One step of SGD, and how it is repeated: kernel by kernel, or recorded once and replayed as a whole.

A small network's step is hundreds of short kernels, and launching them one by one takes a GPU's host longer than the
GPU needs to compute them. A CUDA graph launches them all at once. Recording costs a few plain steps' time, so each
training records its own: nothing has to be kept from one to the next, and the training set may have any size.

Shapes: N images, B batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from models.classifier.inputs import Batches
from models.classifier.recipe import Recipe
from models.classifier.sgd import Sgd

WARM_UP = 3
"""Plain steps before one is recorded: libraries choose their kernels in them, and SGD makes its momentum."""

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Notes the device work of a function without doing it; what it returns does that work, on the same tensors."""


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a recipe's arithmetic runs."""
    if recipe.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


class Objective(Protocol):
    """What a training minimises, and what it changes between passes."""

    def prepare(self, network: nn.Module, done: float) -> None:
        """Called before each step that starts a pass (or each step, where there are no passes).

        `done` is the share of the training behind, in [0, 1).
        """
        ...

    def phase(self) -> Hashable | None:
        """What `loss` computes with now: steps of equal phases launch equal kernels on the same tensors.

        None where no two steps do, or where `loss` has to wait for the device: then none is recorded.
        """
        ...

    def loss(self, network: nn.Module, images_B3HW: Tensor, labels_B: Tensor, picked_B: Tensor) -> Tensor:
        """The loss () of normalised images; `picked_B` are their positions among the training images."""
        ...

    def other_parameters(self, network: nn.Module) -> Iterable[nn.Parameter]:
        """Parameters of the network that learn at a constant rate with Nesterov's momentum; mostly none."""
        ...


class Step:
    """Gathers and augments a batch, and takes one step of SGD on it. Nothing is read back from the device."""

    def __init__(
        self,
        network: nn.Module,
        batches: Batches,
        labels_N: Tensor,
        *,
        objective: Objective,
        optimiser: Sgd,
        recipe: Recipe,
    ) -> None:
        """Everything lies on the device of `labels_N`."""
        self._network, self._batches, self._labels_N = network, batches, labels_N
        self._objective, self._optimiser, self._recipe = objective, optimiser, recipe

    def __call__(self, picked_B: Tensor) -> None:
        """One step on the images at those positions."""
        batch = self._batches.augment(picked_B)
        with autocast(self._recipe, self._labels_N.device):
            loss = self._objective.loss(self._network, batch, self._labels_N[picked_B], picked_B)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()


class ReplayedSteps:
    """Steps that are recorded once for each phase and batch size, and replayed from then on."""

    def __init__(self, step: Step, objective: Objective, record: Record) -> None:
        self._step, self._objective, self._record = step, objective, record
        self._plain_steps: Counter[Hashable] = Counter()
        self._recorded: dict[Hashable, tuple[Tensor, Callable[[], None]]] = {}

    def __call__(self, picked_B: Tensor) -> None:
        """One step on the images at those positions: the numbers are those of `Step`."""
        phase = self._objective.phase()
        kind = (phase, len(picked_B))
        if kind not in self._recorded:
            if phase is None or self._plain_steps[kind] < WARM_UP:
                self._plain_steps[kind] += 1
                self._step(picked_B)
                return
            static_B = picked_B.clone()
            self._recorded[kind] = static_B, self._record(lambda: self._step(static_B))
        static_B, replay = self._recorded[kind]
        static_B.copy_(picked_B)
        replay()


@contextmanager
def recorder(device: torch.device, generator: torch.Generator, *, wanted: bool) -> Iterator[Record | None]:
    """What records steps that draw from `generator` and from torch's own generators; None: they are not to be recorded.

    Only a CUDA device can. Inside, all its work goes to a stream of its own, because the default one cannot be
    recorded; what was recorded is gone afterwards, with its memory.
    """
    if device.type != "cuda" or not wanted:
        yield None
        return
    graphs = _Graphs(generator)
    outside = torch.cuda.current_stream(device)
    own = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    own.wait_stream(outside)
    try:
        with torch.cuda.stream(own):
            yield graphs.record
    finally:
        outside.wait_stream(own)
        graphs.forget()


class _Graphs:
    """CUDA graphs with a common pool of memory: they run one after the other, and none reads what another left."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._graphs: list[torch.cuda.CUDAGraph] = []

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture `work` on the current stream. Raises RuntimeError for work that waits for the device."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        pool = self._graphs[0].pool() if self._graphs else None
        try:
            with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream()):
                work()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise RuntimeError(f"the training step cannot be recorded; use --plain-steps ({error})") from error
        self._graphs.append(graph)
        return graph.replay

    def forget(self) -> None:
        """Wait for the last replay, and give the memory back."""
        torch.cuda.synchronize()
        for graph in self._graphs:
            graph.reset()
        torch.cuda.empty_cache()
