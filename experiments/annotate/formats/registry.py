"""Export to a tool by its name, and reading of whatever file of labels is given: its content shows what it is."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.console import unknown_name
from data.files import is_unicode, shown
from experiments.annotate.answers.labels import Label, LabelLog
from experiments.annotate.answers.state import Suggestion
from experiments.annotate.formats import coco, cvat, fiftyone, folders, label_studio, table
from experiments.annotate.formats.collecting import Collector
from experiments.annotate.formats.exporting import Export

WRITERS: dict[str, Callable[[Export], list[str]]] = {
    "csv": table.write,
    "label-studio": label_studio.write,
    "cvat": cvat.write,
    "fiftyone": fiftyone.write,
    "coco": coco.write,
    "folders": folders.write,
}
LABEL_FILES = {
    "csv": "labels.csv", "label-studio": "labels.json", "cvat": "labels.xml", "fiftyone": "labels.csv",
    "coco": "labels.json", "folders": ".",
}  # fmt: skip
"""Format -> the file of an export that holds the labels."""
JSON_READERS: tuple[tuple[Callable[[Any], bool], Callable[[Any, Collector], None]], ...] = (
    (label_studio.recognises_json, label_studio.read_json),
    (label_studio.recognises_json_min, label_studio.read_json_min),
    (coco.recognises, coco.read),
    (fiftyone.recognises, fiftyone.read),
)
IN_FOLDER = ("annotations.xml", "labels.json", "labels.csv", "result.json")
"""Files that are looked for in a folder that has no class folders, such as an unpacked export."""
LARGEST = 1 << 30
"""Bytes of a label file that are read; a ZIP file may claim to hold any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsRead:
    """What a file of labels held."""

    labels: list[Label]
    warnings: list[str]
    """Lines for the user: annotators who disagree, shapes that were ignored."""


def write(
    name: str,
    directory: Path,
    folder: Path,
    classes: Sequence[str],
    suggestions: Sequence[Suggestion],
    labels: Mapping[str, Label],
) -> list[str]:
    """Write suggestions that are not answered, and all labels, as files of the tool `name` to `directory`.

    Returns lines for the user: what to do with the files. Raises ValueError for an unknown format.
    """
    if name not in WRITERS:
        raise unknown_name("format", name, WRITERS)
    for image in (*(each.image for each in suggestions), *labels):
        if not is_unicode(image):
            raise ValueError(f"the name of {folder}/{shown(image)} is not UTF-8, which {name} cannot hold; rename it")
    return WRITERS[name](
        Export(
            directory=directory,
            folder=folder,
            classes=tuple(classes),
            suggestions=tuple(each for each in suggestions if each.image not in labels),
            labels=tuple(labels.values()),
        )
    )


def read(path: Path, *, folder: Path, classes: Sequence[str], images: Collection[str]) -> LabelsRead:
    """The labels in a file or folder that any of the tools wrote, for the `images` of `folder`.

    Raises ValueError, naming the file, if it is of no known kind, cut or damaged, about another folder, or names
    unknown classes, images that do not exist or two labels for an image; OSError if it cannot be read.
    """
    if path.is_dir():
        if not folders.recognises(path, classes):
            path = _file_in(path)
    elif not path.exists():
        raise ValueError(f"{path}: no such file or folder of labels")
    collector = Collector(path, folder=folder, classes=classes, images=images)
    if path.is_dir():
        folders.read(path, images, collector)
    else:
        _read_file(path, collector)
    return LabelsRead(labels=collector.labels(), warnings=collector.warnings)


def _file_in(folder: Path) -> Path:
    """The label file of an unpacked export."""
    found = [folder / name for name in IN_FOLDER if (folder / name).is_file()]
    if len(found) != 1:
        raise ValueError(
            f"{folder}: this folder has neither a folder of one of the classes nor exactly one of the files "
            f"{', '.join(IN_FOLDER)}; name the file"
        )
    return found[0]


def _read_file(path: Path, collector: Collector) -> None:
    """Read a file by what its first bytes show it to be."""
    content = _content(path)
    start = content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if not start:
        raise collector.error("this file is empty")
    if start == b"<":
        root = cvat.parse_xml(content, path)
        if not cvat.recognises(root):
            raise collector.error(f"this XML file begins with <{root.tag}>; only CVAT's, with <annotations>, is read")
        cvat.read(root, collector)
    elif content.startswith(b'{"image"'):
        for number, label in enumerate(LabelLog(path).latest().values(), start=1):
            collector.add(
                label.image,
                label.answer,
                where=f"answer {number}",
                source=label.source,
                time=label.time,
                seconds=label.seconds,
            )
    elif start in b"[{":
        parsed = _json(content, collector)
        for recognises, reader in JSON_READERS:
            if recognises(parsed):
                reader(parsed, collector)
                return
        raise collector.error("this JSON file is of no known kind; Label Studio's, COCO's and FiftyOne's are read")
    else:
        table.read(table.read_bytes(path, content), collector)


def _content(path: Path) -> bytes:
    """The bytes of a file, or of the annotations in a ZIP file."""
    if not zipfile.is_zipfile(path):
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path}: {path.stat().st_size:,} bytes are too many for a file of labels")
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        found = [each for each in archive.infolist() if Path(each.filename).name in IN_FOLDER]
        if len(found) != 1:
            raise ValueError(f"{path}: this ZIP file must hold exactly one of {', '.join(IN_FOLDER)}")
        with archive.open(found[0]) as file:
            content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"{path}: {found[0].filename} in it is too large for a file of labels")
    return content


def _json(content: bytes, collector: Collector) -> Any:
    try:
        return json.loads(content)
    except UnicodeDecodeError:
        raise collector.error("this JSON file is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise collector.error(f"this JSON file is cut or damaged at line {error.lineno} ({error.msg})") from None
    except RecursionError:
        raise collector.error("this JSON file is nested too deeply") from None
