"""The cache folder: entries made once, by one process, whole or absent, and checked each time they are opened.

An entry is a folder `<kind>/<key>` of the cache. It counts only once its `meta.json` is there, which is written last
and holds the SHA-256 of the entry's files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.console import Progress
from data.files import (
    CACHE_VARIABLE,
    cache_root,
    content_hash,
    file_hash,
    file_lock,
    leftovers,
    lock_holder,
    user_path,
    write_text_atomically,
)
from data.sealed import Damaged, Newer, read_sealed_json, seal

Meta = dict[str, Any]
META = "meta.json"
_MAY_MAKE = ContextVar("may_make", default=True)


class NotKept(ValueError):
    """Raised inside `only_kept` for an entry that would have to be made."""


@contextmanager
def only_kept() -> Iterator[None]:
    """Inside, entries are opened but never made: a report and a dry run must not decode a data set for minutes."""
    token = _MAY_MAKE.set(False)
    try:
        yield
    finally:
        _MAY_MAKE.reset(token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The form of all entries in one folder of the cache."""

    folder: str
    files: str
    """Name of an entry's file, or a pattern if it has several (`*.npy`)."""
    making: str
    """The work of a process that makes an entry, in words, for messages to those who wait."""
    needs: tuple[str, ...] = ("num_bytes",)
    """Fields that the description of a sound entry has."""
    lock_beside: bool = False
    """Whether the lock file is `<key>.lock` next to the entry, where earlier versions look, instead of `lock` in it."""


IMAGES = Kind(folder="images", files="*.npy", making="reading the images", lock_beside=True)
FEATURES = Kind(
    folder="features", files="features.npy", making="computing them", needs=("num_bytes", "checksum", "facts")
)
STAND_INS = Kind(folder="clipn", files="clipn.pt", making="training it", needs=("checksum",))  # the first had no more
ENCODERS = Kind(folder="encoders", files="encoder.pt", making="training it")
"""Encoders have no description: each of their files ends with a seal (`data.sealed`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the cache, whether it exists or not."""

    kind: Kind
    key: str
    """Hash of everything that decides the entry's content; also the name of its folder."""
    what: str
    """Name of the content in words, for messages."""

    @property
    def folder(self) -> Path:
        """Folder of the entry's files."""
        return cache_root() / self.kind.folder / self.key

    @property
    def lock(self) -> Path:
        """File that the process making the entry holds a lock on."""
        return self.folder.with_suffix(".lock") if self.kind.lock_beside else self.folder / "lock"

    @contextmanager
    def locked(self, progress: Progress) -> Iterator[None]:
        """Hold the entry's lock, after a report if another process has it; unfinished files are then removed."""
        with ExitStack() as stack:
            with clear_write_errors(self.folder):
                try:
                    stack.enter_context(file_lock(self.lock, wait=False))
                except BlockingIOError:
                    holder = lock_holder(self.lock)
                    who = f" (process {holder})" if holder else ""
                    progress(f"{self.what}: another process is {self.kind.making}; waiting for it{who}")
                    stack.enter_context(file_lock(self.lock))
                for path in leftovers(self.folder):  # nobody else writes here now
                    path.unlink()
            yield

    def describe(self) -> Meta | None:
        """The meta data of an entry that is whole by its description and its files' sizes; None for any other.

        Reads no content: meant for callers, such as a dry run, that only need to know which entries are missing.
        """
        try:
            meta = self._meta()
            self._check_sizes(meta)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return meta

    def open(self, progress: Progress | None = None) -> Meta | None:
        """The meta data of an entry whose files are, byte by byte, those that were written; None for any other.

        A damaged one is reported to `progress`. Raises ValueError for one that a newer version wrote.
        """
        try:
            return self.check()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Damaged as error:
            if progress is not None:
                progress(f"{self.what}: {error}; it is computed again")
            return None

    def check(self) -> Meta:
        """The meta data of the entry, after all its files were read and checked.

        Raises Damaged for a damaged entry, FileNotFoundError for a missing one, ValueError for one that a newer version
        wrote.
        """
        meta = self._meta()
        self._check_sizes(meta)
        self._check_content(meta)
        return meta

    def finish(self, meta: Meta) -> Meta:
        """Write the description of the entry's files, which makes the entry valid. Returns the meta data as written."""
        names = sorted(path.name for path in self.folder.glob(self.kind.files))
        sizes = {name: (self.folder / name).stat().st_size for name in names}
        checksums = {name: file_hash(self.folder / name) for name in names}
        if names == [self.kind.files]:  # fields as earlier versions read them
            meta = {**meta, "num_bytes": sizes[self.kind.files], "checksum": checksums[self.kind.files]}
        else:
            meta = {**meta, "num_bytes": sizes, "checksums": checksums}
        with clear_write_errors(self.folder):
            write_text_atomically(self.folder / META, json.dumps(seal(meta, self._name), indent=2) + "\n")
        return meta

    @property
    def _name(self) -> str:
        """The name that the entry's seal covers, so that a description in another entry's folder counts as damaged."""
        return f"{self.kind.folder}/{self.key}"

    def _meta(self) -> Meta:
        path = self.folder / META
        try:
            meta, _ = read_sealed_json(path, self._name)
        except Damaged as error:
            raise Damaged(f"the stored file {path} is damaged ({error})") from None
        except Newer as error:
            raise ValueError(f"{path}: {error}; set {CACHE_VARIABLE} to another folder") from None
        if not set(self.kind.needs) <= meta.keys():
            raise Damaged(f"the stored file {path} is damaged (it lacks fields)")
        return meta

    def _check_sizes(self, meta: Meta) -> None:
        """Raise Damaged for a file that is missing or of another size."""
        sizes = meta.get("num_bytes")
        for name, num_bytes in (sizes if isinstance(sizes, dict) else {self.kind.files: sizes}).items():
            path = self.folder / name
            # The first stand-ins were described without their size.
            if not path.is_file() or num_bytes not in (None, path.stat().st_size):
                raise Damaged(f"the stored file {path} is damaged")

    def _check_content(self, meta: Meta) -> None:
        """Raise Damaged for a file with other bytes than were written."""
        # Hashed each time it is opened: a dying disk changes bytes but no times, so no remembered state of a file
        # proves that its bytes are the same. It costs 0.55 s per GiB (one core with SHA instructions, warm, n = 3).
        checksums = meta.get("checksums", {self.kind.files: meta["checksum"]} if "checksum" in meta else {})
        for name, checksum in checksums.items():
            path = self.folder / name
            if file_hash(path) != checksum:
                raise Damaged(f"the stored file {path} is damaged")


def open_entry(entry: Entry, make: Callable[[Path], Meta], *, progress: Progress) -> Meta:
    """The meta data of the entry, which this process makes if it is missing or damaged; other processes then wait.

    `make` writes the entry's files into the folder it gets and returns the meta data to keep with them, JSON-like.

    Raises ValueError if the cache cannot be written or lies on a file system without locks, or if a newer version
    wrote the entry; NotKept inside `only_kept`.
    """
    meta = entry.open()
    if meta is not None:
        return meta
    if not _MAY_MAKE.get():
        raise NotKept(f"{entry.what} is not in the cache {cache_root()}")
    with entry.locked(progress):
        meta = entry.open(progress)  # again: another process may have made it while this one waited for the lock
        if meta is None:
            with clear_write_errors(entry.folder):
                entry.folder.mkdir(parents=True, exist_ok=True)
            meta = entry.finish(make(entry.folder))
    return meta


@contextmanager
def clear_write_errors(folder: Path) -> Iterator[None]:
    """Turn the OSError of a full or read-only disk, met while writing below `folder`, into a ValueError with advice."""
    try:
        yield
    except BlockingIOError:  # it is an OSError too, but a lock that is held is no disk error
        raise
    except OSError as error:
        raise ValueError(
            f"cache: {folder} cannot be written ({error.strerror or error}); "
            f"make room there, or set {CACHE_VARIABLE} to another folder"
        ) from error


def file_hash_once(path: Path) -> str:
    """SHA-256 of a file, remembered in the cache for its path, size and time of change: big files are hashed once.

    Raises ValueError if there is no such file.
    """
    path = user_path(path).resolve()
    if not path.is_file():
        raise ValueError(f"clipn.checkpoint: there is no file {path}")
    stat = path.stat()
    state = {"path": str(path), "size": stat.st_size, "changed_ns": stat.st_mtime_ns}
    key = content_hash(state)[:32]
    # Not the .txt of earlier versions: it had no checksum, and a flipped bit in it gave the trial another checkpoint.
    remembered = cache_root() / "hashes" / f"{key}.json"
    try:
        return str(read_sealed_json(remembered, key)[0]["sha256"])
    except (FileNotFoundError, NotADirectoryError, Damaged, Newer, KeyError):
        pass  # hashed again
    digest = file_hash(path)
    with clear_write_errors(remembered.parent), file_lock(remembered.parent.with_suffix(".lock")):
        for left in leftovers(remembered.parent):
            left.unlink()
        write_text_atomically(remembered, json.dumps(seal({"sha256": digest}, key)) + "\n")
    return digest


def is_hub_file_whole(path: Path) -> bool:
    """Whether a file that a hub's client downloaded is whole, if it lies there under its SHA-256, as large ones do."""
    return re.fullmatch(r"[0-9a-f]{64}", path.name) is None or file_hash(path) == path.name
