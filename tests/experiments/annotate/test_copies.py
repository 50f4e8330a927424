"""Near-copies: who stands for whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from experiments.annotate import copies
from experiments.annotate.copies import confirmed, near_copies


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def at_degrees(*degrees: float) -> NDArray[np.float32]:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def silent(line: str) -> None:
    raise AssertionError(line)


def test_a_copy_joins_the_earlier_image_that_is_most_like_it() -> None:
    # 11.5 degrees are a cosine of 0.98.
    assert near_copies(at_degrees(0, 20, 11, 40, 0), silent).tolist() == [0, 1, 1, 3, 0]


def test_a_chain_of_copies_does_not_drift() -> None:
    assert near_copies(at_degrees(0, 10, 20, 30), silent).tolist() == [0, 0, 2, 2]


@pytest.mark.parametrize("num_dims", [8, 200])
def test_blocks_and_projections_change_nothing(num_dims: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    originals = rng.normal(size=(150, num_dims))
    rows = unit(np.concatenate([originals, originals[::2] + 0.05 * rng.normal(size=(75, num_dims))]))
    expected = [*range(150), *range(0, 150, 2)]
    assert near_copies(rows, silent).tolist() == expected
    monkeypatch.setattr(copies, "BLOCK", 16)
    monkeypatch.setattr(copies, "CHUNK", 32)
    assert near_copies(rows, silent).tolist() == expected


def test_many_equal_images_need_little_memory_and_one_stands_for_all() -> None:
    assert not near_copies(unit(np.ones((5000, 3))), silent).any()


def test_pictures_that_differ_are_no_copies_whatever_their_features(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3)).astype(np.uint8)
    smooth = [np.kron(each[:8, :8], np.ones((8, 8, 1), dtype=np.uint8)) for each in noise]
    Image.fromarray(smooth[0]).save(tmp_path / "a.png")
    Image.fromarray(smooth[0]).resize((50, 50)).save(tmp_path / "b.jpg")
    Image.fromarray(smooth[1]).save(tmp_path / "c.png")
    names = ["a.png", "b.jpg", "c.png", "missing.png"]
    assert confirmed(tmp_path, names, np.array([0, 0, 0, 0])).tolist() == [0, 0, 2, 0]
