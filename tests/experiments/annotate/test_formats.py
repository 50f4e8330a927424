"""Files of other tools: what is written, that reading it back keeps every label, and one line for what is wrong."""

from __future__ import annotations

import csv
import json
import os
import shutil
import unicodedata
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from experiments.annotate.answers.labels import check_classes
from experiments.annotate.answers.state import NONE, UNSURE, Label
from experiments.annotate.formats import registry
from experiments.annotate.formats.cvat import parse_xml
from experiments.annotate.formats.registry import LABEL_FILES, WRITERS, LabelsRead
from tests.experiments.annotate.photos import CLASSES, UGLY, label, one_label_each, suggestion, write_photos

SIMPLE = ("cat", "dog")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with photos of all names."""
    write_photos(tmp_path / "my photos")
    return tmp_path / "my photos"


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A folder with four photos of simple names."""
    write_photos(tmp_path / "few", ("a.jpg", "b.jpg", "sub/c.jpg", "sub/d.png"))
    return tmp_path / "few"


def images_of(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))


def read(path: Path, folder: Path, classes: tuple[str, ...] = SIMPLE) -> LabelsRead:
    return registry.read(path, folder=folder, classes=classes, images=images_of(folder))


def answers(path: Path, folder: Path, classes: tuple[str, ...] = SIMPLE) -> dict[str, str]:
    return {each.image: each.answer for each in read(path, folder, classes).labels}


def complaint(content: str | bytes, folder: Path, name: str = "given") -> str:
    """The error for a file with this content, less the file's name; it is one line."""
    path = folder.parent / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the callers compare the whole message)
        read(path, folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def given(content: Any, folder: Path) -> LabelsRead:
    """What is read from a JSON file, or from a text."""
    path = folder.parent / "given"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read(path, folder)


@pytest.mark.parametrize("name", WRITERS)
def test_a_round_trip_keeps_every_label(name: str, folder: Path, tmp_path: Path) -> None:
    labels = one_label_each(UGLY)
    assert check_classes(CLASSES[:2]) == CLASSES[:2]
    suggestions = [suggestion(rank, image) for rank, image in enumerate(UGLY, start=1)]
    classes = CLASSES if name != "folders" else (CLASSES[0], CLASSES[1], "=2+3 q & b", CLASSES[3])
    kept = {
        image: label(image, classes[CLASSES.index(each.answer)] if each.answer in CLASSES else each.answer,
                     seconds=each.seconds)
        for image, each in labels.items()
    }  # fmt: skip
    registry.write(name, tmp_path / "out", folder, classes, suggestions, kept)
    found = read(tmp_path / "out" / LABEL_FILES[name], folder, classes)
    assert {each.image: each.answer for each in found.labels} == {i: each.answer for i, each in kept.items()}
    assert found.warnings == []
    if name in ("csv", "coco"):
        assert {each.image: each for each in found.labels} == kept
    if name == "label-studio":
        assert [each.seconds for each in found.labels] == [each.seconds for each in kept.values()]


def test_the_log_of_answers_can_be_read(folder: Path, tmp_path: Path) -> None:
    from experiments.annotate.answers.labels import LabelLog

    labels = one_label_each(UGLY)
    LabelLog(tmp_path / "labels.jsonl").append(labels.values())
    assert {each.image: each for each in read(tmp_path / "labels.jsonl", folder, CLASSES).labels} == labels


@pytest.mark.parametrize("name", WRITERS)
def test_answered_suggestions_are_not_suggested_again(name: str, few: Path, tmp_path: Path) -> None:
    suggestions = [suggestion(1, "sub/c.jpg"), suggestion(2, "a.jpg", predicted="dog"), suggestion(3, "b.jpg")]
    hints = registry.write(name, tmp_path / "out", few, SIMPLE, suggestions, {"a.jpg": label("a.jpg", NONE)})
    assert len(hints) == 1
    assert str(tmp_path / "out") in hints[0]
    assert suggested(name, tmp_path / "out", few) == ["sub/c.jpg", "b.jpg"]


def suggested(name: str, out: Path, folder: Path) -> list[str]:
    """The images that an export suggests, in its order."""
    if name in ("csv", "fiftyone"):
        with (out / "suggestions.csv").open(newline="") as file:
            cells = [row.get("image") or row["filepath"] for row in csv.DictReader(file)]
        return [cell.removeprefix(f"{folder}/") for cell in cells]
    if name == "label-studio":
        return [task["data"]["vlpure_path"] for task in json.loads((out / "tasks.json").read_text())]
    if name == "coco":
        return [image["file_name"] for image in json.loads((out / "suggestions.json").read_text())["images"]]
    if name == "cvat":
        names = sorted(zipfile.ZipFile(out / "images.zip").namelist())  # CVAT's order
        assert [each.get("name") for each in ElementTree.parse(out / "annotations.xml").iter("image")] == names
        return [each[7:] for each in names]
    paths = sorted((out / "_to_sort_").iterdir())
    by_content = {(folder / image).read_bytes(): image for image in images_of(folder)}
    return [by_content[path.read_bytes()] for path in paths]


def test_label_studio_gets_tasks_in_order_with_predictions(few: Path, tmp_path: Path) -> None:
    registry.write("label-studio", tmp_path / "out", few, SIMPLE, [suggestion(1, "sub/d.png", predicted="dog")], {})
    (task,) = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert task["data"] == {
        "image": "/data/local-files/?d=few/sub/d.png", "vlpure_path": "sub/d.png", "rank": 1, "wanted": 0.99,
        "informativeness": 0.125, "reason": "probably a dog, rank 1", "nearest_labelled": "",
    }  # fmt: skip
    (prediction,) = task["predictions"]
    assert prediction["score"] == 0.501
    assert prediction["result"] == [
        {"id": "suggestion1", "type": "choices", "from_name": "label", "to_name": "image",
         "value": {"choices": ["dog"]}}
    ]  # fmt: skip
    (choices,) = ElementTree.parse(tmp_path / "out" / "labelling.xml").iter("Choices")
    assert [(each.get("value"), each.get("hotkey")) for each in choices] == [
        ("cat", "1"), ("dog", "2"), (NONE, "0"), (UNSURE, "u"),
    ]  # fmt: skip


def task(image: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    """A task of Label Studio's JSON."""
    return {"id": 7, "data": {"image": image}, "annotations": list(annotations)}


def choice(*choices: str, **fields: Any) -> dict[str, Any]:
    """An annotation of Label Studio's JSON."""
    result = [{"type": "choices", "from_name": "label", "to_name": "image", "value": {"choices": list(choices)}}]
    return {"was_cancelled": False, "result": result} | fields


def test_label_studio_skipped_unanswered_and_several_annotators(few: Path) -> None:
    local = "/data/local-files/?d=few/sub/d.png"
    found = given(
        [
            task("a.jpg", choice("cat", completed_by=3, lead_time=2.5, created_at="2026-11-27T01:00:00Z")),
            task("b.jpg", {"was_cancelled": True, "result": []}, ),
            task("sub/c.jpg", {"was_cancelled": False, "result": []}),
            task(local, choice("dog", completed_by={"email": "b@x"}, lead_time=1), choice("cat", completed_by=2),
                 choice("dog", completed_by=1, lead_time=2.5)),
        ],
        few,
    )  # fmt: skip
    assert {each.image: each.answer for each in found.labels} == {"a.jpg": "cat", "b.jpg": UNSURE, "sub/d.png": "dog"}
    assert found.labels[0] == Label(
        image="a.jpg", answer="cat", source="Label Studio given, annotator 3", time="2026-11-27T01:00:00Z", seconds=2.5
    )
    assert found.labels[2].source == "Label Studio given, annotator 1, annotator 2, annotator b@x"
    assert found.labels[2].seconds == 3.5
    assert found.warnings == []


def test_label_studio_annotators_who_disagree(few: Path) -> None:
    found = given([task("a.jpg", choice("cat"), choice("dog"))], few)
    assert [each.answer for each in found.labels] == [UNSURE]
    assert found.warnings == ["'a.jpg': annotators disagree (cat 1, dog 1): set aside as 'cannot tell'"]


def test_label_studio_json_min(few: Path) -> None:
    entries = [
        {"id": 1, "image": "/data/upload/1/x-a.jpg", "vlpure_path": "a.jpg", "label": "cat", "annotator": 1,
         "annotation_id": 1, "created_at": "2026-11-27T01:00:00Z", "lead_time": 1.5},
        {"id": 1, "image": "/data/upload/1/x-a.jpg", "vlpure_path": "a.jpg", "label": "cat", "annotator": 2,
         "annotation_id": 2, "created_at": "2026-11-27T02:00:00Z", "lead_time": 2},
        {"id": 2, "image": "/data/local-files/?d=few/sub/c.jpg", "label": {"choices": [NONE]}, "annotator": 2},
        {"id": 3, "image": "b.jpg", "annotator": 2},
    ]  # fmt: skip
    found = given(entries, few)
    assert {each.image: each.answer for each in found.labels} == {"a.jpg": "cat", "sub/c.jpg": NONE}
    assert found.labels[0].time == "2026-11-27T02:00:00Z"
    assert found.labels[0].seconds == 3.5


def test_cvat_predictions_are_no_labels(few: Path, tmp_path: Path) -> None:
    registry.write("cvat", tmp_path / "out", few, SIMPLE, [suggestion(1, "sub/c.jpg"), suggestion(2, "a.jpg")], {})
    path = tmp_path / "out" / "annotations.xml"
    assert answers(path, few) == {}
    # A person confirms one and changes the other; CVAT exports that as a ZIP file.
    text = path.read_text().replace('label="cat" source="auto"', 'label="dog" source="manual"', 1)
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.writestr("annotations.xml", text)
    assert answers(tmp_path / "export.zip", few) == {"sub/c.jpg": "dog"}
    assert json.loads((tmp_path / "out" / "labels.json").read_text())[2] == {
        "name": NONE, "type": "tag", "attributes": [],
    }  # fmt: skip


def test_cvat_shapes_are_ignored_and_counted(few: Path) -> None:
    text = '<annotations><image id="0" name="a.jpg"><box label="cat"/><tag label="dog"/></image></annotations>'
    found = given(text, few)
    assert [(each.image, each.answer) for each in found.labels] == [("a.jpg", "dog")]
    assert found.warnings == ["1 boxes and other shapes were ignored; only tags are read"]


def test_coco_several_boxes_of_one_class(few: Path) -> None:
    boxes = [{"id": n, "image_id": 4, "category_id": 9, "bbox": [0, 0, n, 1]} for n in (1, 2)]
    content = {
        "images": [{"id": 4, "file_name": "few/a.jpg"}, {"id": 5, "file_name": "b.jpg"}],
        "categories": [{"id": 9, "name": "dog"}], "annotations": boxes,
    }  # fmt: skip
    assert [(each.image, each.answer) for each in given(content, few).labels] == [("a.jpg", "dog")]


def test_fiftyone_classification_data_set(few: Path) -> None:
    content = {"classes": ["dog", "cat"], "labels": {"a": 1, "sub/c": {"label": "dog", "confidence": 0.5}, "b": None}}
    assert [(each.image, each.answer) for each in given(content, few).labels] == [
        ("a.jpg", "cat"),
        ("sub/c.jpg", "dog"),
    ]
    absolute = {"classes": None, "labels": {f"{few}/sub/d": "cat"}}
    assert [each.image for each in given(absolute | {"labels": {"sub/d": "cat"}}, few).labels] == ["sub/d.png"]
    write_photos(few, ("a.png",))
    assert complaint(json.dumps(content), few) == "label of 'a': 'a' may be 'a.jpg' or 'a.png'; rename one of them"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_csv_of_spreadsheets(separator: str, start: str, few: Path) -> None:
    rows = [("filepath", "ground_truth", "tags"), (f"{few}/a.jpg", "cat", ""), ("few\\sub\\c.jpg", " DOG "[:0], "")]
    rows += [("./b.jpg", "_ood_", "")]
    found = given(start + "\r\n".join(separator.join(row) for row in rows) + "\r\n", few)
    assert [(each.image, each.answer) for each in found.labels] == [("a.jpg", "cat"), ("b.jpg", NONE)]


def test_suggestions_filled_in_with_a_spreadsheet(few: Path, tmp_path: Path) -> None:
    registry.write("csv", tmp_path / "out", few, SIMPLE, [suggestion(1, "sub/c.jpg"), suggestion(2, "a.jpg")], {})
    path = tmp_path / "out" / "suggestions.csv"
    assert answers(path, few) == {}
    path.write_text(path.read_text().replace("1,sub/c.jpg,,", "1,sub/c.jpg,dog,"))
    assert answers(path, few) == {"sub/c.jpg": "dog"}


def test_spreadsheets_see_no_formula(folder: Path, tmp_path: Path) -> None:
    registry.write("csv", tmp_path / "out", folder, CLASSES, [suggestion(1, "=1+1.jpg", predicted=CLASSES[2])],
                   one_label_each(UGLY))  # fmt: skip
    for name in ("suggestions.csv", "labels.csv"):
        with (tmp_path / "out" / name).open(newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []


def test_images_dragged_into_class_folders(few: Path, tmp_path: Path) -> None:
    write_photos(few, ("x/same.jpg", "y/same.jpg", "z.jpg"))  # two files of one name, with contents of their own
    images = ["y/same.jpg", "x/same.jpg", "sub/c.jpg"]
    suggestions = [suggestion(rank, image) for rank, image in enumerate(images, start=1)]
    registry.write("folders", tmp_path / "out", few, SIMPLE, suggestions, {"a.jpg": label("a.jpg", "dog")})
    out = tmp_path / "out"
    (out / "_to_sort_" / "000001 same.jpg").rename(out / "cat" / "000001 same.jpg")
    (out / "_to_sort_" / "000002 same.jpg").rename(out / "_none_" / "same.jpg")
    (out / "_skip_" / ".DS_Store").touch()
    assert answers(out, few) == {"y/same.jpg": "cat", "x/same.jpg": NONE, "a.jpg": "dog"}
    (out / "cat" / "sub").mkdir()
    (out / "cat" / "sub" / "c.jpg").write_bytes(b"another picture")
    with pytest.raises(ValueError, match=r"has no image 'sub/c.jpg'; remove the entries or restore the images"):
        read(out, few)


def test_placing_falls_back_to_a_copy(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise OSError("another disk")

    monkeypatch.setattr(os, "link", no_links)
    registry.write("folders", tmp_path / "out", few, SIMPLE, [], {"a.jpg": label("a.jpg", "dog")})
    placed = tmp_path / "out" / "dog" / "a.jpg"
    assert placed.read_bytes() == (few / "a.jpg").read_bytes()
    assert placed.stat().st_ino != (few / "a.jpg").stat().st_ino


def test_names_in_the_other_form_of_unicode(few: Path) -> None:
    write_photos(few, (unicodedata.normalize("NFD", "é.jpg"),))
    found = given("image,label\n" + unicodedata.normalize("NFC", "é.jpg") + ",cat\n", few)
    assert [each.image for each in found.labels] == [unicodedata.normalize("NFD", "é.jpg")]


def test_an_unpacked_export_is_found_in_its_folder(few: Path, tmp_path: Path) -> None:
    registry.write("coco", tmp_path / "out", few, SIMPLE, [], {"a.jpg": label("a.jpg", "dog")})
    assert answers(tmp_path / "out", few) == {"a.jpg": "dog"}
    shutil.copy(tmp_path / "out" / "labels.json", tmp_path / "out" / "labels.csv")
    with pytest.raises(ValueError, match="has neither a folder of one of the classes nor exactly one of the files"):
        read(tmp_path / "out", few)


BOMB = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;">]><annotations>&y;</annotations>'
COCO = {"images": [], "categories": [], "annotations": [{"id": 3, "image_id": 1, "category_id": 1}]}


ELSEWHERE = (
    "this is about another folder: FOLDER has none of its 1 images (the first is 'FIRST'); paths must be relative to "
    "FOLDER, or absolute below it"
)
WRONG: dict[str | bytes, str] = {
    "": "this file is empty",
    BOMB: "this XML file has a document type (<!DOCTYPE>), which is not read; remove it",
    "<annotations><image": "this XML file is cut or damaged (unclosed token: line 1, column 13)",
    "<svg/>": "this XML file begins with <svg>; only CVAT's, with <annotations>, is read",
    '[{"data": {"image": "a.j': "this JSON file is cut or damaged at line 1 (Unterminated string starting at)",
    "[" * 100_000: "this JSON file is nested too deeply",
    '{"a": 1}': "this JSON file is of no known kind; Label Studio's, COCO's and FiftyOne's are read",
    json.dumps(COCO): "annotation 3 is about image 1 and category 1, and one of them is missing",
    "image,label\na.jpg,cat\nb.jpg": "line 3 has 1 of 2 fields; the file is cut or damaged",
    'image,label\na.jpg,"ca': "line 2: unexpected end of data; the file is cut or damaged",
    "image,label,seconds\na.jpg,cat,long": "line 2: the seconds are 'long', not a number",
    "name,label\na.jpg,cat\n": (
        "this is no label file of a kind known here; of a CSV the first line must name the columns 'vlpure_path' (or "
        "image, path, filepath, file, filename)"
    ),
    "image,label\na.jpg,cta\n": (
        "line 2: unknown class 'cta' (did you mean 'cat'?); known: cat, dog, none of my classes, cannot tell"
    ),
    "image,label\na.jpg,cat\nfew/a.jpg,dog\n": (
        "two labels for 'a.jpg': 'cat' (line 2) and 'dog' (line 3); keep one of them"
    ),
    "image,label\na.jpg,cat\nx.jpg,cat\ny.jpg,cat\n": (
        "FOLDER has no image 'x.jpg' and 1 more; remove the entries or restore the images"
    ),
    "image,label\nother/a.jpg,cat\n": ELSEWHERE.replace("FIRST", "other/a.jpg"),
    "image,label\n../few/a.jpg,cat\n": ELSEWHERE.replace("FIRST", "../few/a.jpg"),
    json.dumps([task("a.jpg", choice("cat", "dog"))]): "task 7 has 2 choices (cat, dog); one is expected",
    json.dumps([{"data": {"text": "x"}}]): "task 1 names no image (neither 'vlpure_path' nor 'image' in its data)",
    '<annotations><image id="0" name="a.jpg"><tag label="cat"/><tag label="dog"/></image></annotations>': (
        "two labels for 'a.jpg': 'cat' (image 0) and 'dog' (image 0); keep one of them"
    ),
    json.dumps({"classes": ["cat"], "labels": {"a": 1}}): (
        "label of 'a' is class number 1, which the file does not list"
    ),
    json.dumps({"classes": ["cat"], "labels": {"a": ["cat", "dog"]}}): "label of 'a': 2 labels; one is expected",
    "image;label\nä.jpg;cat\n".encode("latin-1"): (
        "this is neither JSON, XML, a ZIP file nor a CSV in UTF-8; a spreadsheet saves one as 'CSV UTF-8'"
    ),
}


@pytest.mark.parametrize(("content", "expected"), WRONG.items())
def test_one_line_for_what_is_wrong(content: str | bytes, expected: str, few: Path) -> None:
    assert complaint(content, few) == expected.replace("FOLDER", str(few))


def test_a_zip_file_that_is_no_export(few: Path) -> None:
    with zipfile.ZipFile(few.parent / "given.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    message = complaint((few.parent / "given.zip").read_bytes(), few)
    assert message == "this ZIP file must hold exactly one of annotations.xml, labels.json, labels.csv, result.json"


def test_missing_files_and_unknown_formats(few: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file or folder of labels"):
        read(tmp_path / "absent.csv", few)
    with pytest.raises(ValueError, match=r"unknown format 'cvta' \(did you mean 'cvat'\?\)"):
        registry.write("cvta", tmp_path, few, SIMPLE, [], {})
    with pytest.raises(ValueError, match=r"the name of .*/bad\\xff.jpg is not UTF-8, which csv cannot hold; rename it"):
        registry.write("csv", tmp_path, few, SIMPLE, [suggestion(1, "bad\udcff.jpg")], {})


def test_every_cut_of_a_file_is_refused_or_whole(few: Path, tmp_path: Path) -> None:
    labels = {image: label(image, NONE) for image in images_of(few)}
    for name in WRITERS:
        registry.write(name, tmp_path / name, few, SIMPLE, [], labels)
    for name in ("label-studio", "cvat", "coco"):
        content = (tmp_path / name / LABEL_FILES[name]).read_bytes().rstrip()
        for end in range(0, len(content), 7):
            complaint(content[:end], few)


def test_xml_of_an_honest_document() -> None:
    assert parse_xml(b'<a x="1&amp;2">t&lt;</a>', Path("f")).text == "t<"
