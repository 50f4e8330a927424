"""`digits`: the 1,797 real 8x8 images of handwritten digits that come with scikit-learn. Nothing is downloaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.console import Progress
from data.imageset import ArrayImages, DataSet, ImageSet, IndexArray, Survey, make_data_set
from data.pixels import ChannelStatistics

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_PRETRAIN_A_CLASS = 60
_TRAIN_A_CLASS = 90
_SPLIT_SEED = 1797  # of the three-way split; never the seed of a trial


def read_digits(*, root: Path | None = None, progress: Progress | None = None) -> DataSet:
    """The digits as a data set of 10 classes, 8x8 pixels, grey repeated in three channels.

    A fixed split, by classes: 60 images per class in `pretrain`, 90 in `train`, the rest (24 to 33) in `test`.
    Raises ValueError if `root` is given, because there are no files to read.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), test part.
    """
    if root is not None:
        raise ValueError("digits is bundled with scikit-learn and reads no files; omit the data root")
    levels_NL, labels = _bundled()
    pixels_NHW = np.rint(levels_NL.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    pixels_NHWC = np.repeat(pixels_NHW[..., np.newaxis], 3, axis=3)
    pretrain_idx, train_idx, test_idx = _three_way_split(labels)
    statistics = ChannelStatistics()
    statistics.update(pixels_NHWC[train_idx])
    mean, std = statistics.result()
    sets = [
        ImageSet(images=ArrayImages(pixels_NHWC[idx]), labels=labels[idx].astype(np.int64))
        for idx in (pretrain_idx, train_idx, test_idx)
    ]
    return make_data_set(
        name="digits",
        class_names=tuple(f"digit {word}" for word in _WORDS),
        pretrain=sets[0],
        train=sets[1],
        test=sets[2],
        mean=mean,
        std=std,
    )


def survey_digits(root: Path | None = None) -> Survey:
    """Numbers of images of the digits, which are always present; `root` has no effect."""
    data_set = read_digits()
    return Survey(where="bundled with scikit-learn", num_train=len(data_set.train), num_test=len(data_set.test))


def _bundled() -> tuple[NDArray[np.float64], IndexArray]:
    """Grey levels 0 to 16, (N, 64), and labels, (N,), as `sklearn.datasets.load_digits` returns them."""
    # Read from its file: importing scikit-learn takes seconds, and a dry run must answer in about one.
    found = find_spec("sklearn")
    assert found is not None, "scikit-learn is a requirement of this project"
    assert found.origin is not None
    table = np.loadtxt(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    return table[:, :-1], table[:, -1].astype(np.int64)


def _three_way_split(labels: NDArray[np.int64]) -> tuple[IndexArray, IndexArray, IndexArray]:
    """Sorted indices of `pretrain`, `train` and `test`: disjoint, together all images."""
    generator = np.random.Generator(np.random.PCG64(_SPLIT_SEED))
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label in range(len(_WORDS)):
        shuffled = generator.permutation(np.flatnonzero(labels == label))
        cuts = (_PRETRAIN_A_CLASS, _PRETRAIN_A_CLASS + _TRAIN_A_CLASS)
        for part, idx in zip(parts, np.split(shuffled, cuts), strict=True):
            part.extend(idx.tolist())
    pretrain_idx, train_idx, test_idx = (np.sort(np.array(part, dtype=np.int64)) for part in parts)
    return pretrain_idx, train_idx, test_idx
