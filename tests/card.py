"""A stand-in for a CUDA device: tensors that compute on the CPU, but behave as if they lay on a card.

Inside `card()` a tensor made on or moved to `cuda` is marked, and code sees it there. What a card refuses is refused:
operands on different devices, `numpy()` of a card's tensor, generators of another device, work that waits for the
device or copies from the host while a CUDA graph is captured. Captured work is not done, and replays repeat it on the
tensors and with the numbers of the capture, so that a number of the host that should change is caught as it is there.

It does not know which operations a card lacks, how a card rounds, or what autocast does there: a CPU's rules stand for
a card's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from models import graphs
from tests.card_memory import Tape, mark, on_card

CARD = torch.device("cuda", 0)
MEMORY = 1 << 30
"""Bytes of the stand-in's memory."""
aten = torch.ops.aten
WAITING = frozenset(
    (aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten._unique2, aten.unique_dim,
     aten.unique_consecutive, aten.bincount, aten.linalg_cholesky, aten.repeat_interleave)
)  # fmt: skip
"""Operations after which the host knows something that the card computed."""
INDEXING = frozenset((aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_))


class Card:
    """What happens on the card."""

    def __init__(self) -> None:
        self.waits: list[str] = []
        """The operations that waited for the device."""
        self.tape: Tape | None = None
        """The capture in progress."""
        self.replays = 0
        """Number of replays of all recordings."""
        self.inside: list[bool] = []
        """For each torch function being called: whether what it makes lies on the card."""

    def wait(self, what: str) -> None:
        """Note that the host waits. Raises RuntimeError during a capture, as CUDA does."""
        self.waits.append(what)
        self.not_while_capturing(what)

    def not_while_capturing(self, what: str) -> None:
        """Raise RuntimeError during a capture."""
        if self.tape is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {what}")


class Functions(TorchFunctionMode):
    """Calls of torch's functions: where results lie, and copies between the devices."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._moved(name, args, kwargs)
        cards = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and on_card(leaf)]
        if cards and func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if cards and func in (Tensor.tolist, Tensor.__repr__, Tensor.__format__):
            self.card.wait(name)
        if cards and func is torch.nn.functional.one_hot:  # on a CPU it looks at the smallest and largest class
            return (args[0][..., None] == mark(torch.arange(args[1]))).long()
        inside = bool(cards)
        if (device := kwargs.pop("device", None)) is not None:
            inside = torch.device(device).type == "cuda"
            if (generator := kwargs.get("generator")) is not None and (generator.device.type == "cuda") != inside:
                raise RuntimeError(f"Expected a {device} device type for generator but found {generator.device}")
        self.card.inside.append(inside)
        try:
            result = func(*args, **kwargs)
        finally:
            self.card.inside.pop()
        if func in (torch.tensor, torch.as_tensor) and inside and not on_card(result):
            self.card.not_while_capturing("a copy from the host")
            return mark(result.clone() if func is torch.as_tensor else result)
        if func is Tensor.__deepcopy__ and inside:
            mark(result)
        return result

    def _moved(self, name: str, args: Any, kwargs: Any) -> Tensor:
        """The result of `to`, `cpu` and `cuda`."""
        tensor, rest = args[0], [value for value in args[1:] if value is not None and not isinstance(value, bool)]
        target = None
        if name != "to":
            target, rest, kwargs = torch.device("cuda" if name == "cuda" else "cpu"), [], {}
        elif "device" in kwargs:
            target = kwargs.pop("device")
        elif rest and isinstance(rest[0], str | torch.device):
            target = rest.pop(0)
        elif rest and isinstance(rest[0], Tensor):
            other = rest.pop(0)
            target, rest = other.device, [other.dtype, *rest]
        if rest or set(kwargs) - {"non_blocking"}:
            self.card.inside.append(on_card(tensor))
            tensor = tensor.to(*rest, **kwargs)
            self.card.inside.pop()
        if target is None or (torch.device(target).type == "cuda") == on_card(tensor):
            return tensor
        if on_card(tensor):
            self.card.wait("a copy to the host")
        else:
            self.card.not_while_capturing("a copy from the host")
        return _Moved.apply(tensor, torch.device(target).type == "cuda")  # type: ignore[no-any-return]


class _Moved(torch.autograd.Function):
    """Copy between the devices, which gradients pass."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, to_card: bool) -> Tensor:
        ctx.back = not to_card
        with _disable_current_modes():
            copied = tensor.detach().clone()
        return mark(copied) if to_card else copied

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _Moved.apply(gradient, ctx.back), None


class Operations(TorchDispatchMode):
    """Single operations: their devices, and their capture."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, card = kwargs or {}, self.card
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on = [on_card(tensor) for tensor in tensors]
        is_inside = any(on) if tensors else bool(card.inside and card.inside[-1])
        if not is_inside or func is aten._has_compatible_shallow_copy_type.default:
            return func(*args, **kwargs)
        if func is aten.copy_.default and not all(on):
            if on[1]:
                card.wait("a copy to the host")
            else:
                card.not_while_capturing("a copy from the host")
        elif func.overloadpacket in INDEXING and on[0]:
            if any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]):
                card.wait("a mask as an index")
            elif not all(on):
                card.not_while_capturing("an index on the host")
        elif not all(is_on or not tensor.ndim for tensor, is_on in zip(tensors, on, strict=True)):
            raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu: {func}")
        if func.overloadpacket in WAITING:
            card.wait(str(func.overloadpacket))
        results = card.tape.note(func, args, kwargs) if card.tape is not None else func(*args, **kwargs)
        if func is not aten.copy_.default or on[0]:
            tree_map_only(Tensor, mark, results)
        return results


_GROUP = Optimizer._group_tensors_by_device_and_dtype


class Graph:
    """Stand-in for torch.cuda.CUDAGraph."""

    card: Card

    def __init__(self) -> None:
        self._tape, self._generators = Tape(), list[torch.Generator]([torch.default_generator])

    def register_generator_state(self, generator: torch.Generator) -> None:
        self._generators.append(generator)

    def pool(self) -> int:
        return 0

    def replay(self) -> None:
        self.card.replays += 1
        with _disable_current_modes(), torch.no_grad():
            self._tape.replay()

    def reset(self) -> None:
        self._tape = Tape()

    @contextmanager
    def capture(self) -> Iterator[None]:
        states = [generator.get_state() for generator in self._generators]
        self.card.tape = self._tape
        try:
            yield
        finally:
            self.card.tape = None
            with _disable_current_modes(), torch.no_grad():
                self._tape.undo()
            for generator, state in zip(self._generators, states, strict=True):
                generator.set_state(state)


class Generator(torch.Generator):
    """A generator that may be one of the card's, and then draws a CPU's numbers."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls)
        made.place = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self.place


class Stream:
    """Stand-in for torch.cuda.Stream."""

    card: Card

    def __init__(self, device: Any = None) -> None:
        """Any device is the one card."""

    def is_capturing(self) -> bool:
        return self.card.tape is not None

    def wait_stream(self, other: Stream) -> None:
        """Nothing runs beside the host."""

    @contextmanager
    def used(self) -> Iterator[None]:
        yield


def _grouped(lists: Any, with_indices: bool = False) -> Any:
    """Tensors of an optimiser, in groups that know where they lie: torch groups them in C++, which sees a CPU."""
    return {
        (values[0][0].device, dtype): (values, indices)
        for (_, dtype), (values, indices) in _GROUP(lists, with_indices).items()
    }


@contextmanager
def card() -> Iterator[Card]:
    """A machine with a card inside; the result counts what happens on it."""
    made = Card()
    device, is_cuda = Tensor.device, Tensor.is_cuda
    autocast = torch.autocast
    graph = type("CUDAGraph", (Graph,), {"card": made})
    streams = type("Stream", (Stream,), {"card": made})
    stream = streams()

    def sync(device: Any = None) -> None:
        made.wait("synchronize")

    cuda: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: "stand-in",
        "get_device_properties": lambda device=None: SimpleNamespace(total_memory=MEMORY, name="stand-in"),
        "set_per_process_memory_fraction": lambda share, device=None: None,
        "get_per_process_memory_fraction": lambda device=None: 1.0,
        "memory_reserved": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
        "mem_get_info": lambda device=None: (MEMORY, MEMORY),
        "empty_cache": lambda: made.not_while_capturing("empty_cache"),
        "synchronize": sync,
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
        "manual_seed_all": lambda seed: None,
        "is_bf16_supported": lambda *given, **named: True,
        "CUDAGraph": graph,
        "graph": lambda graph, pool=None, stream=None, **named: graph.capture(),
        "Stream": streams,
        "current_stream": lambda device=None: stream,
        "stream": lambda stream: stream.used(),
    }
    on_device: dict[str, Any] = {
        "device": property(lambda tensor: CARD if on_card(tensor) else device.__get__(tensor)),
        "is_cuda": property(lambda tensor: on_card(tensor) or is_cuda.__get__(tensor)),
        "pin_memory": lambda tensor, device=None: tensor.clone(),
    }
    with ExitStack() as stack:
        # Trainings on it do not count towards the steps from which a process compiles.
        stack.enter_context(patch.object(graphs._Process, "steps", 0))
        for name, value in cuda.items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        stack.enter_context(patch.object(torch.accelerator, "current_stream", cuda["current_stream"]))
        for name, value in on_device.items():
            stack.enter_context(patch.object(Tensor, name, value))
        stack.enter_context(patch.object(torch, "Generator", Generator))
        stack.enter_context(
            patch.object(torch, "autocast", lambda kind, **given: autocast("cpu" if kind == "cuda" else kind, **given))
        )
        stack.enter_context(
            patch.object(torch.optim.Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(_grouped))
        )
        stack.enter_context(Operations(made))
        stack.enter_context(Functions(made))
        yield made
