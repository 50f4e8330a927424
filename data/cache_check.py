"""Check of every file of the cache: damaged files, and files that killed processes left behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.cache import ENCODERS, FEATURES, IMAGES, META, STAND_INS, Entry, is_hub_file_whole
from data.files import cache_root, file_lock, leftovers, lock_holder
from data.image_store import are_as_fingerprinted
from data.sealed import Damaged, Newer, check_sealed, read_sealed_json

LEFT_BEHIND = "left behind by a process that was killed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheProblem:
    """A damaged or left-over file of the cache. Once it is removed, its content is computed again when needed."""

    path: Path
    what: str
    remedy: tuple[Path, ...]
    """The files to remove; empty if nothing is to be removed."""
    lock: Path | None = None
    """Lock file to hold while the files are removed, because another process may be making the entry."""


def check_cache() -> Iterator[CacheProblem]:
    """The problems of the cache, found by reading every file of it; nothing is changed."""
    root = cache_root()
    for kind in (IMAGES, FEATURES, STAND_INS, ENCODERS):
        for folder in _folders(root / kind.folder):
            entry = Entry(kind=kind, key=folder.name, what=folder.name)
            yield from _check_encoder(entry) if kind is ENCODERS else _check_entry(entry)
            yield from _left_behind(folder, entry.lock)
    for path in sorted((root / "hashes").glob("*.json")):
        try:
            read_sealed_json(path, path.stem)
        except (Damaged, Newer) as error:
            yield CacheProblem(path=path, what=str(error), remedy=(path,))
    yield from _left_behind(root / "hashes", root / "hashes.lock")
    for folder in _folders(root / "classifiers"):
        yield from check_weights(folder)
    for path in sorted((root / "open_clip").rglob("blobs/*")):
        if not is_hub_file_whole(path):
            yield CacheProblem(path=path, what="its checksum is not the one of its name", remedy=(path,))


def _folders(path: Path) -> list[Path]:
    return [folder for folder in sorted(path.iterdir()) if folder.is_dir()] if path.is_dir() else []


def check_weights(folder: Path) -> Iterator[CacheProblem]:
    """The problems of the kept classifiers in a folder. They only save time, so a damaged one can be removed."""
    for path in sorted(folder.rglob("*.pt")):
        try:
            check_sealed(path, path.name)
        except (Damaged, Newer) as error:
            yield CacheProblem(path=path, what=str(error), remedy=(path,))


def mend_cache(problems: Sequence[CacheProblem]) -> Iterator[str]:
    """Remove damaged files, which can be made again, and left-over ones. Yields one line for each file."""
    for problem in problems:
        if problem.lock is None:
            yield from _remove(problem.remedy)
            continue
        try:
            with file_lock(problem.lock, wait=False):
                yield from _remove(problem.remedy)
        except BlockingIOError:
            yield f"{problem.path} is in use; left as it is"


def _remove(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        path.unlink(missing_ok=True)
        yield f"removed {path}"


def _check_entry(entry: Entry) -> Iterator[CacheProblem]:
    if not (entry.folder / META).exists():
        return  # not finished yet; its shards are checked by their names when the work continues
    try:
        meta = entry.check()
        if entry.kind is IMAGES and "checksums" not in meta and not are_as_fingerprinted(entry.folder, meta):
            raise Damaged("the stored images have other fingerprints")
    except Damaged as error:
        files = (entry.folder / META, *sorted(entry.folder.glob(entry.kind.files)))
        yield CacheProblem(path=entry.folder, what=str(error), remedy=files, lock=entry.lock)
    except ValueError as error:  # written by a newer version, which can still read it: nothing to remove
        yield CacheProblem(path=entry.folder, what=str(error), remedy=())


def _check_encoder(entry: Entry) -> Iterator[CacheProblem]:
    for path in sorted(entry.folder.glob("*.pt")):  # the encoder, and the state of an unfinished training
        try:
            check_sealed(path, f"{entry.key}/{path.name}")
        except Damaged as error:
            yield CacheProblem(path=path, what=str(error), remedy=(path,), lock=entry.lock)
        except Newer as error:
            yield CacheProblem(path=path, what=str(error), remedy=())


def _left_behind(folder: Path, lock: Path) -> Iterator[CacheProblem]:
    # With the lock held, a temporary file is not left over: its process is still writing it.
    if lock_holder(lock) is None:
        for path in leftovers(folder):
            yield CacheProblem(path=path, what=LEFT_BEHIND, remedy=(path,), lock=lock)
