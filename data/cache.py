"""The cache folder: what is made once and kept for the next run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.files import cache_root, content_hash, file_hash, user_path, write_text_atomically


@contextmanager
def clear_write_errors(folder: Path) -> Iterator[None]:
    """Turn the OSError of a full or read-only disk, met while writing below `folder`, into a ValueError with advice."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"cache: {folder} cannot be written ({error.strerror or error}); "
            "make room there, or set VLPURE_CACHE to another folder"
        ) from error


def file_hash_once(path: Path) -> str:
    """SHA-256 of a file, remembered in the cache for its path, size and time of change: big files are hashed once.

    Raises ValueError where there is no such file.
    """
    path = user_path(path).resolve()
    if not path.is_file():
        raise ValueError(f"clipn.checkpoint: there is no file {path}")
    stat = path.stat()
    state = {"path": str(path), "size": stat.st_size, "changed_ns": stat.st_mtime_ns}
    remembered = cache_root() / "hashes" / f"{content_hash(state)[:32]}.txt"
    if remembered.is_file():
        return remembered.read_text(encoding="utf-8").strip()
    digest = file_hash(path)
    with clear_write_errors(remembered.parent):
        write_text_atomically(remembered, digest + "\n")
    return digest
