"""What is said where the cache cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
