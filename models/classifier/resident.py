"""Inputs of whole data sets that stay on the GPU between passes, and reading ahead for those that do not fit.

Shapes: N images, B batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.imageset import Images
from models.classifier.inputs import FeatureRows
from models.device import process_memory

MEMORY_SHARE = 0.25
"""Largest share of this process's GPU memory for inputs that stay there."""
BLOCK = 4096
"""Images read and copied at a time."""

_KEPT: OrderedDict[tuple[int, str], tuple[Images | FeatureRows, Tensor]] = OrderedDict()
"""Inputs by device and identity of their images; the most recently used come last."""
# The images are kept alive with their inputs: the identity of a deleted object could be given to another one.


def resident_rows(
    images: Images | FeatureRows, device: torch.device, *, most_bytes: int | None = None
) -> Tensor | None:
    """All N inputs on `device`, pixels as uint8 or features as float32; None if they take too much memory.

    They are read once per process. `most_bytes` is for all data sets together, by default `MEMORY_SHARE`.
    """
    # Reading and copying batch by batch let a pool pass reach 0.05 of the card's peak (28,610 images/s at 32 pixels,
    # H200, n = 3).
    key = (id(images), str(device))
    if key in _KEPT:
        _KEPT.move_to_end(key)
        return _KEPT[key][1]
    most_bytes = _limit(device) if most_bytes is None else most_bytes
    num_bytes = len(images) * images.load(np.zeros(1, dtype=np.int64)).nbytes
    if num_bytes > most_bytes:
        return None
    while _KEPT and num_bytes + sum(rows.nbytes for _, rows in _KEPT.values()) > most_bytes:
        _KEPT.popitem(last=False)
    try:
        rows_N = _upload(images, device)
    except torch.OutOfMemoryError:
        return None
    _KEPT[key] = (images, rows_N)
    return rows_N


def forget_residents() -> None:
    """Free the memory of all resident inputs."""
    _KEPT.clear()


def _limit(device: torch.device) -> int:
    return int(MEMORY_SHARE * process_memory(device))


def _upload(images: Images | FeatureRows, device: torch.device) -> Tensor:
    rows_N: Tensor | None = None
    for start in range(0, len(images), BLOCK):
        block = torch.from_numpy(images.load(np.arange(start, min(start + BLOCK, len(images)))))
        if rows_N is None:
            rows_N = torch.empty((len(images), *block.shape[1:]), dtype=block.dtype, device=device)
        rows_N[start : start + len(block)] = block.to(device)
    assert rows_N is not None
    return rows_N


def loaded_ahead(
    images: Images | FeatureRows, idx: NDArray[np.int64], size: int, device: torch.device
) -> Iterator[Tensor]:
    """The inputs `idx` in batches of `size` on `device`; the next batch is read and copied during each computation."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="inputs") as reader:

        def read(start: int) -> Tensor:
            batch = torch.from_numpy(images.load(idx[start : start + size]))
            # Only from pinned memory does a copy to the GPU run during the computation.
            return batch.pin_memory() if device.type == "cuda" else batch

        waiting = reader.submit(read, 0)
        for start in range(0, len(idx), size):
            batch = waiting.result()
            if start + size < len(idx):
                waiting = reader.submit(read, start + size)
            yield batch.to(device, non_blocking=True)
