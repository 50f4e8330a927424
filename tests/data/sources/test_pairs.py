"""Image-caption pairs from CSV files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.sources.pairs import Pairs, read_pairs


def quiet(line: str) -> None:
    """Progress that nobody reads."""


def write(folder: Path, text: str) -> Path:
    """Three images of one colour each, and a CSV file beside them."""
    (folder / "pictures").mkdir()
    for name, level in (("a", 10), ("b", 20), ("c", 30)):
        Image.new("RGB", (8, 6), (level, 0, 0)).save(folder / "pictures" / f"{name}.png")
    path = folder / "pairs.csv"
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path, *, skip: bool = False, image_size: int = 4) -> Pairs:
    return read_pairs(path, image_size=image_size, on_bad_image="skip" if skip else "stop", progress=quiet)


GOOD = 'caption,path\n"a dog, sitting",pictures/b.png\na cat,pictures/a.png\n'


@pytest.mark.parametrize("image_size", [4, 65])  # in memory, and decoded on demand
def test_pairs_are_in_the_order_of_the_file(tmp_path: Path, image_size: int) -> None:
    pairs = read(write(tmp_path, GOOD), image_size=image_size)
    assert pairs.captions == ("a dog, sitting", "a cat")
    pixels = pairs.images.load(np.array([1, 0]))
    assert pixels.shape == (2, image_size, image_size, 3)
    assert (pixels[0, :, :, 0] == 10).all()
    assert (pixels[1, :, :, 0] == 20).all()
    before = pairs.images.fingerprint
    Image.new("RGB", (8, 6), (11, 0, 0)).save(tmp_path / "pictures" / "a.png")
    assert read(tmp_path / "pairs.csv", image_size=image_size).images.fingerprint != before


def test_a_bad_image_stops_or_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "a bird,pictures/c.png\nnothing,pictures/d.png\n")
    (tmp_path / "pictures" / "c.png").write_bytes(b"no image")
    with pytest.raises(
        ValueError, match=r"line 4 of .*pairs\.csv: .*c\.png: this file is not a JPEG or PNG image.*--on-bad-image skip"
    ):
        read(path)
    pairs = read(path, skip=True)
    assert pairs.captions == ("a dog, sitting", "a cat")
    assert len(pairs.images) == 2
    assert [Path(told.partition(":")[0]).name for told in pairs.skipped] == ["c.png", "d.png"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("path,text\na,b\n", "must name the columns path and caption"),
        ("", "must name the columns path and caption"),
        ("path,caption\npictures/a.png,\n", "line 2 of .*: path and caption must both be given"),
        ("path,caption\npictures/a.png\n", "line 2 of .*: path and caption must both be given"),
        ("path,caption\npictures/a.png,a cat\n", "1 usable pairs; at least 2"),
    ],
)
def test_bad_files_are_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read(write(tmp_path, text))


def test_a_missing_or_binary_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file .*none\.csv"):
        read(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a CSV file in UTF-8"):
        read(tmp_path / "binary.csv")


def test_a_draw_is_seeded_and_sorted(tmp_path: Path) -> None:
    rows = "".join(f"number {number},pictures/a.png\n" for number in range(50))
    pairs = read(write(tmp_path, "caption,path\n" + rows))
    drawn = pairs.draw(20, seed=3)
    assert len(np.unique(drawn)) == 20
    assert (np.diff(drawn) > 0).all()
    assert np.array_equal(drawn, pairs.draw(20, seed=3))
    assert not np.array_equal(drawn, pairs.draw(20, seed=4))
    assert np.array_equal(pairs.draw(None, seed=0), np.arange(50))
    with pytest.raises(ValueError, match=r"--images is 51; it must be in 2\.\.50"):
        pairs.draw(51, seed=0)
