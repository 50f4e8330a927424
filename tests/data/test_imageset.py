"""Image sets, data sets and what is computed over all pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.imageset import ArrayImages, DataSet, ImageSet, PathImages, make_data_set
from data.pixels import ChannelStatistics, PixelHash


def _pixels(num_images: int = 5, size: int = 2) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.arange(num_images * size * size * 3, dtype=np.uint8).reshape(num_images, size, size, 3)


def test_array_images_come_in_the_order_asked() -> None:
    images = ArrayImages(_pixels())
    assert (len(images), images.image_size) == (5, 2)
    loaded = images.load(np.array([4, 0, 4]))
    assert loaded.tolist() == [_pixels()[4].tolist(), _pixels()[0].tolist(), _pixels()[4].tolist()]
    loaded[:] = 0
    assert images.load(np.array([4])).tolist() == [_pixels()[4].tolist()]


def test_fingerprint_changes_with_pixels_order_and_shape_only() -> None:
    pixels = _pixels()
    other = pixels.copy()
    other[3, 1, 1, 2] ^= 1
    fingerprints = {ArrayImages(array).fingerprint for array in (pixels, other, pixels[::-1], pixels[:4])}
    assert len(fingerprints) == 4
    assert ArrayImages(np.asfortranarray(pixels)).fingerprint == ArrayImages(pixels).fingerprint
    assert ArrayImages(pixels.reshape(20, 1, 1, 3)).fingerprint != ArrayImages(pixels).fingerprint


def test_pixel_hash_does_not_depend_on_the_blocks() -> None:
    pixel_hash = PixelHash(2)
    for block in (_pixels()[:1], _pixels()[1:4], _pixels()[4:]):
        pixel_hash.update(block)
    assert pixel_hash.hexdigest() == PixelHash.of(_pixels())


def test_path_images_are_resized_and_cropped_to_the_centre(tmp_path: Path) -> None:
    # 12 x 4 pixels: red, green and blue squares of 4 x 4; the middle one is green.
    picture = np.zeros((4, 12, 3), dtype=np.uint8)
    for square in range(3):
        picture[:, 4 * square : 4 * square + 4, square] = 200
    Image.fromarray(picture).save(tmp_path / "wide.png")
    Image.fromarray(picture.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    images = PathImages(tmp_path, ["wide.png", "tall.png"], image_size=4, fingerprint="0" * 64)
    assert (len(images), images.image_size, images.fingerprint) == (2, 4, "0" * 64)
    loaded = images.load(np.array([1, 0]))
    assert loaded.shape == (2, 4, 4, 3)
    assert np.all(loaded == np.array([0, 200, 0], dtype=np.uint8))
    larger = PathImages(tmp_path, ["wide.png"], image_size=80, fingerprint="0" * 64).load(np.array([0]))
    assert larger.shape == (1, 80, 80, 3)
    assert larger[0, 40, 40].tolist() == [0, 200, 0]


def test_path_images_name_the_bad_file(tmp_path: Path) -> None:
    images = PathImages(tmp_path, ["gone.png"], image_size=4, fingerprint="0" * 64)
    with pytest.raises(ValueError, match=r"gone\.png: this image file does not exist"):
        images.load(np.array([0]))


def test_statistics_by_hand() -> None:
    statistics = ChannelStatistics()
    # Red is 0, 0, 0, 255; green 51 everywhere; blue 0, 255, 0, 255: in two blocks.
    pixels = np.array([[0, 51, 0], [0, 51, 255], [0, 51, 0], [255, 51, 255]], dtype=np.uint8).reshape(4, 1, 1, 3)
    statistics.update(pixels[:1])
    statistics.update(pixels[1:])
    mean, std = statistics.result()
    assert mean == pytest.approx((0.25, 0.2, 0.5), abs=1e-15)
    assert std == pytest.approx((3**0.5 / 4, 1 / 255, 0.5), abs=1e-15)


def _data_set(**changes: Any) -> DataSet:
    def image_set(labels: list[int]) -> ImageSet:
        return ImageSet(images=ArrayImages(_pixels(len(labels))), labels=np.array(labels))

    values: dict[str, Any] = {
        "name": "toy",
        "class_names": ("cat", "dog"),
        "train": image_set(changes.pop("train_labels", [0, 1, 1])),
        "test": image_set([1, 0]),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.1, 0.1, 0.1),
    }
    if changes.pop("with_pretrain", False):
        values["pretrain"] = image_set([0, 1])
    return make_data_set(**values | changes)


def test_data_set_fingerprint_covers_all_but_names() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"class_names": ("cat", "wolf")},
        {"train_labels": [0, 0, 1]},
        {"with_pretrain": True},
        {"mean": (0.5, 0.5, 0.6)},
        {"std": (0.1, 0.1, 0.2)},
        {"split_protocol": "domain"},
    ]
    assert len({_data_set(**change).fingerprint for change in changes}) == len(changes)
    assert _data_set(name="elsewhere", domain="real").fingerprint == _data_set().fingerprint


def test_class_sizes() -> None:
    assert _data_set(train_labels=[1, 1, 1, 0]).train.class_sizes(3).tolist() == [1, 3, 0]


def test_labels_must_fit_images_and_classes() -> None:
    with pytest.raises(AssertionError):
        ImageSet(images=ArrayImages(_pixels(3)), labels=np.array([0, 1]))
    with pytest.raises(AssertionError):
        _data_set(train_labels=[0, 1, 2])
