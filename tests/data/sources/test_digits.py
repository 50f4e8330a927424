"""The embedded digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from data.imageset import ArrayImages, DataSet
from data.registry import open_data_set


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return open_data_set("digits")


def test_sizes_and_names(digits: DataSet) -> None:
    assert digits.class_names[0] == "digit zero"
    assert digits.class_names[9] == "digit nine"
    assert (digits.num_classes, digits.image_size) == (10, 8)
    assert digits.pretrain is not None
    assert digits.pretrain.class_sizes(10).tolist() == [60] * 10
    assert digits.train.class_sizes(10).tolist() == [90] * 10
    assert digits.test.class_sizes(10).tolist() == [28, 32, 27, 33, 31, 32, 31, 29, 24, 30]


def test_the_three_parts_are_the_bundled_images_each_once(digits: DataSet) -> None:
    assert digits.pretrain is not None
    bundled, labels = load_digits(return_X_y=True)
    expected = sorted(
        (int(label), (levels * 255 / 16).round().astype(np.uint8).tobytes())
        for levels, label in zip(bundled, labels, strict=True)
    )
    found = []
    for part in (digits.pretrain, digits.train, digits.test):
        pixels = part.images.load(np.arange(len(part)))
        assert pixels.shape == (len(part), 8, 8, 3)
        assert np.all(pixels == pixels[..., :1])
        found += [(int(label), grey.tobytes()) for label, grey in zip(part.labels, pixels[..., 0], strict=True)]
    assert sorted(found) == expected


def test_mean_and_deviation_are_those_of_the_training_images(digits: DataSet) -> None:
    assert isinstance(digits.train.images, ArrayImages)
    pixels = digits.train.images.pixels_NHWC / 255
    assert digits.mean == pytest.approx([pixels.mean()] * 3, abs=1e-12)
    assert digits.std == pytest.approx([pixels.std()] * 3, abs=1e-12)


def test_split_never_changes(digits: DataSet) -> None:
    # Records of finished trials are keyed by this: changing the split, the scaling or the names must be on purpose.
    assert digits.fingerprint == "707185be33a1cec410bbf3d67b7b41d540bb8b5122792235d74a1bbaac1dd4fd"
    assert open_data_set("digits").fingerprint == digits.fingerprint


def test_a_data_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="digits is bundled with scikit-learn and reads no files"):
        open_data_set("digits", root=tmp_path)
