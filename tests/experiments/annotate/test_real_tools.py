"""Round trips through the real tools, each installed for an interpreter of its own.

`VLPURE_TEST_LABEL_STUDIO`, `VLPURE_TEST_DATUMARO` and `VLPURE_TEST_FIFTYONE` name Python interpreters that have the
tool (Label Studio 1.23.0, Datumaro 1.13.12 and FiftyOne 1.22.1 were tried); without one its tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.annotate.answers.state import NONE, UNSURE, Label
from experiments.annotate.formats import registry
from tests.experiments.annotate.photos import CLASSES, label, suggestion, write_photos

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

NAMES = ("a b.jpg", "ä/ü.png", "sub/1.jpg", "2 100%.png", "x,y;#?.jpg", "日本 ' & <x>.jpg")
"""Datumaro and FiftyOne name images without their suffix, so that 1.jpg and 1.png would be one image to them."""
ANSWERS = (*CLASSES, NONE, UNSURE)


def interpreter(tool: str) -> str:
    """The interpreter that has a tool; skips the test without one."""
    variable = f"VLPURE_TEST_{tool}"
    if variable not in os.environ:
        pytest.skip(f"{variable} names no interpreter that has this tool")
    return os.environ[variable]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_photos(tmp_path / "my photos", NAMES)
    return tmp_path / "my photos"


def labels_of(folder: Path) -> dict[str, Label]:
    return {image: label(image, answer) for image, answer in zip(NAMES, ANSWERS, strict=True)}


def answers(path: Path, folder: Path, classes: tuple[str, ...] = CLASSES) -> dict[str, str]:
    images = [each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()]
    found = registry.read(path, folder=folder, classes=classes, images=images)
    assert found.warnings == []
    return {each.image: each.answer for each in found.labels}


def run(python: str, script: str, *words: object, home: Path) -> str:
    """What a script prints in the tool's interpreter."""
    outcome = subprocess.run(
        [python, "-c", script, *map(str, words)], capture_output=True, text=True, check=False, timeout=300,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    return outcome.stdout


DATUMARO = """
import json, sys
import datumaro
source, kind, target = sys.argv[1:]
data = datumaro.Dataset.import_from(source, kind)
names = data.categories()[datumaro.AnnotationType.label]
for item in data:
    print(json.dumps([item.id, [names[each.label].name for each in item.annotations]]))
data.export(target, kind, save_media=False)
"""


@pytest.mark.parametrize(
    ("name", "kind", "given", "returned"),
    [
        ("cvat", "cvat", "labels.xml", "labels.xml"),
        ("coco", "coco_instances", "annotations/instances_default.json", "annotations/instances_default.json"),
    ],
)
def test_datumaro(name: str, kind: str, given: str, returned: str, folder: Path, tmp_path: Path) -> None:
    python, labels = interpreter("DATUMARO"), labels_of(folder)
    registry.write(name, tmp_path / "out", folder, CLASSES, [], labels)
    (tmp_path / "in" / given).parent.mkdir(parents=True)
    shutil.copy(tmp_path / "out" / registry.LABEL_FILES[name], tmp_path / "in" / given)
    (tmp_path / "in" / "images").symlink_to(folder)
    printed = run(python, DATUMARO, tmp_path / "in", kind, tmp_path / "back", home=tmp_path)
    read = dict(json.loads(line) for line in printed.splitlines())
    assert read == {image.rpartition(".")[0]: [each.answer] for image, each in labels.items()}
    assert answers(tmp_path / "back" / returned, folder) == {image: each.answer for image, each in labels.items()}


def test_datumaro_sees_the_suggestions_of_cvat_in_their_order(folder: Path, tmp_path: Path) -> None:
    python = interpreter("DATUMARO")
    suggestions = [suggestion(rank, image, predicted=CLASSES[1]) for rank, image in enumerate(NAMES, start=1)]
    registry.write("cvat", tmp_path / "out", folder, CLASSES, suggestions, {})
    (tmp_path / "in").mkdir()
    shutil.copy(tmp_path / "out" / "annotations.xml", tmp_path / "in")
    with zipfile.ZipFile(tmp_path / "out" / "images.zip") as archive:
        archive.extractall(tmp_path / "in" / "images")
    printed = run(python, DATUMARO, tmp_path / "in", "cvat", tmp_path / "back", home=tmp_path)
    assert [json.loads(line) for line in printed.splitlines()] == [
        [f"{rank:06d}/{image.rpartition('.')[0]}", [CLASSES[1]]] for rank, image in enumerate(NAMES, start=1)
    ]


FIFTYONE = """
import json, sys
import fiftyone as fo
import fiftyone.utils.csv as fouc
import fiftyone.utils.data as foud
out, folder, folders = sys.argv[1:]
with fouc.CSVDatasetImporter(labels_path=f"{out}/labels.csv") as importer:
    print(json.dumps([[sample.filepath, sample.ground_truth] for sample in importer]))
exporter = foud.FiftyOneImageClassificationDatasetExporter(f"{out}/back", export_media=False, rel_dir=folder)
with exporter, foud.ImageClassificationDirectoryTreeImporter(folders, compute_metadata=False) as importer:
    found = [[path, label.label] for path, _, label in importer]
    for path, name in found:
        exporter.export_sample(path.replace(folders, folder).replace(f"/{name}/", "/"), fo.Classification(label=name))
print(json.dumps(found))

# load.py as it is, with a data set that needs no database.
class Samples:
    def __init__(self, *_, **__): self.samples = []; Samples.last = self
    def add_sample(self, sample): self.samples.append(sample)
    def match(self, _):
        chosen = Samples(); chosen.samples = [each for each in self.samples if each.ground_truth]; return chosen
    def values(self, paths):
        return [[each.filepath if p == "filepath" else each.ground_truth.label for each in self.samples] for p in paths]
    def __len__(self): return len(self.samples)
    def export(self, labels_path, dataset_type, **options):
        with fouc.CSVDatasetExporter(labels_path=labels_path, **options) as exporter:
            exporter.export_samples(self, progress=False)

fo.Dataset = Samples
names = {"__file__": f"{out}/load.py"}
exec(open(f"{out}/load.py").read(), names)
for sample in names["dataset"].samples[:2]:
    assert sample.prediction.confidence == 0.5 + sample.rank / 1000
    sample["ground_truth"] = fo.Classification(label="dog")
names["export"]()
"""


def test_fiftyone(folder: Path, tmp_path: Path) -> None:
    python, labels = interpreter("FIFTYONE"), labels_of(folder)
    out, folders = tmp_path / "out", tmp_path / "folders"
    suggestions = [suggestion(rank, image) for rank, image in enumerate(("sub/1.jpg", *NAMES[:2]), start=1)]
    registry.write("fiftyone", out, folder, CLASSES, suggestions, {})
    registry.write("fiftyone", tmp_path / "labelled", folder, CLASSES, [], labels)
    shutil.copy(tmp_path / "labelled" / "labels.csv", out / "labels.csv")
    sorted_ = {image: label(image, ("cat", "dog", NONE)[place % 3]) for place, image in enumerate(NAMES)}
    registry.write("folders", folders, folder, ("cat", "dog"), [], sorted_)
    printed = run(python, FIFTYONE, out, folder, folders, home=tmp_path).splitlines()
    in_csv, in_folders = (json.loads(line) for line in printed[-2:])
    assert dict(in_csv) == {f"{folder}/{image}": each.answer for image, each in labels.items()}
    words = {"cat": "cat", "dog": "dog", "_none_": NONE}
    by_path = {
        f"{folders}/{'_none_' if e.answer == NONE else e.answer}/{image}": e.answer for image, e in sorted_.items()
    }
    assert {path: words[name] for path, name in in_folders} == by_path
    assert answers(out / "back" / "labels.json", folder, ("cat", "dog")) == {i: e.answer for i, e in sorted_.items()}
    assert answers(out / "answers.csv", folder, ("cat", "dog")) == {"sub/1.jpg": "dog", NAMES[0]: "dog"}


TOKEN = "0123456789abcdef0123456789abcdef01234567"


class LabelStudio:
    """A Label Studio of its own, on SQLite at localhost."""

    def __init__(self, python: str, root: Path, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = (home / "label-studio.log").open("w")
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(home), "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(root), "COLLECT_ANALYTICS": "False",
            "LATEST_VERSION_CHECK": "0",
        }  # fmt: skip
        words = ["start", "--no-browser", "--data-dir", str(home / "data"), "--port", str(port), "--internal-host",
                 "127.0.0.1", "--username", "a@b.example", "--password", "password1", "--user-token", TOKEN,
                 "--enable-legacy-api-token"]  # fmt: skip
        self.process = subprocess.Popen(
            [str(Path(python).with_name("label-studio")), *words], env=environment, cwd=home, stdout=self._log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        end = time.monotonic() + 300
        while not self._answers():
            assert self.process.poll() is None, (home / "label-studio.log").read_text()[-3000:]
            assert time.monotonic() < end, (home / "label-studio.log").read_text()[-3000:]
            time.sleep(1)

    def _answers(self) -> bool:
        try:
            self.ask("/api/projects")
        except (OSError, urllib.error.URLError):
            return False
        return True

    def ask(self, path: str, body: Any = None) -> bytes:
        """What the server answers to a GET, or to a POST of JSON."""
        request = urllib.request.Request(
            f"{self.url}{path}", data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Token {TOKEN}", "Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())

    def json(self, path: str, body: Any = None) -> Any:
        """The same, as JSON."""
        return json.loads(self.ask(path, body))

    def project(self, out: Path, folder: Path) -> int:
        """A project with the labelling configuration of an export, and the folder as local storage."""
        config = (out / "labelling.xml").read_text()
        number = self.json("/api/projects", {"title": "photos", "label_config": config})["id"]
        storage = {"project": number, "path": str(folder), "use_blob_urls": True, "title": "photos"}
        self.json("/api/storages/localfiles", storage)
        return int(number)

    def tasks(self, project: int) -> list[dict[str, Any]]:
        """All tasks in their order."""
        answer = self.json(f"/api/tasks?project={project}&page_size=100&fields=all")
        return list(answer["tasks"] if isinstance(answer, dict) else answer)

    def export(self, project: int, kind: str, path: Path) -> Path:
        """Write an export of the project to a file."""
        path.write_bytes(self.ask(f"/api/projects/{project}/export?exportType={kind}"))
        return path

    def end(self) -> None:
        """End the server."""
        self.process.terminate()
        self.process.wait(timeout=30)
        self._log.close()


@pytest.fixture
def label_studio(folder: Path, tmp_path: Path) -> Iterator[LabelStudio]:
    (tmp_path / "home").mkdir()
    started = LabelStudio(interpreter("LABEL_STUDIO"), folder.parent, tmp_path / "home")
    yield started
    started.end()


def test_label_studio(label_studio: LabelStudio, folder: Path, tmp_path: Path) -> None:
    order = NAMES[::-1]
    suggestions = [suggestion(rank, image, predicted=CLASSES[2]) for rank, image in enumerate(order, start=1)]
    registry.write("label-studio", tmp_path / "out", folder, CLASSES, suggestions, {})
    project = label_studio.project(tmp_path / "out", folder)
    label_studio.json(f"/api/projects/{project}/import", json.loads((tmp_path / "out" / "tasks.json").read_text()))
    tasks = label_studio.tasks(project)
    assert [task["data"]["vlpure_path"] for task in tasks] == list(order)
    assert [task["total_predictions"] for task in tasks] == [1] * len(order)
    for task in tasks:  # it serves the very images
        assert label_studio.ask(task["data"]["image"]) == (folder / task["data"]["vlpure_path"]).read_bytes()
    given = dict(zip(order, (*CLASSES, NONE, UNSURE), strict=True))
    for task in tasks:
        image = task["data"]["vlpure_path"]
        result = [{"id": "x", "type": "choices", "from_name": "label", "to_name": "image",
                   "value": {"choices": [given[image]]}}]  # fmt: skip
        skipped = given[image] == UNSURE
        label_studio.json(
            f"/api/tasks/{task['id']}/annotations/",
            {"result": [] if skipped else result, "was_cancelled": skipped, "lead_time": 2.5},
        )
    assert answers(label_studio.export(project, "JSON", tmp_path / "export.json"), folder) == given
    without_skipped = {image: answer for image, answer in given.items() if answer != UNSURE}
    assert answers(label_studio.export(project, "JSON_MIN", tmp_path / "min.json"), folder) == without_skipped
    assert answers(label_studio.export(project, "CSV", tmp_path / "export.csv"), folder) == without_skipped
    (first, *_) = registry.read(tmp_path / "export.json", folder=folder, classes=CLASSES, images=NAMES).labels
    assert first.seconds == 2.5
    assert first.source.startswith("Label Studio export.json, annotator ")
    # Our labels as annotated tasks, in and out again.
    labels = labels_of(folder)
    registry.write("label-studio", tmp_path / "labels", folder, CLASSES, [], labels)
    second = label_studio.project(tmp_path / "labels", folder)
    label_studio.json(f"/api/projects/{second}/import", json.loads((tmp_path / "labels" / "labels.json").read_text()))
    back = answers(label_studio.export(second, "JSON", tmp_path / "back.json"), folder)
    assert back == {image: each.answer for image, each in labels.items()}
