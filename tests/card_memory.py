"""What lies on the stand-in for a card (`tests/card.py`), and the operations of a capture there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten


def on_card(tensor: Tensor) -> bool:
    """Whether a tensor is marked as lying on the card."""
    # The storage is marked, not the tensor: views and `parameter.data = ...` then need no care.
    return getattr(tensor.untyped_storage(), "on_card", False)


def mark(tensor: Tensor) -> Tensor:
    """The tensor, now on the card."""
    tensor.untyped_storage().on_card = True  # type: ignore[attr-defined]
    return tensor


class Tape:
    """Operations of one capture."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self._made: set[int] = set()
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def note(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Do an operation, since its result's form is needed, and keep it for replays."""
        # A number that lies on the host is one with which the kernel is launched again and again.
        args, kwargs = tree_map_only(Tensor, lambda given: given if on_card(given) else given.clone(), (args, kwargs))
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in tree_leaves(value):
                    self._keep(tensor)
        if func is aten.native_batch_norm.default:  # it changes the running statistics, which its schema omits
            for tensor in args[3:5]:
                self._keep(tensor)
        results = func(*args, **kwargs)
        fresh = _fresh(results, (args, kwargs))
        self._made |= {output.untyped_storage()._cdata for output in fresh}
        if fresh or func._schema.is_mutable:  # a view has nothing to compute
            self.entries.append((func, args, kwargs, fresh))
        return results

    def _keep(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()._cdata
        if storage not in self._made and storage not in self._before:
            whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
            self._before[storage] = whole, whole.clone()

    def undo(self) -> None:
        """Give what existed before the capture its content of then: captured work is not done."""
        for whole, before in self._before.values():
            whole.copy_(before)
        self._before.clear()

    def replay(self) -> None:
        """Do all operations again, with results in the same memory."""
        for func, args, kwargs, fresh in self.entries:
            results = func(*args, **kwargs)
            if fresh:
                given = {
                    leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)
                }
                again = [
                    leaf
                    for leaf in tree_leaves(results)
                    if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in given
                ]
                for output, value in zip(fresh, again, strict=True):
                    output.copy_(value)


def _fresh(results: Any, given: Any) -> list[Tensor]:
    """The results with a memory of their own."""
    old = {leaf.untyped_storage()._cdata for leaf in tree_leaves(given) if isinstance(leaf, Tensor)}
    tensors = [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
    return [tensor for tensor in tensors if tensor.untyped_storage()._cdata not in old]
