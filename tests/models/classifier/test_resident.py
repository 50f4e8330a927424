"""Inputs that stay on a device: which are kept, which make room, what is read ahead. A CPU stands in for the GPU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from data.imageset import ArrayImages
from models.classifier.inputs import FeatureRows
from models.classifier.resident import _KEPT, forget_residents, loaded_ahead, resident_rows

CPU = torch.device("cpu")
BYTES = 5 * 4 * 4 * 3


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    forget_residents()
    yield
    forget_residents()


def images(value: int) -> ArrayImages:
    return ArrayImages(np.full((5, 4, 4, 3), value, dtype=np.uint8))


def test_rows_are_read_once() -> None:
    given = images(7)
    first = resident_rows(given, CPU, most_bytes=BYTES)
    assert first is not None
    assert first.dtype == torch.uint8
    assert first.shape == (5, 4, 4, 3)
    assert (first == 7).all()
    assert resident_rows(given, CPU, most_bytes=BYTES) is first


def test_equal_fingerprints_do_not_confuse_two_arrays() -> None:
    one, other = (ArrayImages(np.full((1, 2, 2, 3), v, dtype=np.uint8), fingerprint="-") for v in (1, 2))
    rows = [resident_rows(given, CPU, most_bytes=BYTES) for given in (one, other)]
    assert [int(row.max()) for row in rows if row is not None] == [1, 2]


def test_what_is_too_large_is_not_kept() -> None:
    assert resident_rows(images(1), CPU, most_bytes=BYTES - 1) is None
    assert not _KEPT


def test_what_was_used_longest_ago_makes_room() -> None:
    first, second, third = images(1), images(2), images(3)
    for given in (first, second, first, third):
        resident_rows(given, CPU, most_bytes=2 * BYTES)
    assert [kept is given for (kept, _), given in zip(_KEPT.values(), (first, third), strict=True)] == [True, True]


def test_features_are_kept_as_they_are() -> None:
    rows_NF = np.arange(6, dtype=np.float32).reshape(3, 2)
    kept = resident_rows(FeatureRows(rows_NF, identity="-"), CPU, most_bytes=1000)
    assert kept is not None
    np.testing.assert_array_equal(kept.numpy(), rows_NF)


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_batches_read_ahead_come_in_order(size: int) -> None:
    rows_NF = np.arange(10, dtype=np.float32).reshape(5, 2)
    idx = np.array([4, 0, 3, 3, 1])
    batches = list(loaded_ahead(FeatureRows(rows_NF, identity="-"), idx, size, CPU))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    np.testing.assert_array_equal(torch.cat(batches).numpy(), rows_NF[idx])


def test_an_image_that_cannot_be_read_is_said() -> None:
    class Broken(ArrayImages):
        def load(self, idx: np.ndarray) -> np.ndarray:
            raise ValueError("broken.png cannot be decoded")

    broken = Broken(np.zeros((2, 2, 2, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"broken\.png"):
        list(loaded_ahead(broken, np.arange(2), 1, CPU))
