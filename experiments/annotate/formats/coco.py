"""COCO: images, categories, and one annotation per labelled image whose box is the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data.decoding import picture_size
from experiments.annotate.formats.collecting import Collector
from experiments.annotate.formats.exporting import Export

SUGGESTION_FIELDS = ("rank", "wanted", "predicted", "predicted_probability", "informativeness", "reason")


def write(export: Export) -> list[str]:
    """Write `suggestions.json` (images in order, nothing annotated) and `labels.json`. Returns what to do with them."""
    suggested = _images(export, [s.image for s in export.suggestions])
    for image, s in zip(suggested, export.suggestions, strict=True):
        image |= {field: getattr(s, field) for field in SUGGESTION_FIELDS}
    export.write_json("suggestions.json", _content(export, suggested, []))
    images = _images(export, [label.image for label in export.labels])
    numbers = {answer: number for number, answer in enumerate(export.answers, start=1)}
    annotations = [
        {
            "id": image["id"], "image_id": image["id"], "category_id": numbers[label.answer],
            "bbox": [0, 0, image["width"], image["height"]], "area": image["width"] * image["height"], "iscrowd": 0,
            "segmentation": [],
            "attributes": {"source": label.source, "time": label.time, "seconds": label.seconds},
        }
        for image, label in zip(images, export.labels, strict=True)
    ]  # fmt: skip
    export.write_json("labels.json", _content(export, images, annotations))
    return [
        f"{export.directory / 'suggestions.json'} lists the images in order; give each one annotation of its category"
    ]


def _images(export: Export, names: Sequence[str]) -> list[dict[str, Any]]:
    images = []
    for number, name in enumerate(names, start=1):
        width, height = picture_size(export.folder / name)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
    return images


def _content(export: Export, images: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    categories = [
        {"id": number, "name": answer, "supercategory": ""} for number, answer in enumerate(export.answers, start=1)
    ]
    return {"info": {}, "licenses": [], "images": images, "categories": categories, "annotations": annotations}


def recognises(content: Any) -> bool:
    """Whether a JSON value is in the form of COCO."""
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()


def read(content: Any, collector: Collector) -> None:
    """Hand the categories of annotated images to the collector; several boxes of one category are one answer.

    Raises ValueError for an image with annotations of two categories, and for a number that nothing has.
    """
    collector.tool = "COCO"
    try:
        names = {image["id"]: image["file_name"] for image in content["images"]}
        categories = {category["id"]: category["name"] for category in content["categories"]}
        found = [
            (each.get("id"), each["image_id"], each["category_id"], each.get("attributes") or {})
            for each in content["annotations"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise collector.error(f"this COCO file lacks what it must have ({error})") from None
    for number, image, category, attributes in found:
        where = f"annotation {number}"
        if image not in names or category not in categories:
            raise collector.error(f"{where} is about image {image} and category {category}, and one of them is missing")
        seconds, time = attributes.get("seconds"), attributes.get("time")
        collector.add(
            str(names[image]),
            str(categories[category]),
            where=where,
            source=attributes.get("source") if time else None,
            time=time if isinstance(time, str) else None,
            seconds=float(seconds) if isinstance(seconds, int | float) else None,
        )
