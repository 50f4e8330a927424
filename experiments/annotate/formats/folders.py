"""Class folders: images sorted with a file manager into one folder per class, `_none_` and `_skip_`."""

from __future__ import annotations

import filecmp
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from data.image_files import LITTER
from experiments.annotate.answers.state import NONE, UNSURE
from experiments.annotate.formats.collecting import Collector
from experiments.annotate.formats.exporting import Export, place

FOLDERS = {NONE: "_none_", UNSURE: "_skip_"}
UNSORTED = "_to_sort_"
"""Name of the folder that the suggestions are put into."""
RANK = re.compile(r"\d{6} ")


def write(export: Export) -> list[str]:
    """Write one folder per answer with its labelled images, and `_to_sort_` with the suggestions, numbered by rank.

    Returns what to do with them.
    """
    for answer in export.answers:
        (export.directory / folder_name(answer)).mkdir(parents=True, exist_ok=True)
    for label in export.labels:
        place(export.folder / label.image, export.directory / folder_name(label.answer) / label.image)
    for s in export.suggestions:
        place(export.folder / s.image, export.directory / UNSORTED / f"{s.rank:06d} {PurePosixPath(s.image).name}")
    return [f"drag the images of {export.directory / UNSORTED} into the folders beside it"]


def folder_name(answer: str) -> str:
    """Name of the folder for an answer; every class is the name of a folder (`check_classes`)."""
    return FOLDERS.get(answer, answer)


def recognises(path: Path, classes: Collection[str]) -> bool:
    """Whether a folder has a folder of one of the answers in it."""
    names = {folder_name(each) for each in (*classes, NONE, UNSURE)} | {"_ood_"}
    return path.is_dir() and any((path / name).is_dir() for name in names)


def read(path: Path, images: Collection[str], collector: Collector) -> None:
    """Hand the images in class folders to the collector, found by their path or name, and compared byte by byte.

    Raises ValueError for a folder that is no class, and for an image that is none of the folder's.
    """
    collector.tool = "class folders"
    by_name: dict[str, list[str]] = defaultdict(list)
    for image in images:
        by_name[PurePosixPath(image).name].append(image)
    for folder in sorted(each for each in path.iterdir() if each.is_dir() and not _is_litter(each.name)):
        if folder.name == UNSORTED:
            continue
        answer = collector.meant(folder.name, f"folder '{folder.name}'")
        for file in _files(folder):
            found, name = _original(file, folder, by_name, collector), file.relative_to(folder).as_posix()
            if found is None:
                collector.missing(name)
            else:
                collector.add(found, answer, where=f"'{folder.name}/{name}'")


def _files(folder: Path) -> Iterator[Path]:
    return (each for each in sorted(folder.rglob("*")) if each.is_file() and not _is_litter(each.name))


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER


def _original(file: Path, folder: Path, by_name: dict[str, list[str]], collector: Collector) -> str | None:
    """The image of the photo folder that a file is a copy of; None if it is none of them."""
    exact = collector.find(file.relative_to(folder).as_posix())
    candidates = [exact] if exact else []
    candidates += [*by_name.get(file.name, ()), *by_name.get(RANK.sub("", file.name, count=1), ())]
    # Bytes, not names alone: two cameras both write IMG_0001.jpg.
    for candidate in candidates:
        if (collector.folder / candidate).is_file() and filecmp.cmp(file, collector.folder / candidate, shallow=False):
            return candidate
    return None
