"""Image folders: what is read, what is refused, what is kept in the cache."""

from __future__ import annotations

import csv
import os
import shutil
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.imageset import ArrayImages, DataSet, PathImages
from data.registry import open_data_set
from data.splits.ratios import draw_split

WriteFolder = Callable[..., Path]


def _open(root: Path) -> DataSet:
    return open_data_set(f"folder:{root}")


def _pixels_of(path: Path) -> list[list[list[int]]]:
    pixels: list[list[list[int]]] = np.asarray(Image.open(path)).tolist()
    return pixels


def test_classes_and_images_are_sorted_by_name(write_folder: WriteFolder) -> None:
    root = write_folder(classes=("zebra", "ant", "Bee"), num_train=3, num_test=1)
    data_set = _open(root)
    assert data_set.class_names == ("Bee", "ant", "zebra")
    assert data_set.name == f"folder:{root}"
    assert data_set.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data_set.test.labels.tolist() == [0, 1, 2]
    assert data_set.pretrain is None
    loaded = data_set.train.images.load(np.array([8, 3]))
    assert loaded[0].tolist() == _pixels_of(root / "train" / "zebra" / "2.png")
    assert loaded[1].tolist() == _pixels_of(root / "train" / "ant" / "0.png")
    assert data_set.test.images.load(np.array([1]))[0].tolist() == _pixels_of(root / "test" / "ant" / "0.png")


def test_a_class_without_test_images_keeps_the_numbers_of_the_others(write_folder: WriteFolder) -> None:
    root = write_folder(classes=("ant", "bee", "_ood_", "zebra"), num_train=2, num_test=1)
    shutil.rmtree(root / "test" / "_ood_")
    shutil.rmtree(root / "test" / "bee")
    data_set = _open(root)
    assert data_set.class_names == ("_ood_", "ant", "bee", "zebra")
    assert data_set.train.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert data_set.test.labels.tolist() == [1, 3]
    assert data_set.test.images.load(np.array([1]))[0].tolist() == _pixels_of(root / "test" / "zebra" / "0.png")


def test_mean_and_deviation_are_those_of_the_training_images(write_folder: WriteFolder) -> None:
    data_set = _open(write_folder())
    pixels = data_set.train.images.load(np.arange(6)) / 255
    for channel in range(3):
        assert data_set.mean[channel] == pytest.approx(pixels[..., channel].mean(), abs=1e-12)
        assert data_set.std[channel] == pytest.approx(pixels[..., channel].std(), abs=1e-12)


def test_small_images_are_one_memory_map(write_folder: WriteFolder, cache: Path) -> None:
    images = _open(write_folder(size=(64, 64))).train.images
    assert isinstance(images, ArrayImages)
    assert isinstance(images.pixels_NHWC, np.memmap)
    assert images.image_size == 64
    assert cache in Path(str(images.pixels_NHWC.filename)).parents
    with pytest.raises(ValueError, match="read-only"):
        images.pixels_NHWC[0] = 0
    assert type(images.load(np.array([0]))) is np.ndarray


@pytest.mark.parametrize(("size", "expected"), [((65, 65), 65), ((100, 70), 70), ((300, 400), 224)])
def test_larger_images_stay_files(write_folder: WriteFolder, size: tuple[int, int], expected: int, cache: Path) -> None:
    data_set = _open(write_folder(size=size, num_train=1, num_test=1))
    assert isinstance(data_set.train.images, PathImages)
    assert data_set.image_size == expected
    assert data_set.train.images.load(np.array([1, 0])).shape == (2, expected, expected, 3)
    assert not list(cache.rglob("*.npy"))


def test_odd_sizes_take_the_median_shorter_side(write_folder: WriteFolder) -> None:
    root = write_folder(size=(20, 30), num_train=2)
    Image.new("RGB", (500, 400)).save(root / "train" / "circle" / "huge.jpg")
    Image.new("L", (7, 5)).save(root / "train" / "square" / "tiny.png")
    data_set = _open(root)
    assert data_set.image_size == 20
    assert data_set.train.images.load(np.arange(6)).shape == (6, 20, 20, 3)


def test_fingerprint_is_of_the_content_not_the_place(write_folder: WriteFolder, tmp_path: Path) -> None:
    for size in ((8, 8), (70, 70)):
        root = write_folder(f"first{size[0]}", size=size)
        moved = tmp_path / f"elsewhere{size[0]}"
        shutil.copytree(root, moved)
        fingerprint = _open(root).fingerprint
        assert _open(moved).fingerprint == fingerprint
        shutil.copy(root / "test" / "circle" / "0.png", moved / "test" / "circle" / "1.png")
        assert _open(moved).fingerprint != fingerprint
        assert _open(root).fingerprint == fingerprint


def test_change_with_equal_size_and_time_is_noticed(write_folder: WriteFolder) -> None:
    root = write_folder()
    path = root / "train" / "circle" / "0.png"
    for value in (10, 20):
        Image.new("RGB", (8, 8), (value, 0, 0)).save(path, compress_level=0)
        os.utime(path, (1_600_000_000, 1_600_000_000))
        assert _open(root).train.images.load(np.array([0]))[0, 0, 0].tolist() == [value, 0, 0]


def test_images_are_decoded_once(write_folder: WriteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder()
    first = _open(root)
    monkeypatch.setattr("data.image_store.decode_square", None)
    second = _open(root)
    assert second.fingerprint == first.fingerprint
    assert (second.mean, second.std) == (first.mean, first.std)
    assert np.array_equal(second.train.images.load(np.arange(6)), first.train.images.load(np.arange(6)))


@pytest.mark.parametrize("size", [(8, 8), (80, 80)])
def test_bad_images_are_left_out_where_that_is_asked_for(write_folder: WriteFolder, size: tuple[int, int]) -> None:
    root = write_folder(size=size)
    whole = open_data_set(f"folder:{root}")
    (root / "train" / "circle" / "1.png").write_bytes(b"")
    (root / "test" / "square" / "0.png").write_text("no picture")
    lines: list[str] = []
    with pytest.raises(ValueError, match=r"circle/1\.png.*--on-bad-image skip"):
        open_data_set(f"folder:{root}")
    rest = open_data_set(f"folder:{root}", skip_bad_images=True, progress=lines.append)
    assert [line.split(":")[0] for line in lines] == ["skipped", "skipped"]
    assert rest.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert rest.test.labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(
        rest.train.images.load(np.arange(5)), whole.train.images.load(np.array([0, 2, 3, 4, 5]))
    )
    assert rest.fingerprint != whole.fingerprint
    again = open_data_set(f"folder:{root}", skip_bad_images=True, progress=lines.append)
    assert again.fingerprint == rest.fingerprint
    assert len(lines) == 2


def test_a_set_of_bad_images_only_is_refused(write_folder: WriteFolder) -> None:
    root = write_folder()
    for path in (root / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="shapes, test: none of the 4 images can be decoded"):
        open_data_set(f"folder:{root}", skip_bad_images=True, progress=lambda line: None)


def test_hidden_files_are_ignored(write_folder: WriteFolder) -> None:
    root = write_folder()
    fingerprint = _open(root).fingerprint
    for path in (root / ".complete", root / "train" / ".DS_Store", root / "train" / "circle" / ".DS_Store"):
        path.write_text("hidden")
    (root / "README.txt").write_text("beside train and test anything may lie")
    assert _open(root).fingerprint == fingerprint


def test_links_inside_the_folder_are_followed(write_folder: WriteFolder) -> None:
    root = write_folder()
    (root / "train" / "circle" / "9.png").symlink_to(root / "train" / "circle" / "0.png")
    (root / "train" / "oval").symlink_to(root / "train" / "circle")
    (root / "test" / "oval").symlink_to("circle")
    data_set = _open(root)
    assert data_set.class_names == ("circle", "oval", "square")
    assert data_set.train.class_sizes(3).tolist() == [4, 4, 3]


def test_relative_path_starts_at_the_data_root(write_folder: WriteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder("shapes")
    assert open_data_set("folder:shapes", root=root.parent).fingerprint == _open(root).fingerprint
    monkeypatch.chdir(root.parent)
    assert open_data_set("folder:shapes").fingerprint == _open(root).fingerprint


def _remove_train(root: Path) -> None:
    shutil.rmtree(root / "train")


def _remove_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def _one_class(root: Path) -> None:
    shutil.rmtree(root / "train" / "square")
    shutil.rmtree(root / "test" / "square")


def _other_test_class(root: Path) -> None:
    (root / "test" / "square").rename(root / "test" / "triangle")


def _one_test_class(root: Path) -> None:
    shutil.rmtree(root / "test" / "square")


def _extra_test_class(root: Path) -> None:
    shutil.copytree(root / "test" / "square", root / "test" / "triangle")


def _empty_class(root: Path) -> None:
    shutil.rmtree(root / "train" / "square")
    (root / "train" / "square").mkdir()


def _no_image(root: Path) -> None:
    (root / "test" / "square" / "notes.txt").write_text("no image")


def _zero_bytes(root: Path) -> None:
    (root / "train" / "square" / "1.png").write_bytes(b"")


def _truncated(root: Path) -> None:
    path = root / "test" / "circle" / "1.png"
    path.write_bytes(path.read_bytes()[:-60])


def _file_among_classes(root: Path) -> None:
    Image.new("RGB", (8, 8)).save(root / "train" / "loose.png")


def _folder_in_class(root: Path) -> None:
    (root / "train" / "circle" / "more").mkdir()


def _broken_link(root: Path) -> None:
    (root / "train" / "circle" / "linked.png").symlink_to(root / "gone.png")


def _loop(root: Path) -> None:
    (root / "train" / "circle" / "loop.png").symlink_to("loop.png")


def _own_folder(root: Path) -> None:
    shutil.rmtree(root / "train" / "circle")
    (root / "train" / "circle").symlink_to("..")


def _two_spellings(root: Path) -> None:
    for part in ("train", "test"):
        (root / part / "circle").rename(root / part / "\u00e9")
        (root / part / "square").rename(root / part / "e\u0301")


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / "train" / "circle" / name).write_bytes(content)

    return write


def _huge(root: Path) -> None:
    """A PNG whose header says 20,000 x 20,000."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    content += struct.pack(">I", 9) + b"IDAT" + bytes(13)
    _write("cat.png", content)(root)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, r"shapes: no such folder; folder:\S+shapes must be a folder with train/ and test/ in it"),
        (_remove_train, r"shapes/train: no such folder; \S+shapes must hold train/ and test/"),
        (_remove_test, r"shapes/test: no such folder"),
        (_one_class, r"shapes/train: 1 class folders; at least 2 are needed"),
        (_other_test_class, r"test/ has the class 'triangle' but train/ does not"),
        (_one_test_class, r"shapes/test: 1 class folders; at least 2 are needed"),
        (_extra_test_class, r"test/ has the class 'triangle' but train/ does not"),
        (_empty_class, r"shapes/train/square: this class folder is empty"),
        (_no_image, r"shapes/test/square/notes\.txt: this file is not a JPEG or PNG image"),
        (_zero_bytes, r"shapes/train/square/1\.png: this image file is empty"),
        (_truncated, r"shapes/test/circle/1\.png: this image file is damaged or cut short"),
        (_file_among_classes, r"shapes/train/loose\.png: a file among the class folders"),
        (_folder_in_class, r"shapes/train/circle/more: this is not a file"),
        (_loop, r"train/circle/loop\.png: this link leads back to itself"),
        (_own_folder, r"train/circle: this link leads to a folder that it lies in itself, \S+shapes"),
        (_two_spellings, "shapes/train: two folders are called 'é', in two spellings of Unicode; merge them"),
        (
            _write("cat.png", b"II*\x00rest"),
            r"cat\.png: this file is a TIFF image; JPEG or PNG is expected: convert it",
        ),
        (_write("cat.png", b"\0\0\0\x18ftypheic"), r"cat\.png: this file is a HEIC photograph"),
        (_write("cat.png", b"<!DOCTYPE html>"), r"cat\.png: this file is a web page, not the image"),
        (
            _write("cat.png", b"version https://git-lfs.github.com/spec/v1"),
            r"cat\.png: this file is a pointer of Git LFS",
        ),
        (_huge, r"cat\.png: this image has 400,000,000 pixels, more than are read; make it smaller"),
        (_broken_link, r"linked\.png: this link points to \S+gone\.png, which does not exist"),
    ],
)
def test_bad_folders_are_refused_in_one_line(
    write_folder: WriteFolder, spoil: Callable[[Path], object], message: str, cache: Path
) -> None:
    root = write_folder("shapes")
    spoil(root)
    with pytest.raises(ValueError, match=message) as caught:
        _open(root)
    assert "\n" not in str(caught.value)
    assert not list(cache.rglob("meta.json"))


@pytest.mark.data
@pytest.mark.slow
def test_real_cifar10_folder(real_images: Path) -> None:
    data_set = open_data_set("folder:cifar10-images", root=real_images)
    assert data_set.class_names == (
        *("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    )
    assert data_set.image_size == 32
    assert data_set.train.class_sizes(10).tolist() == [5000] * 10
    assert data_set.test.class_sizes(10).tolist() == [1000] * 10
    # Published for the original images; these were stored as JPEG again.
    assert data_set.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=5e-4)
    assert data_set.std == pytest.approx((0.247, 0.2435, 0.2616), abs=3e-3)
    with (Path(__file__).parents[2] / "golden" / "splits" / "table2.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == "cifar10"]
    assert len(rows) == 12
    for row in rows:
        ratios = {name: float(row[name]) for name in ("mismatch_ratio", "ood_ratio")}
        split = draw_split(data_set.train.labels, num_classes=10, budget=500, seed=0, **ratios)
        num_unlabelled = int(row["unlabelled_id"]) + int(row["unlabelled_ood"])
        assert [len(split.initial_id_idx), len(split.initial_ood_idx), len(split.unlabelled_idx)] == [
            *(int(row["initial_id"]), int(row["initial_ood"]), num_unlabelled),
        ]


def test_links_out_of_the_folder_are_followed(write_folder: WriteFolder, tmp_path: Path) -> None:
    """Of class folders (subsets without copies), of files (DVC, git-annex), and of train/ as a whole."""
    big = write_folder("big", classes=("cat", "dog", "owl"))
    expected = _open(write_folder("copied", classes=("cat", "dog"))).fingerprint  # as it is without links
    by_class, by_file, by_part = (tmp_path / name for name in ("by_class", "by_file", "by_part"))
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (by_class / part).mkdir(parents=True, exist_ok=True)
            (by_class / part / name).symlink_to(big / part / name)
            (by_file / part / name).mkdir(parents=True)
            for image in (big / part / name).iterdir():
                (by_file / part / name / image.name).symlink_to(image)
    shutil.copytree(by_class, by_part, symlinks=True)
    (by_part / "train").rename(tmp_path / "elsewhere")
    (by_part / "train").symlink_to(tmp_path / "elsewhere")
    prints = {_open(root).fingerprint for root in (by_class, by_file, by_part)}
    copied = tmp_path / "plain"
    shutil.copytree(by_class, copied, symlinks=False)
    assert prints == {_open(copied).fingerprint}
    assert expected not in prints  # other random pixels


def test_a_changed_target_of_a_link_is_noticed(write_folder: WriteFolder, tmp_path: Path) -> None:
    big, root = write_folder("big"), tmp_path / "subset"
    root.mkdir()
    for part in ("train", "test"):
        (root / part).symlink_to(big / part)
    before = _open(root).fingerprint
    Image.new("RGB", (8, 8), (1, 2, 3)).save(big / "train" / "circle" / "0.png")
    assert _open(root).fingerprint != before


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_val_is_understood_as_test(write_folder: WriteFolder, name: str) -> None:
    root = write_folder()
    expected = _open(root).fingerprint
    (root / "test").rename(root / name)
    assert _open(root).fingerprint == expected


def test_what_file_managers_leave_is_left_out(write_folder: WriteFolder) -> None:
    root = write_folder()
    expected = _open(root).fingerprint
    for part in ("train", "test"):
        for folder in ("@eaDir", "__MACOSX", "#recycle", ".DS_Store"):
            (root / part / folder).mkdir()
            (root / part / "circle" / folder).mkdir()
        (root / part / "Thumbs.db").write_bytes(b"x")
        (root / part / "circle" / "desktop.ini").write_bytes(b"x")
        (root / part / "circle" / "._0.png").write_bytes(b"x")
    assert _open(root).fingerprint == expected


def test_one_name_in_two_spellings_of_unicode_is_one_class(write_folder: WriteFolder) -> None:
    root = write_folder(classes=("caf\u00e9", "zoo", "\u00e5"))
    expected = _open(root)
    for name in ("caf\u00e9", "\u00e5"):
        (root / "test" / name).rename(root / "test" / unicodedata.normalize("NFD", name))
    given = _open(root)
    assert given.fingerprint == expected.fingerprint
    assert given.class_names == ("caf\u00e9", "zoo", "\u00e5")


def _notes(root: Path) -> tuple[str, ...]:
    lines: list[str] = []
    notes = open_data_set(f"folder:{root}", progress=lines.append).notes
    assert lines == [f"folder:{root}: {note}" for note in notes]
    assert open_data_set(f"folder:{root}", progress=lines.append).notes == notes  # out of the cache, and not told again
    assert len(lines) == len(notes)
    return notes


def test_an_honest_folder_has_no_notes(write_folder: WriteFolder) -> None:
    assert _notes(write_folder()) == ()


@pytest.mark.parametrize("size", [(8, 8), (80, 80)])
def test_test_images_that_are_trained_on_are_counted(write_folder: WriteFolder, size: tuple[int, int]) -> None:
    root = write_folder(num_test=3, size=size)
    shutil.copy(root / "train" / "square" / "2.png", root / "test" / "circle" / "1.png")
    (note,) = _notes(root)
    assert note.startswith("1 of 6 test images are copies of training images (the first is test/circle/1.png)")
    shutil.rmtree(root / "test")
    (root / "test").symlink_to("train")
    (note,) = _notes(root)
    assert note.startswith("6 of 6 test images are copies of training images (the first is test/circle/0.png)")


def test_pictures_without_contrast_are_counted_with_their_bits(write_folder: WriteFolder) -> None:
    root = write_folder()
    levels = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(levels).save(root / "train" / "circle" / "0.png")
    (note,) = _notes(root)
    assert note.startswith(
        "1 of 10 images have no contrast (the first is train/circle/0.png: levels 0 to 4,095 of 65,535 (12 of 16 bits))"
    )
    Image.fromarray(levels * 15).save(root / "train" / "circle" / "0.png")
    Image.new("RGB", (8, 8)).save(root / "test" / "square" / "1.png")
    (note,) = _notes(root)
    assert "test/square/1.png: levels 0 to 0 of 255 (1 of 8 bits)" in note


def test_pictures_on_their_side_are_counted_and_left_as_they_are(write_folder: WriteFolder) -> None:
    root = write_folder()
    path = root / "train" / "circle" / "0.png"
    before = _open(root)
    picture = Image.open(path)
    picture.load()
    for orientation, num in ((1, 0), (6, 1)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(path, exif=exif)
        notes = _notes(root)
        assert len(notes) == num
        assert _open(root).fingerprint == before.fingerprint
    assert notes[0].startswith("1 of 10 images carry an EXIF rotation, which is ignored")
    assert "train/circle/0.png" in notes[0]
