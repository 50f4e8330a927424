"""DomainNet's published lists: `<domain>_train.txt` and `<domain>_test.txt`, a line an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Part = Literal["train", "test"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageList:
    """What one list says."""

    path: Path
    names: tuple[str, ...]
    """Paths `<domain>/<class>/<file>`, in the order of the list, each once."""
    labels: NDArray[np.int64]
    """(N,), of each."""
    folders: dict[int, str]
    """The class folder of each label in the list."""


def list_path(source: Path, domain: str, part: Part) -> Path:
    """Where a list lies: in the data set's folder or in `txt/` there, as on the server it comes from."""
    beside, below = source / f"{domain}_{part}.txt", source / "txt" / f"{domain}_{part}.txt"
    return below if below.is_file() and not beside.is_file() else beside


def read_list(source: Path, domain: str, part: Part) -> ImageList:
    """One list. Files are not looked at. A list that has not changed is parsed once a process.

    Raises ValueError naming the list and the line for a path outside the domain's folder, a line of another form, an
    image named twice, and a label that stands for two classes; OSError when it cannot be read.
    """
    path = list_path(source, domain, part)
    stat = path.stat()
    return _parse(path, domain, (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


def merge_classes(lists: Sequence[ImageList]) -> tuple[str, ...]:
    """The class folders by label, 0..C-1, of all lists together; no list need have all of them.

    Raises ValueError where two lists disagree, or a label between is in none of them.
    """
    folders: dict[int, str] = {}
    for image_list in lists:
        for label, folder in image_list.folders.items():
            if folders.setdefault(label, folder) != folder:
                raise ValueError(
                    f"{image_list.path}: label {label} is '{folder}' here and '{folders[label]}' in another list; "
                    "take all lists from one source"
                )
    absent = sorted(set(range(max(folders) + 1)) - set(folders))
    if absent:
        raise ValueError(f"{lists[0].path.parent}: no list has an image of class {absent[0]} of 0..{max(folders)}")
    names = tuple(folders[label] for label in range(len(folders)))
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        labels = [label for label, name in enumerate(names) if name == double]
        raise ValueError(f"{lists[0].path.parent}: the lists give '{double}' the labels {labels}; one is wrong")
    return names


@lru_cache(maxsize=16)
def _parse(path: Path, domain: str, state: tuple[int, int, int]) -> ImageList:
    """The list at `path`; `state` tells the cache whether it was changed."""
    names: dict[str, int] = {}
    folders: dict[int, str] = {}
    for number, line in _lines(path):
        name, _, label = line.rpartition(" ")
        parts = name.split("/")
        if name.startswith("/") or ".." in parts:
            raise ValueError(f"{path}, line {number}: {name} points outside the folder of the data set")
        if len(parts) != 3 or parts[0] != domain or "" in parts or "." in parts or not _is_number(label):
            raise ValueError(f"{path}, line {number}: '{line}' is no '{domain}/<class>/<file> <label>'")
        if name in names:
            raise ValueError(f"{path}, line {number}: {name} was named before")
        names[name] = int(label)
        if folders.setdefault(int(label), parts[1]) != parts[1]:
            raise ValueError(
                f"{path}, line {number}: label {label} is '{parts[1]}' here, but '{folders[int(label)]}' further up"
            )
    if not names:
        raise ValueError(f"{path}: this list is empty; fetch it again")
    labels = np.fromiter(names.values(), dtype=np.int64, count=len(names))
    return ImageList(path=path, names=tuple(names), labels=labels, folders=folders)


def _is_number(text: str) -> bool:
    """Whether it is a label."""
    return text.isascii() and text.isdigit()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and content of each line that is not empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: this is no text file; fetch it again") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.strip()
