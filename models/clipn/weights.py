"""CLIPN checkpoints in the reference's file format, read strictly and as tensors only.

A checkpoint is the whole model: image tower, text tower, "no" tower, prompts and logit scale. Its tensor names are
open_clip's, with `_no` on those of the "no" tower, and `module.` before each one if training was distributed.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from data.files import user_path, write_atomically
from models.clipn.mapped import MappedPages
from models.clipn.model import Clipn
from models.clipn.weights_file import CHECKPOINT, weights_format

_TEXT_NAME = re.compile(r"(transformer|token_embedding|positional_embedding|ln_final|text_projection)(_no)?(\..+)?")
_MOST_NAMED = 8
"""Largest number of tensors that an error message names; it only counts the others."""


def load_clipn(path: Path, config: Mapping[str, Any]) -> Clipn:
    """The CLIPN of a checkpoint file, on the CPU, in evaluation mode.

    `config` is the open_clip model config of its architecture. The file is a `.safetensors` file or one written by
    torch.save: a dict of tensors, or one that holds such a dict as `state_dict`. No code of the file is run.

    Raises ValueError, naming the file, if it is missing, truncated, of another kind, or if its tensors are not exactly
    those of the architecture (missing, extra and misshaped ones are named).
    """
    clipn = Clipn.without_weights(config)
    tensors = read_tensors(path)
    check_names_and_shapes(path, tensors, {file_name(name): tensor for name, tensor in clipn.state_dict().items()})
    clipn.take({name: tensors[file_name(name)] for name in clipn.state_dict()})
    return clipn.eval()


def check_finite(towers: nn.Module, told: str) -> None:
    """Raise a ValueError that begins with `told`, the weights, and names the tensors if any value is not finite.

    Nothing may have been written into the weights yet: pages that are mapped from a file are given back once checked.
    """
    pages, damaged = MappedPages(), []
    for name, tensor in towers.state_dict().items():
        if not _is_finite(tensor):
            damaged.append(name)
        pages.give_back([tensor])
    if damaged:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        raise ValueError(f"{told} is damaged: {damaged[0]}{more} holds values that are not finite")


def _is_finite(tensor: torch.Tensor) -> bool:
    """Whether all values are finite."""
    # By smallest and largest value, of which NaN is both: isfinite takes 12 times as long and half the tensor's memory.
    ends = torch.stack(torch.aminmax(tensor)) if tensor.numel() else tensor
    return bool(ends.isfinite().all())


def save_clipn(clipn: Clipn, path: Path, *, epoch: int, name: str) -> None:
    """Write a checkpoint as the reference's trainer does, without the optimiser's state; atomically."""
    tensors = {"module." + file_name(key): value.detach().cpu() for key, value in clipn.state_dict().items()}
    write_atomically(path, lambda file: torch.save({"epoch": epoch, "name": name, "state_dict": tensors}, file))


def file_name(name: str) -> str:
    """A tensor's name in checkpoints, without `module.`: the "no" tower's have `_no` after their first part."""
    if name.startswith("text."):
        return name.removeprefix("text.")
    if name.startswith("text_no."):
        first, dot, rest = name.removeprefix("text_no.").partition(".")
        return f"{first}_no{dot}{rest}"
    return name


def read_tensors(path: Path, *, setting: str = CHECKPOINT) -> dict[str, torch.Tensor]:
    """The tensors of a weights file by name, without `module.`; `setting` named the file, for messages.

    Raises the errors of `load_clipn` about the file.
    """
    path = user_path(path)
    content = _read_file(path, setting)
    state = content
    if isinstance(content, Mapping):
        wrapped = content.get("model") if isinstance(content.get("model"), Mapping) else content
        state = content.get("state_dict", wrapped)
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        of_clipn = ", so it is not a CLIPN checkpoint" if setting == CHECKPOINT else ""
        raise ValueError(f"{setting}: {path} holds no state_dict of tensors{of_clipn}")
    for name, tensor in state.items():
        if tensor.is_meta or tensor.layout != torch.strided:
            kind = "has no values (a meta tensor)" if tensor.is_meta else f"is sparse ({tensor.layout})"
            raise ValueError(f"{setting}: {path}: tensor {name} {kind}; save the weights as dense tensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def _read_file(path: Path, setting: str) -> object:
    """The content of a weights file. Raises ValueError if it cannot be read as tensors and plain values."""
    kind = weights_format(path, setting=setting)
    try:
        if kind == "safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_numpy_scalar_globals()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about sparse tensors, which the caller refuses by name
            # Memory-mapped: a page is read when it is used, and shared by all processes that use the file.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "torch")
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it holds {found[1]}, and only tensors are loaded" if found else "it is damaged"
        raise ValueError(f"{setting}: {path} cannot be read: {reason}") from error
    except Exception as error:  # damaged bytes make these parsers raise almost anything
        raise ValueError(f"{setting}: {path} cannot be read: it is damaged or not a weights file") from error


def _numpy_scalar_globals() -> list[Any]:
    """The names that torch.load must be allowed to build for NumPy floats in the reference's optimiser state.

    Building a NumPy scalar from bytes runs no code of the file. Files saved under NumPy 1 call the constructor by its
    old name.
    """
    scalar = type(np.float64(0)).__reduce__(np.float64(0))[0]
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        np.dtypes.Float64DType,
    ]


def check_names_and_shapes(
    path: Path, tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], *, setting: str = CHECKPOINT
) -> None:
    """Raise ValueError unless `tensors` has exactly the names and shapes of `expected`."""
    if any("_no" in name for name in tensors) and "prompt_no" not in tensors:
        raise ValueError(
            f"{setting}: {path} has a 'no' tower without learnt prompts ('prompt_no'): the hand-crafted CLIPN, "
            "whose 'no' tower reads other sentences than its text tower. Only the learnable-prompt CLIPN is supported"
        )
    missing = [name for name in expected if name not in tensors]
    extra = [name for name in tensors if name not in expected]
    misshaped = [
        f"{name} {tuple(tensors[name].shape)}, not {tuple(expected[name].shape)}"
        for name in expected
        if name in tensors and tensors[name].shape != expected[name].shape
    ]
    faults = [("missing", missing), ("extra", extra), ("of another shape", misshaped)]
    told = "; ".join(f"{len(names)} {fault}: {_shorten(names)}" for fault, names in faults if names)
    if told:
        raise ValueError(f"{setting}: {path} does not fit the architecture given as model ({told})")


def _shorten(names: list[str]) -> str:
    """The first names, and the number of the others."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
