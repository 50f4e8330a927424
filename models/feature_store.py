"""Feature store: a frozen network's features of a data set are computed once and memory-mapped by all processes.

An entry is a folder of the cache, named by the hash of its key. `features.npy` (rows, columns) float32 holds the rows
and `meta.json` the key, a checksum and the time taken; `meta.json` is written last, so an entry with one is whole.
Until then finished shards lie in `shards/`, each with its checksum in its name: a kill loses at most one of them.
Importing this needs no torch.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from data.cache import FEATURES, Entry, Meta, clear_write_errors, open_entry
from data.console import Progress, StepReporter
from data.files import content_hash, file_hash, write_atomically


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureKey:
    """Everything that decides the numbers of a store entry."""

    kind: str
    """Kind of the features in words, for example "image features, unit rows"."""
    content: str
    """Identity of the input of the features: images, or class names and templates."""
    weights: str
    """Identity of the weights and their architecture."""
    preprocessing: str
    """Preprocessing of the content to the network's input, in words."""
    precision: str
    """Arithmetic of the network, for example "float32"."""

    @property
    def entry(self) -> Entry:
        """The entry of the cache, whether it exists or not."""
        return Entry(kind=FEATURES, key=content_hash(asdict(self))[:32], what=self.kind)

    @property
    def folder(self) -> Path:
        """Folder of the entry."""
        return self.entry.folder


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFeatures:
    """One entry, open for reading."""

    rows_ND: NDArray[np.float32]
    """Rows of the entry as a read-only memory map."""
    facts: Mapping[str, float]
    """Numbers that the source gave in addition to the rows."""


class RowSource(Protocol):
    """Source that computes the rows of an entry."""

    @property
    def facts(self) -> Mapping[str, float]:
        """Numbers to keep with the rows, by name."""
        ...

    def compute(self, start: int, stop: int) -> NDArray[np.float32]:
        """The rows `start` to `stop` (excluded), float32."""
        ...


def is_present(key: FeatureKey) -> bool:
    """Whether the entry is whole, by its description and its file's size; the checksum is left to `open_features`."""
    return key.entry.describe() is not None


def rows_present(key: FeatureKey, num_rows: int) -> int:
    """Number of the entry's rows that need not be computed again: all, or those of its finished shards."""
    if is_present(key):
        return num_rows
    bounds = {path.name.rsplit("-", 1)[0] for path in (key.folder / "shards").glob("*.npy")}
    return sum(int(stop) - int(start) for start, stop in (bound.split("-") for bound in bounds))


def seconds_a_row(key: FeatureKey) -> float | None:
    """Seconds per row when the same weights last computed other content here; None if they never did."""
    newest: tuple[float, float] | None = None
    for path in key.folder.parent.glob("*/meta.json"):
        meta = replace(key.entry, key=path.parent.name).describe() or {}
        kept = meta.get("key", {})
        same = all(kept.get(name) == getattr(key, name) for name in ("kind", "weights", "preprocessing", "precision"))
        if same and meta.get("rows_computed"):
            newest = max(newest or (0.0, 0.0), (path.stat().st_mtime, meta["seconds"] / meta["rows_computed"]))
    return newest[1] if newest else None


def open_features(
    key: FeatureKey,
    num_rows: int,
    open_source: Callable[[], RowSource],
    *,
    shard_rows: int = 1024,
    progress: Progress,
) -> StoredFeatures:
    """The entry of `key` with `num_rows` rows, computed first if it is missing or damaged.

    Only one process computes an entry; others wait for it. `open_source` is called only if rows have to be computed;
    they are computed in shards of `shard_rows`, and shards of an interrupted computation are not computed again.

    Raises ValueError if the store cannot be written (full, read-only) or the rows are not finite numbers.
    """
    meta = open_entry(
        key.entry, lambda folder: _compute(key, num_rows, open_source(), shard_rows, progress), progress=progress
    )
    # Removed only now: without the shards, a kill before the description is written would lose hours of features.
    shutil.rmtree(key.folder / "shards", ignore_errors=True)
    rows_ND = np.load(key.folder / FEATURES.files, mmap_mode="r", allow_pickle=False)
    assert len(rows_ND) == num_rows, rows_ND.shape
    return StoredFeatures(rows_ND=rows_ND, facts=meta["facts"])


def _compute(key: FeatureKey, num_rows: int, source: RowSource, shard_rows: int, progress: Progress) -> Meta:
    """Compute the missing shards and join all into the entry's file. Returns the meta data to keep with it."""
    started = time.monotonic()
    assert num_rows > 0
    shards = key.folder / "shards"
    reporter = StepReporter(key.kind, num_rows, progress)
    paths, num_computed = [], 0
    for start in range(0, num_rows, shard_rows):
        stop = min(start + shard_rows, num_rows)
        path = _whole_shard(shards, start, stop)
        if path is None:
            rows_BD = _checked(source.compute(start, stop), start, stop)
            with clear_write_errors(key.folder):
                path = _write_shard(shards, start, stop, rows_BD)
            num_computed += stop - start
        paths.append(path)
        reporter.done(stop)
    with clear_write_errors(key.folder):
        write_atomically(key.folder / FEATURES.files, lambda file: _join(paths, num_rows, file))
    return {
        "key": asdict(key),
        "facts": dict(source.facts),
        "rows_computed": num_computed,
        "seconds": time.monotonic() - started,
    }


def _checked(rows_BD: NDArray[np.float32], start: int, stop: int) -> NDArray[np.float32]:
    """The rows unchanged, after checking their shape and that they are finite."""
    assert rows_BD.dtype == np.float32, rows_BD.dtype
    assert rows_BD.shape == (stop - start, rows_BD.shape[1]), rows_BD.shape
    if not np.isfinite(rows_BD).all():
        raise ValueError(
            f"features of rows {start} to {stop - 1} are not finite; the weights are damaged or do not fit"
        )
    return rows_BD


def _shard_name(start: int, stop: int, digest: str) -> str:
    return f"{start:09d}-{stop:09d}-{digest}.npy"


def _whole_shard(shards: Path, start: int, stop: int) -> Path | None:
    """Path of the finished shard of these rows if its bytes are undamaged, else None. Damaged files are removed."""
    for path in sorted(shards.glob(_shard_name(start, stop, "*"))):
        if path.name == _shard_name(start, stop, file_hash(path)):
            return path
        path.unlink()
    return None


def _write_shard(shards: Path, start: int, stop: int, rows_BD: NDArray[np.float32]) -> Path:
    """Write a finished shard; its name holds its rows and the hash of its bytes."""
    content = rows_BD.astype("<f4").tobytes()
    path = shards / _shard_name(start, stop, hashlib.sha256(content).hexdigest())
    write_atomically(path, lambda file: _write(file, content))
    return path


def _write(file: BinaryIO, content: bytes) -> None:
    file.write(content)


def _join(paths: list[Path], num_rows: int, file: BinaryIO) -> None:
    """Write shards, in order, as one .npy file."""
    num_columns = sum(path.stat().st_size for path in paths) // (4 * num_rows)
    header = {"descr": "<f4", "fortran_order": False, "shape": (num_rows, num_columns)}
    np.lib.format.write_array_header_1_0(file, header)
    for path in paths:
        file.write(path.read_bytes())
