"""Tiny-ImageNet from small files in its original layout, and from the real ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.registry import open_data_set
from data.sources.tiny_imagenet import _CURATED_NAMES
from tests.data.published_files import WNIDS, write_tiny_imagenet


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Three classes with two training images and one validation image each; every image has its own grey level."""
    return write_tiny_imagenet(tmp_path / "root")


def test_classes_are_sorted_and_have_curated_names(tiny: Path) -> None:
    data_set = open_data_set("tiny-imagenet", root=tiny.parent)
    assert data_set.class_names == ("goldfish", "European fire salamander", "black widow spider")
    assert data_set.image_size == 64
    assert data_set.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data_set.train.images.load(np.arange(6))[:, 5, 5, 0].tolist() == [100, 101, 110, 111, 120, 121]
    assert data_set.mean == (0.4802, 0.4481, 0.3975)
    assert data_set.std == (0.2764, 0.2689, 0.2816)


def test_names_of_the_archive_are_the_first_synonyms(tiny: Path) -> None:
    curated = open_data_set("tiny-imagenet", root=tiny.parent)
    data_set = open_data_set("tiny-imagenet:words", root=tiny.parent)
    assert data_set.name == "tiny-imagenet:words"
    assert data_set.class_names == ("goldfish", "European fire salamander", "black widow")
    assert data_set.train.images.fingerprint == curated.train.images.fingerprint
    assert data_set.fingerprint != curated.fingerprint


def test_curated_names_need_no_words(tiny: Path) -> None:
    (tiny / "words.txt").unlink()
    assert open_data_set("tiny-imagenet", root=tiny.parent).num_classes == 3
    with pytest.raises(ValueError, match=r"words\.txt: no such file; .* use tiny-imagenet, which does not need it"):
        open_data_set("tiny-imagenet:words", root=tiny.parent)


def test_curated_names_are_200_plain_and_distinct() -> None:
    lines = [line.split("\t") for line in _CURATED_NAMES.read_text().splitlines()]
    assert [wnid for wnid, _ in lines] == sorted({wnid for wnid, _ in lines})
    names = [name for _, name in lines]
    assert len({name.lower() for name in names}) == len(names) == 200
    assert all(
        name == " ".join(name.split()) and name.replace("'", "").replace("-", "").replace(" ", "").isalpha()
        for name in names
    )


@pytest.mark.parametrize("layout", ["val/{wnid}", "val/{wnid}/images", "val/images/{wnid}"])
def test_re_arranged_validation_images_are_the_same_data_set(tiny: Path, layout: str) -> None:
    published = open_data_set("tiny-imagenet", root=tiny)
    rows = [line.split("\t")[:2] for line in (tiny / ANNOTATIONS).read_text().splitlines()]
    for name, wnid in rows:
        folder = tiny / layout.format(wnid=wnid)
        folder.mkdir(parents=True, exist_ok=True)
        (tiny / "val" / "images" / name).rename(folder / name)
    (tiny / ANNOTATIONS).unlink()
    re_arranged = open_data_set("tiny-imagenet", root=tiny)
    assert re_arranged.fingerprint == published.fingerprint
    assert re_arranged.test.labels.tolist() == [2, 0, 1]


def test_validation_labels_come_from_the_annotations(tiny: Path) -> None:
    test = open_data_set("tiny-imagenet", root=tiny).test
    assert test.labels.tolist() == [2, 0, 1]
    grey = test.images.load(np.arange(3))[:, 5, 5]
    assert grey.tolist() == [[202] * 3, [200] * 3, [201] * 3]


def test_order_of_the_annotations_does_not_matter(tiny: Path) -> None:
    fingerprint = open_data_set("tiny-imagenet", root=tiny).fingerprint
    path = tiny / "val" / "val_annotations.txt"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert open_data_set("tiny-imagenet", root=tiny).fingerprint == fingerprint


def _edit(relative: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        text = (root / relative).read_text()
        assert old in text
        (root / relative).write_text(text.replace(old, new))

    return edit


def _remove(relative: str) -> Callable[[Path], None]:
    def remove(root: Path) -> None:
        path = root / relative
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    return remove


def _write(relative: str, content: bytes) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / relative).write_bytes(content)

    return write


def _move(old: str, new: str) -> Callable[[Path], None]:
    def move(root: Path) -> None:
        (root / new).parent.mkdir(exist_ok=True)
        (root / old).rename(root / new)

    return move


def _all(*edits: Callable[[Path], None]) -> Callable[[Path], None]:
    def edit_all(root: Path) -> None:
        for edit in edits:
            edit(root)

    return edit_all


ANNOTATIONS = "val/val_annotations.txt"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_remove("train"), r"tiny-imagenet-200/train: no such file or folder; `python -m data fetch tiny-imagenet"),
        (_remove("wnids.txt"), r"wnids\.txt: no such file or folder"),
        (_remove("val/images"), r"val/images: no such file or folder"),
        (_remove(ANNOTATIONS), r"val_annotations\.txt: no such file or folder"),
        (_remove("val/images/val_1.JPEG"), r"val_annotations\.txt, line 2: it names val_1\.JPEG, which is not in"),
        (_remove(f"train/{WNIDS[1]}"), rf"train/{WNIDS[1]}: no such folder, but wnids\.txt names it"),
        (_remove(f"train/{WNIDS[1]}/images"), rf"train/{WNIDS[1]}/images: no images of this class"),
        (_edit(ANNOTATIONS, WNIDS[1], "n99999999"), r"line 3: 'n99999999' is not a class of train/"),
        (_edit(ANNOTATIONS, "val_1.JPEG", "val_0.JPEG"), r"line 2: val_0\.JPEG was named before"),
        (_edit(ANNOTATIONS, "val_1.JPEG\tn01443537\t0\t32\t44\t62\n", ""), r"no line for val/images/val_1\.JPEG"),
        (_edit(ANNOTATIONS, WNIDS[1], WNIDS[0]), rf"no image of class '{WNIDS[1]}'"),
        (
            _edit(ANNOTATIONS, "val_0.JPEG", "../../wnids.txt"),
            r"line 1: it names \.\./\.\./wnids\.txt, which is not in",
        ),
        (_move("val/images/val_1.JPEG", f"val/{WNIDS[0]}/1.JPEG"), r"val/images: images are left here next to class"),
        (_move("val/images", f"val/{WNIDS[0]}"), rf"val: no image of class '{WNIDS[1]}'"),
        (
            _all(
                _move("val/images/val_0.JPEG", f"val/images/{WNIDS[0]}/val_0.JPEG"),
                _move("val/images/val_1.JPEG", "val/images/n99999999/val_1.JPEG"),
            ),
            r"images/n99999999: 'n99999999' is not a class of train/",
        ),
        (
            _all(
                _move("val/images/val_0.JPEG", f"val/{WNIDS[0]}/a.JPEG"),
                _move("val/images", f"val/{WNIDS[1]}"),
                _move(f"val/{WNIDS[1]}/val_1.JPEG", f"val/{WNIDS[1]}/a.JPEG"),
            ),
            rf"val/{WNIDS[1]}/a\.JPEG: val/{WNIDS[0]}/a\.JPEG has the same name",
        ),
        (
            _all(_move(f"train/{WNIDS[1]}", "train/n99999999"), _edit("wnids.txt", WNIDS[1], WNIDS[0])),
            "tiny_imagenet_names.txt: no name for class 'n99999999', which",
        ),
        (_write("wnids.txt", b"\xff\xfe\x00"), r"wnids\.txt: this is not a text file"),
        (_write("val/images/val_0.JPEG", b""), r"val_0\.JPEG: this image file is empty"),
        (_write(f"train/{WNIDS[0]}/images/x.JPEG", b"x"), r"x\.JPEG: this file is not a JPEG or PNG image"),
    ],
)
def test_bad_archives_are_refused(tiny: Path, spoil: Callable[[Path], None], message: str, cache: Path) -> None:
    spoil(tiny)
    with pytest.raises(ValueError, match=message):
        open_data_set("tiny-imagenet", root=tiny.parent)
    assert not list(cache.rglob("meta.json"))


@pytest.mark.data
@pytest.mark.slow
def test_real_subset(real_images: Path) -> None:
    data_set = open_data_set("tiny-imagenet", root=real_images)
    assert data_set.num_classes == len(set(data_set.class_names)) == 200
    assert data_set.class_names[0] == "goldfish"
    assert data_set.class_names[199] == "acorn"
    assert data_set.train.class_sizes(200).tolist() == [100] * 200
    assert data_set.test.class_sizes(200).tolist() == [10] * 200
    greys = [np.all(np.ptp(data_set.train.images.load(np.array([index])), axis=3) == 0) for index in range(2000)]
    assert 0 < sum(greys) < 200
    words = open_data_set("tiny-imagenet:words", root=real_images)
    assert words.class_names[data_set.class_names.index("construction crane")] == "crane"
    assert words.train.images.fingerprint == data_set.train.images.fingerprint
    assert words.num_classes == len(set(words.class_names)) == 200


@pytest.mark.data
def test_curated_names_are_of_the_published_classes(real_images: Path) -> None:
    wnids = [line.partition("\t")[0] for line in _CURATED_NAMES.read_text().splitlines()]
    assert wnids == sorted(path.name for path in (real_images / "tiny-imagenet-200" / "train").iterdir())
