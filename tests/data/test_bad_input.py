"""Everything that a user's files or ratios can have wrong is found before any training, and told in one line."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.download import obtain, unpack
from data.imageset import DataSet
from data.published import Download
from data.registry import open_data_set
from data.splits.draw import SplitSettings, count_data_split, draw_data_split
from tests.data.published_files import write_cifar10, write_domainnet, write_tiny_imagenet

Spoil = Callable[[Path], object]


def _saved(image: Image.Image, kind: str, *more: Image.Image) -> bytes:
    file = io.BytesIO()
    options = {"save_all": True, "append_images": more} if more else {}
    image.save(file, format=kind, **options, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


def _plain(level: int) -> Image.Image:
    return Image.new("RGB", (64, 64), (level, level, level))


ODD_IMAGES = {
    "grey": _saved(Image.new("L", (64, 64), 100), "JPEG"),
    "RGBA": _saved(Image.new("RGBA", (64, 64), (100, 100, 100, 255)), "PNG"),
    "CMYK": _saved(Image.new("CMYK", (64, 64), (155, 155, 155, 0)), "JPEG"),
    "16-bit": _saved(Image.fromarray(np.full((64, 64), 100 * 257, dtype=np.uint16)), "PNG"),
    "animated PNG": _saved(_plain(100), "PNG", _plain(9)),
    "animated GIF": _saved(_plain(100), "GIF", _plain(9)),
}
"""Files of level 100 that are no plain RGB picture, but pictures all the same: every reader takes them."""


def _write_folder(root: Path, size: int = 64) -> Path:
    for part in ("train", "test"):
        for name in ("a", "b"):
            folder = root / "folder" / part / name
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return root / "folder"


@pytest.fixture
def root(tmp_path: Path, python2_pickle: Callable[[Any], bytes]) -> Path:
    """A data root with small files of every kind of data set."""
    root = tmp_path / "root"
    _write_folder(root)
    write_cifar10(root, python2_pickle)
    write_tiny_imagenet(root)
    write_domainnet(root)
    return root


IMAGE_OF = {
    "folder:folder": "folder/train/a/1.jpg",
    "tiny-imagenet": "tiny-imagenet-200/train/n01443537/images/n01443537_1.JPEG",
    "domainnet-real": "domainnet/clipart/airplane/clipart_001_000002.jpg",
}
"""A training image of each data set that lies in image files; it is at position 1 but for DomainNet's mixed lists."""


def _open(name: str, root: Path) -> DataSet:
    return open_data_set(name, root=root, progress=lambda line: None)


def _position(name: str, root: Path) -> int:
    if name != "domainnet-real":
        return 1
    lines = (root / "domainnet" / "clipart_train.txt").read_text().splitlines()
    return lines.index("clipart/airplane/clipart_001_000002.jpg 0")


@pytest.mark.parametrize("kind", ODD_IMAGES)
@pytest.mark.parametrize("name", IMAGE_OF)
def test_odd_images_are_read(name: str, kind: str, root: Path) -> None:
    (root / IMAGE_OF[name]).write_bytes(ODD_IMAGES[kind])
    images = _open(name, root).train.images
    pixels = images.load(np.array([_position(name, root)]))[0].astype(int)
    assert np.abs(pixels - 100).max() <= 2


def _zero_bytes(content: bytes) -> bytes:
    return b""


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _text(content: bytes) -> bytes:
    return b"no image at all"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_zero_bytes, r"this image file is empty \(0 bytes\)"),
        (_half, "this image file is damaged or cut short"),
        (_text, "this file is not a JPEG or PNG image"),
    ],
)
@pytest.mark.parametrize("name", IMAGE_OF)
def test_damaged_images_are_named(name: str, spoil: Callable[[bytes], bytes], message: str, root: Path) -> None:
    """DomainNet's are decoded when a frozen encoder computes their features, which is before any training."""
    path = root / IMAGE_OF[name]
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: {message}") as caught:
        _open(name, root).train.images.load(np.array([_position(name, root)]))
    assert "\n" not in str(caught.value)


def _cut(name: str, keep: float) -> Spoil:
    def cut(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: int(keep * len(content))])

    return cut


def _write(name: str, text: str) -> Spoil:
    return lambda root: (root / name).write_text(text)


def _append(name: str, line: str) -> Spoil:
    return lambda root: (root / name).write_text((root / name).read_text() + line + "\n")


def _empty_folder(name: str) -> Spoil:
    def empty(root: Path) -> None:
        shutil.rmtree(root / name)
        (root / name).mkdir()

    return empty


def _remove(name: str) -> Spoil:
    return lambda root: (root / name).unlink()


def _small_images(root: Path) -> None:
    shutil.rmtree(root / "folder")
    _write_folder(root, size=7)


CIFAR10, TINY, DOMAINNET = "cifar-10-batches-py", "tiny-imagenet-200", "domainnet"
ANNOTATIONS = f"{TINY}/val/val_annotations.txt"


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        (
            "cifar10",
            _cut("cifar-10-batches-py/data_batch_2", 0.5),
            r"data_batch_2: this is not the published data file",
        ),
        ("cifar10", _cut(f"{CIFAR10}/data_batch_2", 0), r"data_batch_2: this is not the published data file"),
        ("cifar10", _write(f"{CIFAR10}/test_batch", "no"), r"test_batch: this is not the published data file"),
        ("folder:folder", _empty_folder("folder/train/a"), r"folder/train/a: this class folder is empty"),
        ("folder:folder", _empty_folder("folder/test/b"), r"folder/test/b: this class folder is empty"),
        (
            "folder:folder",
            _small_images,
            r"a/0\.jpg: its shorter side is 7 pixels, and .* need 8 or more; enlarge",
        ),
        (
            "tiny-imagenet",
            _empty_folder(f"{TINY}/train/n01443537/images"),
            r"n01443537/images: no images of this",
        ),
        (
            "tiny-imagenet",
            _remove(f"{TINY}/val/images/val_1.JPEG"),
            r"annotations\.txt, line 2: it names val_1\.JPEG",
        ),
        (
            "tiny-imagenet",
            _append(ANNOTATIONS, "gone.JPEG\tn01443537"),
            r"txt, line 4: it names gone\.JPEG, which is",
        ),
        (
            "tiny-imagenet",
            _append(ANNOTATIONS, "../../x\tn01443537"),
            r"txt, line 4: it names \.\./\.\./x, which is",
        ),
        ("domainnet-real", _empty_folder(f"{DOMAINNET}/sketch/ant"), r"ant/sketch_002_\d+\.jpg: no such file, but"),
        (
            "domainnet-real",
            _remove(IMAGE_OF["domainnet-real"]),
            r"000002\.jpg: no such file, but clipart_train\.txt",
        ),
        (
            "domainnet-real",
            _append(f"{DOMAINNET}/real_test.txt", "real/../../secret.jpg 0"),
            r"real_test\.txt, line 9: real/\.\./\.\./secret\.jpg points outside the folder of the data set",
        ),
        (
            "domainnet-real",
            _append(f"{DOMAINNET}/clipart_train.txt", "/etc/secret.jpg 0"),
            r"clipart_train\.txt, line \d+: /etc/secret\.jpg points outside the folder of the data set",
        ),
    ],
)
def test_bad_files_are_named(name: str, spoil: Spoil, message: str, root: Path, cache: Path) -> None:
    spoil(root)
    with pytest.raises(ValueError, match=message) as caught:
        _open(name, root)
    assert str(root) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(cache.rglob("meta.json"))


@pytest.mark.parametrize("size", [8, 9])
def test_images_just_large_enough_are_read(size: int, tmp_path: Path) -> None:
    assert _open(f"folder:{_write_folder(tmp_path, size=size)}", tmp_path).image_size == size


def test_truncated_and_wrong_archives_are_named(tmp_path: Path) -> None:
    item = Download(url="x/a.zip", num_bytes=9, algorithm="md5", checksum="0" * 32, folder="a")
    path = tmp_path / "a.zip"
    for content, message in ((b"12345678", "cut short, 8 of 9 bytes"), (b"123456789", "not the published a.zip")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\.zip: {message}"):
            obtain(item, path, lambda line: None)
        with pytest.raises(ValueError, match=r"a\.zip: this archive is damaged or cut short"):
            unpack(path, tmp_path / "a", lambda line: None)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("folder:folder", {"mismatch_ratio": 0.4}, "mismatch ratio 0.4 of 2 classes gives no ID class"),
        (
            "folder:folder",
            {"mismatch_ratio": 1.0},
            "mismatch ratio 1.0 makes all 2 classes ID, so OOD ratio 0.5",
        ),
        ("cifar10", {"mismatch_ratio": 0.09}, "mismatch ratio 0.09 of 10 classes gives no ID class"),
        ("domainnet-real", {"num_id_classes": 0}, "the number of ID classes is 0; it must be in 1..4"),
        ("domainnet-real", {"num_id_classes": 5}, "the number of ID classes is 5; it must be in 1..4"),
    ],
)
def test_ratios_that_give_no_or_all_classes_are_refused(
    name: str, change: dict[str, Any], message: str, root: Path
) -> None:
    arguments = {"mismatch_ratio": 0.5, "ood_ratio": 0.5, "budget": 2, "seed": 0, "num_id_classes": 2} | change
    data_set = _open(name, root)
    for split in (count_data_split, draw_data_split):
        with pytest.raises(ValueError, match=re.escape(message)):
            split(data_set, SplitSettings(**arguments))
