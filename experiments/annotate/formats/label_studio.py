"""Label Studio: tasks in order with predictions, a labelling configuration, and the exports JSON and JSON-MIN.

Images are named by the local-files storage of Label Studio, whose root is the parent of the folder.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import quoteattr

from experiments.annotate.answers.state import NONE, UNSURE, Label, Suggestion
from experiments.annotate.formats.collecting import Collector, Votes
from experiments.annotate.formats.exporting import Export

CONTROL, OBJECT, PATH = "label", "image", "vlpure_path"
"""Names of the choices and of the image in the configuration, and of the field that holds an image's path."""
LOCAL_FILES = "/data/local-files/"
KEYS = {NONE: "0", UNSURE: "u"}


def write(export: Export) -> list[str]:
    """Write `tasks.json`, `labels.json` (tasks with annotations) and `labelling.xml`. Returns what to do with them."""
    export.write_json("tasks.json", [_task(export, each) for each in export.suggestions])
    export.write_json("labels.json", [_annotated(export, each) for each in export.labels])
    export.write_text("labelling.xml", labelling_configuration(export.classes))
    root = export.folder.absolute().parent
    return [
        "start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true "
        f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root}; make a project with {export.directory / 'labelling.xml'} as "
        f"its code and {export.folder.absolute()} as a local storage (do not sync it), import "
        f"{export.directory / 'tasks.json'}, and press 'Label Tasks As Displayed'"
    ]


def labelling_configuration(classes: tuple[str, ...]) -> str:
    """The XML that shows an image with one choice per class, "none of my classes" (key 0) and "cannot tell" (key u)."""
    keys = {name: str(number) for number, name in enumerate(classes[:9], start=1)} | KEYS
    choices = "\n".join(
        f"    <Choice value={quoteattr(name)}" + (f" hotkey={quoteattr(keys[name])}" if name in keys else "") + "/>"
        for name in (*classes, NONE, UNSURE)
    )
    return (
        f'<View>\n  <Image name="{OBJECT}" value="${OBJECT}"/>\n'
        f'  <Choices name="{CONTROL}" toName="{OBJECT}" choice="single" required="true" showInline="true">\n'
        f"{choices}\n  </Choices>\n</View>\n"
    )


def _data(export: Export, image: str) -> dict[str, Any]:
    return {OBJECT: f"{LOCAL_FILES}?d={quote(f'{export.folder.absolute().name}/{image}')}", PATH: image}


def _choice(number: str, answer: str) -> list[dict[str, Any]]:
    return [{"id": number, "type": "choices", "from_name": CONTROL, "to_name": OBJECT, "value": {"choices": [answer]}}]


def _task(export: Export, s: Suggestion) -> dict[str, Any]:
    facts = {
        "rank": s.rank, "wanted": round(s.wanted, 4), "informativeness": round(s.informativeness, 4),
        "reason": s.reason, "nearest_labelled": s.nearest_labelled or "",
    }  # fmt: skip
    return {
        "data": _data(export, s.image) | facts,
        "predictions": [
            {
                "model_version": "vlpure",
                # A confidence, though a queue sorted by it would be another than ours: that order is data.rank.
                "score": round(s.predicted_probability, 4),
                "result": _choice(f"suggestion{s.rank}", s.predicted),
            }
        ],
    }


def _annotated(export: Export, label: Label) -> dict[str, Any]:
    annotation = {"result": _choice("label", label.answer), "was_cancelled": False, "lead_time": label.seconds}
    data = _data(export, label.image) | {"source": label.source, "time": label.time}
    return {"data": data, "annotations": [annotation]}


def recognises_json(content: Any) -> bool:
    """Whether a JSON value is an export of Label Studio, in the form JSON."""
    return isinstance(content, list) and all(isinstance(task, dict) and "data" in task for task in content)


def recognises_json_min(content: Any) -> bool:
    """Whether a JSON value is an export of Label Studio, in the form JSON-MIN."""
    return isinstance(content, list) and all(isinstance(task, dict) and _named(task) for task in content)


def read_json(content: Any, collector: Collector) -> None:
    """Hand the answers of a JSON export to the collector. A skipped task is "cannot tell".

    Several annotators' answers are counted by `Votes`. Raises ValueError for a task with several choices.
    """
    collector.tool = "Label Studio"
    votes = Votes(collector)
    for number, task in enumerate(content, start=1):
        where = f"task {task.get('id', number)}"
        data = task["data"] if isinstance(task["data"], dict) else {}
        name = _named(data)
        if name is None:
            raise collector.error(f"{where} names no image (neither '{PATH}' nor '{OBJECT}' in its data)")
        annotations = task.get("annotations") or []
        if not isinstance(annotations, list) or not all(isinstance(each, dict) for each in annotations):
            raise collector.error(f"{where}: its annotations are no list of objects")
        for annotation in annotations:
            answer = UNSURE if annotation.get("was_cancelled") else _chosen(annotation.get("result"), where, collector)
            if answer is None:
                continue
            votes.add(
                name,
                answer,
                where=where,
                by=_author(annotation.get("completed_by")),
                time=annotation.get("created_at") or _text(data.get("time")),
                seconds=_seconds(annotation.get("lead_time")),
            )
    votes.count()


def read_json_min(content: Any, collector: Collector) -> None:
    """Hand the answers of a JSON-MIN export to the collector; it has one entry per annotation."""
    collector.tool = "Label Studio"
    votes = Votes(collector)
    for number, entry in enumerate(content, start=1):
        where, name, value = f"task {entry.get('id', number)}", _named(entry), entry.get(CONTROL)
        if isinstance(value, dict):
            value = value.get("choices")
        if isinstance(value, list):
            value = _only([each for each in value if isinstance(each, str)], where, collector)
        if not value or name is None:
            continue
        votes.add(
            name,
            str(value),
            where=where,
            by=_author(entry.get("annotator")),
            time=_text(entry.get("created_at")),
            seconds=_seconds(entry.get("lead_time")),
        )
    votes.count()


def _named(data: dict[str, Any]) -> str | None:
    """The image that a task's data name, as a path."""
    for field in (PATH, OBJECT):
        value = data.get(field)
        if isinstance(value, str) and value:
            return _path_of(value) if field == OBJECT else value
    return None


def _path_of(address: str) -> str:
    """The path in an address of the local-files storage; other addresses as they are."""
    parts = urlsplit(address)
    if parts.path.endswith(LOCAL_FILES):
        return str(PurePosixPath(parse_qs(parts.query).get("d", [""])[0]))
    return address


def _chosen(result: Any, where: str, collector: Collector) -> str | None:
    """The one choice in an annotation's result; None if there is none."""
    found = [part for part in result or [] if isinstance(part, dict) and part.get("type") == "choices"]
    ours = [part for part in found if part.get("from_name") == CONTROL] or found
    choices = [choice for part in ours for choice in (part.get("value") or {}).get("choices") or []]
    return _only(choices, where, collector)


def _only(choices: list[str], where: str, collector: Collector) -> str | None:
    if len(set(choices)) > 1:
        raise collector.error(f"{where} has {len(choices)} choices ({', '.join(choices)}); one is expected")
    return choices[0] if choices else None


def _author(value: Any) -> str | None:
    """Who annotated: a number, or an object with an e-mail address."""
    if isinstance(value, dict):
        value = value.get("email") or value.get("id")
    return None if value is None else f"annotator {value}"


def _seconds(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
