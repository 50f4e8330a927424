"""FiftyOne: CSV files with a short loader, and its classification data set (`labels.json`)."""

from __future__ import annotations

from typing import Any

from experiments.annotate.formats.collecting import Collector
from experiments.annotate.formats.exporting import Export
from experiments.annotate.formats.table import as_csv

LOADER = '''\
"""Loads the suggestions beside this file into FiftyOne; export() writes the answers back."""

import csv
from pathlib import Path

import fiftyone as fo

HERE = Path(__file__).parent
dataset = fo.Dataset({name!r}, overwrite=True)
with open(HERE / "suggestions.csv", encoding="utf-8", newline="") as file:
    for row in csv.DictReader(file):
        sample = fo.Sample(filepath=row["filepath"], rank=int(row["rank"]), reason=row["reason"])
        sample["wanted"] = float(row["wanted"])
        sample["prediction"] = fo.Classification(label=row["predicted"], confidence=float(row["probability"]))
        sample["ground_truth"] = None  # answer here: a class, {none!r} or {unsure!r}
        dataset.add_sample(sample)


def export():
    dataset.match(fo.ViewField("ground_truth") != None).export(  # noqa: E711
        labels_path=str(HERE / "answers.csv"),
        dataset_type=fo.types.CSVDataset,
        fields={{"filepath": "filepath", "ground_truth.label": "ground_truth"}},
        export_media=False,
        abs_paths=True,
    )
'''


def write(export: Export) -> list[str]:
    """Write `suggestions.csv`, `labels.csv` and `load.py`. Returns what to do with them."""
    header = ("filepath", "tags", "rank", "wanted", "predicted", "probability", "informativeness", "reason")
    rows = [
        (export.absolute(s.image), "border" if s.border else "random" if s.drawn else "", s.rank,
         f"{s.wanted:.4f}", s.predicted, f"{s.predicted_probability:.4f}", f"{s.informativeness:.4f}", s.reason)
        for s in export.suggestions
    ]  # fmt: skip
    export.write_text("suggestions.csv", as_csv(header, rows))
    labels = [(export.absolute(label.image), "", label.answer) for label in export.labels]
    export.write_text("labels.csv", as_csv(("filepath", "tags", "ground_truth"), labels))
    name = f"vlpure {export.folder.absolute().name}"
    none, unsure = export.answers[-2:]
    export.write_text("load.py", LOADER.format(name=name, none=none, unsure=unsure))
    return [
        f"python -i {export.directory / 'load.py'}, then fo.launch_app(dataset); export() writes "
        f"{export.directory / 'answers.csv'}"
    ]


def recognises(content: Any) -> bool:
    """Whether a JSON value is the `labels.json` of a FiftyOne classification data set."""
    return isinstance(content, dict) and {"classes", "labels"} <= content.keys() and isinstance(content["labels"], dict)


def read(content: Any, collector: Collector) -> None:
    """Hand the labels to the collector; its images are named without the suffix of their files.

    Raises ValueError for an image with several labels, and for a class that the file does not list.
    """
    collector.tool = "FiftyOne"
    classes = content["classes"]
    for name, value in content["labels"].items():
        where = f"label of '{name}'"
        labels = value if isinstance(value, list) else [value]
        if len(labels) > 1:
            raise collector.error(f"{where}: {len(labels)} labels; one is expected")
        label = labels[0].get("label") if labels and isinstance(labels[0], dict) else (labels or [None])[0]
        if label is None:
            continue
        if isinstance(label, int):
            if not isinstance(classes, list) or not 0 <= label < len(classes):
                raise collector.error(f"{where} is class number {label}, which the file does not list")
            label = classes[label]
        collector.add(collector.find_stem(name, where) or name, str(label), where=where)
