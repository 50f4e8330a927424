"""DomainNet (cleaned version) as its authors publish it: six archives, and twelve lists with one line per image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.published import Download, Package

Part = Literal["train", "test"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageList:
    """The content of one list."""

    path: Path
    names: tuple[str, ...]
    """Paths `<domain>/<class>/<file>`, in the order of the list, each once."""
    labels: NDArray[np.int64]
    """(N,) label of each image."""
    folders: dict[int, str]
    """The class folder of each label in the list."""


def list_path(source: Path, domain: str, part: Part) -> Path:
    """Path of a list: in the data set's folder, or in its folder `txt/` as on the authors' server."""
    beside, below = source / f"{domain}_{part}.txt", source / "txt" / f"{domain}_{part}.txt"
    return below if below.is_file() and not beside.is_file() else beside


def read_list(source: Path, domain: str, part: Part) -> ImageList:
    """The content of one list; its image files are not checked. A list that has not changed is parsed once per process.

    Raises ValueError naming the list and the line for a path outside the domain's folder, a line of another form, an
    image named twice, and a label that stands for two classes; OSError if it cannot be read.
    """
    path = list_path(source, domain, part)
    stat = path.stat()
    return _parse(path, domain, (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


def merge_classes(lists: Sequence[ImageList]) -> tuple[str, ...]:
    """The class folders by label, 0..C-1, of all lists together; no list need have all of them.

    Raises ValueError if two lists disagree, or if a label in between is in none of them.
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
    """The list at `path`; `state` is part of the cache's key, so that a changed list is parsed again."""
    names: dict[str, int] = {}
    folders: dict[int, str] = {}
    for number, line in _lines(path):
        name, _, label = line.rpartition(" ")
        parts = name.split("/")
        if name.startswith("/") or ".." in parts:
            raise ValueError(f"{path}, line {number}: {name} points outside the folder of the data set")
        if len(parts) != 3 or parts[0] != domain or "" in parts or "." in parts or not _is_number(label):
            raise ValueError(f"{path}, line {number}: '{line}' is not of the form '{domain}/<class>/<file> <label>'")
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
    """Whether a text is a label, a number in ASCII digits."""
    return text.isascii() and text.isdigit()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and content of each line that is not empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: this is not a text file; fetch it again") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.strip()


DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
FOLDER = "domainnet"
_URL = "http://csr.bu.edu/ftp/visda/2019/multi-source"
# Sizes and checksums are those that TensorFlow Datasets checks.
_ARCHIVES = {
    "clipart": ("groundtruth/", 1_270_909_081, "f8f248a3e8bbc9868c523ae24e6601b4c2ad102afc60c0efeb4f3255df22354d"),
    "infograph": ("", 4_338_659_804, "891e14f476317e97b6f06d6498c11d0a5b8d0c8b57210765ed9beb072da611fa"),
    "painting": ("groundtruth/", 3_679_366_174, "fa47e6d405503ea0286cabd767f176bd30e988b63ddd7b9db16cf030c9770015"),
    "quickdraw": ("", 459_920_701, "9f37df2a8c3733703dbb35ad9964202a65f675ca30137756457537536b485d84"),
    "real": ("", 6_062_039_589, "d7fe010b430c5b510f85d657d38c4a1924822695fabea4fef57bd00dba251d63"),
    "sketch": ("", 2_633_992_926, "23a7dbae7016b343e934399beaa8a68728fb5e570ebe2c71df9b75cf91c499fc"),
}
_LISTS = {
    "clipart_train": (1_443_819, "affdadf5f95a7583e6b98030a3d35007e2613ee4dd942393c5a705ec2b429312"),
    "clipart_test": (628_917, "62c8e36aaba1c41ad9e249099739707220a44c08f167b37ef420f34a31628a6b"),
    "infograph_train": (1_683_098, "36b44cbd41a2915e0dc73b4f4be8862a6f3c220f93c8d63fb2439beeae3aefda"),
    "infograph_test": (728_028, "413cfa54ac92e7e6b242f4f09fbd9c8ace85c4deaf3cb6c81ff6b68264460136"),
    "painting_train": (2_241_901, "f1da38d50a702fddf1329f85bc607d7a2abcae7e6aec75e1fd49cc1bd340d47b"),
    "painting_test": (971_888, "11472b13b5188e09f06918b12eebb660588c97a20e43e268d9b02e3e37eb8f97"),
    "quickdraw_train": (5_164_600, "3a5edd3bc215772010eebc87f158707703dd7e48091d13b816af81326a9d1c0f"),
    "quickdraw_test": (2_213_400, "2a00a60650a453c65c356da748fec54084a197272137c440e7d52d08947357bf"),
    "real_train": (4_440_944, "19d483256d24aef19e581b65eda8333fd918aef3eb733fe499ff384120e3a289"),
    "real_test": (1_911_327, "2b3f75bcde309aeb5931292084b2162e936b5f189e3bb1ad716f0f74c460864c"),
    "sketch_train": (1_960_222, "72f4bc6afa5702a1ccba800d0053c1427de87439dfaf246dbc9a2e71abfec54f"),
    "sketch_test": (850_581, "3fb48fca18c507c4321f007c3f62b308ec232ff6928cbfe2af64e76ec366e840"),
}
LIST_FILES = {
    name: Download(url=f"{_URL}/domainnet/txt/{name}.txt", num_bytes=num_bytes, algorithm="sha256", checksum=checksum)
    for name, (num_bytes, checksum) in _LISTS.items()
}
PACKAGE = Package(
    folder=FOLDER,
    files=(
        *LIST_FILES.values(),
        *(
            Download(
                url=f"{_URL}/{folder}{domain}.zip",
                num_bytes=num_bytes,
                algorithm="sha256",
                checksum=checksum,
                folder=domain,
            )
            for domain, (folder, num_bytes, checksum) in _ARCHIVES.items()
        ),
    ),
)
