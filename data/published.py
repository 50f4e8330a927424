"""Description of published data sets: their files with sizes and checksums."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A published file: its address, size and checksum."""

    url: str
    num_bytes: int
    algorithm: Literal["md5", "sha256"]
    checksum: str
    """Hex digits, as published by the data set's authors or by a library that reads it."""
    folder: str | None = None
    """The only folder in an archive; None for a file that is used without unpacking."""

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """All files of a data set."""

    files: tuple[Download, ...]
    folder: str = ""
    """Folder that the files go to, below the folder of all data sets."""

    @property
    def num_bytes(self) -> int:
        """Size of all files together, in bytes."""
        return sum(item.num_bytes for item in self.files)

    def how_to_fetch(self, name: str, root: Path | None = None) -> str:
        """Advice for people: how to get the data set called `name` into the folder `root` of all data sets."""
        folder = shlex.quote(str(root)) if root else "DIR"
        what, it = (self.files[0].name, "it") if len(self.files) == 1 else (f"{len(self.files)} files", "them")
        return (
            f"`python -m data fetch {name} --data-root {folder}` downloads {what} ({size_in_words(self.num_bytes)}), "
            f"or takes {it} from {Path(folder) / self.folder}, and unpacks {it}"
        )


def size_in_words(num_bytes: int) -> str:
    """Bytes as people say them: 170 MB, 18.4 GB."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def is_published(item: Download, path: Path) -> bool:
    """Whether the file at `path` has the published checksum."""
    with path.open("rb") as file:
        # No security rests on MD5 here; it is what some of the files were published with.
        digest = hashlib.file_digest(file, lambda: hashlib.new(item.algorithm, usedforsecurity=False))
    return digest.hexdigest() == item.checksum
