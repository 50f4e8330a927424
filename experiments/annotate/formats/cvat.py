"""CVAT: a ZIP of numbered images, label definitions, and annotations in the form "CVAT for images 1.1".

CVAT shows the images of a task in the order of their names, so each is put into a folder named after its rank.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO
from xml.etree.ElementTree import Element, SubElement, TreeBuilder, tostring
from xml.parsers import expat

from data.decoding import picture_size
from data.files import write_atomically
from experiments.annotate.formats.collecting import Collector
from experiments.annotate.formats.exporting import Export

RANK = re.compile(r"\d{6}/")
SHAPES = ("box", "polygon", "polyline", "points", "mask", "cuboid", "ellipse", "skeleton")


def write(export: Export) -> list[str]:
    """Write `images.zip`, `labels.json`, `annotations.xml` (predictions) and `labels.xml`. Returns what to do."""

    def pack(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:  # stored: pictures do not shrink
            for s in export.suggestions:
                archive.write(export.folder / s.image, f"{s.rank:06d}/{s.image}")

    write_atomically(export.directory / "images.zip", pack)
    export.write_json("labels.json", [{"name": each, "type": "tag", "attributes": []} for each in export.answers])
    facts = [(f"{s.rank:06d}/{s.image}", export.folder / s.image, s.predicted, "auto") for s in export.suggestions]
    export.write_text("annotations.xml", _annotations(export.answers, facts))
    labels = [(label.image, export.folder / label.image, label.answer, "manual") for label in export.labels]
    export.write_text("labels.xml", _annotations(export.answers, labels))
    return [
        f"make a task with {export.directory / 'labels.json'} as raw labels and {export.directory / 'images.zip'} as "
        f"its files, upload {export.directory / 'annotations.xml'} as 'CVAT 1.1' to see the predictions, export as "
        "'CVAT for images 1.1'"
    ]


def _annotations(answers: Sequence[str], images: Sequence[tuple[str, Path, str, str]]) -> str:
    """The XML of images, each given by its name, its file, its tag, and the tag's source."""
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    task = SubElement(SubElement(root, "meta"), "task")
    for name, text in (("name", "vlpure"), ("size", str(len(images))), ("mode", "annotation")):
        SubElement(task, name).text = text
    labels = SubElement(task, "labels")
    for answer in answers:
        label = SubElement(labels, "label")
        SubElement(label, "name").text = answer
        SubElement(label, "type").text = "tag"
        SubElement(label, "attributes")
    for number, (name, file, tag, source) in enumerate(images):
        width, height = picture_size(file)
        image = SubElement(root, "image", id=str(number), name=name, width=str(width), height=str(height))
        SubElement(image, "tag", label=tag, source=source)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def parse_xml(content: bytes, path: Path) -> Element:
    """The root element of an XML text.

    Raises ValueError if it is cut or damaged, and for a document type: definitions in it can make a small file fill the
    memory, or name files of this machine.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise ValueError(f"{path}: this XML file has a document type (<!DOCTYPE>), which is not read; remove it")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ValueError(f"{path}: this XML file is cut or damaged ({error})") from None
    return builder.close()


def recognises(root: Element) -> bool:
    """Whether an XML document is one of CVAT."""
    return root.tag == "annotations"


def read(root: Element, collector: Collector) -> None:
    """Hand the images' tags to the collector; predictions (source "auto") and images without a tag are left out.

    Raises ValueError for an image with two different tags.
    """
    collector.tool = "CVAT"
    num_shapes = 0
    for image in root.iter("image"):
        name = image.get("name", "")
        if collector.find(name) is None:
            name = RANK.sub("", name, count=1)
        num_shapes += sum(child.tag in SHAPES for child in image)
        for tag in image.findall("tag"):
            if tag.get("source") != "auto":
                collector.add(name, tag.get("label", ""), where=f"image {image.get('id')}")
    if num_shapes:
        collector.warnings.append(f"{num_shapes:,} boxes and other shapes were ignored; only tags are read")
