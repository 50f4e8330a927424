"""CIFAR-10 and CIFAR-100 from small files in the published form."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.imageset import ArrayImages
from data.registry import open_data_set
from data.sources.cifar import _CIFAR10, _CIFAR100, survey_cifar10
from tests.data.published_files import cifar_rows, write_cifar10

Python2Pickle = Callable[[Any], bytes]
WriteCifar = Callable[[], Path]


@pytest.fixture
def cifar10(tmp_path: Path, python2_pickle: Python2Pickle) -> Path:
    """A data root with a CIFAR-10 of 4 images a batch."""
    return write_cifar10(tmp_path / "root", python2_pickle)


@pytest.fixture
def cifar100(tmp_path: Path, python2_pickle: Python2Pickle) -> Path:
    """A data root with a CIFAR-100 of 3 training images and 1 test image."""
    folder = tmp_path / "root" / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, fine in (("train", [99, 0, 58]), ("test", [58])):
        batch = {"fine_labels": fine, "coarse_labels": [1] * len(fine), "data": cifar_rows(len(fine), 7)}
        (folder / name).write_bytes(python2_pickle(batch))
    names = [f"class_{number}" for number in range(100)]
    names[58] = "pickup_truck"
    (folder / "meta").write_bytes(python2_pickle({"fine_label_names": names, "coarse_label_names": ["vehicles"] * 20}))
    return folder


def test_cifar10(cifar10: Path) -> None:
    data_set = open_data_set("cifar10", root=cifar10.parent)
    assert data_set.class_names[0] == "airplane"
    assert data_set.class_names[9] == "truck"
    assert data_set.train.labels.tolist() == [label for batch in range(5) for label in (batch, 9, 0, batch)]
    assert data_set.test.labels.tolist() == [5, 9, 0, 5]
    assert data_set.mean == (0.4914, 0.4822, 0.4465)
    assert data_set.std == (0.247, 0.2435, 0.2616)
    assert isinstance(data_set.train.images, ArrayImages)
    assert isinstance(data_set.train.images.pixels_NHWC, np.memmap)
    # Row 3, column 5 of the second image of the third batch.
    pixel = data_set.train.images.load(np.array([9]))[0, 3, 5]
    assert pixel.tolist() == [cifar_rows(4, 2)[1, channel * 1024 + 3 * 32 + 5] for channel in range(3)]


def test_cifar100_uses_the_fine_labels(cifar100: Path) -> None:
    data_set = open_data_set("cifar100", root=cifar100.parent)
    assert data_set.num_classes == 100
    assert data_set.train.labels.tolist() == [99, 0, 58]
    assert data_set.class_names[data_set.test.labels[0]] == "pickup_truck"
    assert data_set.mean == (0.5071, 0.4867, 0.4408)
    assert data_set.std == (0.2675, 0.2565, 0.2761)


def test_the_folder_itself_and_the_variable_serve_as_root(cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprint = open_data_set("cifar10", root=cifar10.parent).fingerprint
    assert open_data_set("cifar10", root=cifar10).fingerprint == fingerprint
    monkeypatch.setenv("VLPURE_DATA", str(cifar10.parent))
    assert open_data_set("cifar10").fingerprint == fingerprint


def test_files_are_read_once_unless_they_change(
    cifar10: Path, python2_pickle: Python2Pickle, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = open_data_set("cifar10", root=cifar10).fingerprint
    with monkeypatch.context() as patched:
        patched.setattr("data.sources.cifar.load_pickle", None)
        assert open_data_set("cifar10", root=cifar10).fingerprint == fingerprint
    batch = {"labels": [1, 1, 1, 1], "data": cifar_rows(4, 50)}
    (cifar10 / "data_batch_3").write_bytes(python2_pickle(batch))
    assert open_data_set("cifar10", root=cifar10).train.labels.tolist()[8:12] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "no array"}, "data_batch_2: 'data' is not an array of 3072 bytes per image"),
        ({"data": np.zeros((4, 1024), dtype=np.uint8)}, "'data' is not an array of 3072 bytes per image"),
        ({"data": np.zeros((4, 3072), dtype=np.int32)}, "'data' is not an array of 3072 bytes per image"),
        ({"labels": [0, 1, 2]}, "'labels' does not give one label for each of 4 images"),
        ({"labels": "none"}, "'labels' does not give one label"),
        ({"labels": [0, 1, 2, 10]}, r"label 10 is not one of the 10 classes 0\.\.9"),
        ({"labels": [0, 1, 2, "cat"]}, "label 'cat' is not one of the 10 classes"),
    ],
)
def test_bad_batches_are_refused(
    cifar10: Path, python2_pickle: Python2Pickle, change: dict[str, Any], message: str, cache: Path
) -> None:
    batch = {"labels": [0, 1, 2, 3], "data": cifar_rows(4, 0)} | change
    (cifar10 / "data_batch_2").write_bytes(python2_pickle(batch))
    with pytest.raises(ValueError, match=message):
        open_data_set("cifar10", root=cifar10)
    assert not list(cache.rglob("meta.json"))


def test_truncated_batch_is_named(cifar10: Path) -> None:
    content = (cifar10 / "test_batch").read_bytes()
    (cifar10 / "test_batch").write_bytes(content[:-100])
    with pytest.raises(ValueError, match="test_batch: this is not the published data file"):
        open_data_set("cifar10", root=cifar10)


def test_names_that_are_no_list_are_refused(cifar10: Path, python2_pickle: Python2Pickle) -> None:
    (cifar10 / "batches.meta").write_bytes(python2_pickle({"label_names": "airplane"}))
    with pytest.raises(ValueError, match=r"batches\.meta: no list of names under 'label_names'"):
        open_data_set("cifar10", root=cifar10)


def test_missing_file_is_named_with_where_to_get_it(cifar10: Path, cifar100: Path) -> None:
    (cifar10 / "data_batch_4").unlink()
    root = cifar10.parent
    how = rf"`python -m data fetch cifar10 --data-root {root}` downloads cifar-10-python\.tar\.gz \(170 MB\), or takes"
    with pytest.raises(ValueError, match=rf"cifar-10-batches-py/data_batch_4: no such file; {how} it from {root}, and"):
        open_data_set("cifar10", root=root)
    (cifar100 / "meta").unlink()
    with pytest.raises(ValueError, match=r"cifar-100-python/meta: no such file; `python -m data fetch cifar100 --data"):
        open_data_set("cifar100", root=cifar100)


def test_without_a_root_the_variable_is_named() -> None:
    message = "cifar10: the folder of the data sets is not set; give it as data root, or in VLPURE_DATA; `python -m"
    with pytest.raises(ValueError, match=message):
        open_data_set("cifar10")


def test_checksums_are_the_ones_torchvision_checks() -> None:
    """Read from its source, which is quicker than to import it."""
    torchvision = importlib.util.find_spec("torchvision")
    assert torchvision is not None
    assert torchvision.origin is not None
    source = (Path(torchvision.origin).parent / "datasets" / "cifar.py").read_text()
    for ours in (_CIFAR10, _CIFAR100):
        (archive,) = ours.package.files
        assert archive.algorithm == "md5"
        assert f'base_folder = "{archive.folder}"' in source
        assert f'url = "{archive.url}"\n    filename = "{archive.name}"\n    tgz_md5 = "{archive.checksum}"' in source
        *batches, meta_md5 = ours.md5
        for name, md5 in zip((*ours.train_files, ours.test_file), batches, strict=True):
            assert f'["{name}", "{md5}"]' in source
        assert (
            f'"filename": "{ours.meta_file}",\n        "key": "{ours.names_key}",\n        "md5": "{meta_md5}"'
            in source
        )


def test_survey_tells_published_files_from_others(cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    survey = survey_cifar10(cifar10)
    assert (survey.num_train, survey.num_test, survey.where) == (20, 4, str(cifar10))
    assert survey.note.startswith("NOT the published files: data_batch_1, data_batch_2, ")
    md5 = tuple(hashlib.md5((cifar10 / name).read_bytes()).hexdigest() for name in _CIFAR10.files)
    monkeypatch.setattr("data.sources.cifar._CIFAR10", replace(_CIFAR10, md5=md5))
    assert survey_cifar10(cifar10).note == "the published files, by their checksums"
