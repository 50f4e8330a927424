"""Files of every kind to RGB pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.decoding import decode_rgb, decode_square, decode_upright, find_bad_images, picture_size


def _decode(path: Path) -> list[list[list[int]]]:
    image = decode_rgb(path)
    assert image.mode == "RGB"
    pixels: list[list[list[int]]] = np.asarray(image).tolist()
    return pixels


def test_rgb_is_left_alone(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[1, 2, 3], [200, 100, 0]]], dtype=np.uint8)).save(tmp_path / "a.png")
    assert _decode(tmp_path / "a.png") == [[[1, 2, 3], [200, 100, 0]]]
    assert picture_size(tmp_path / "a.png") == (2, 1)


def test_grey_is_repeated(tmp_path: Path) -> None:
    grey = Image.fromarray(np.full((8, 8), 77, dtype=np.uint8))
    for name in ("a.png", "a.jpg"):
        grey.save(tmp_path / name)
        assert _decode(tmp_path / name)[3][4] == [77, 77, 77]


def test_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert _decode(tmp_path / "a.png") == [[[255, 255, 255], [0, 0, 0]]]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert [pixel[0] for pixel in _decode(tmp_path / "a.png")[0]] == [0, 1, 128, 255]


def test_transparent_pixels_lie_on_white(tmp_path: Path) -> None:
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    assert _decode(tmp_path / "rgba.png") == [[[10, 20, 30], [255, 255, 255]]]
    Image.fromarray(pixels[..., [0, 3]]).save(tmp_path / "la.png")
    assert _decode(tmp_path / "la.png") == [[[10, 10, 10], [255, 255, 255]]]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_palette(tmp_path: Path, transparency: int | bytes) -> None:
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    image.putpalette([9, 8, 7, 50, 60, 70])
    image.save(tmp_path / "opaque.png")
    assert _decode(tmp_path / "opaque.png") == [[[9, 8, 7], [50, 60, 70]]]
    image.save(tmp_path / "clear.png", transparency=transparency)
    assert _decode(tmp_path / "clear.png") == [[[9, 8, 7], [255, 255, 255]]]


def test_rgb_with_a_transparent_colour(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    image.save(tmp_path / "a.png", transparency=(4, 5, 6))
    assert _decode(tmp_path / "a.png") == [[[1, 2, 3], [255, 255, 255]]]


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red, green, blue = _decode(tmp_path / "a.jpg")[4][4]
    assert red > 245
    assert max(green, blue) < 10


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_first_frame_of_an_animation(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    assert _decode(tmp_path / name)[0][0] == [255, 0, 0]


def test_jpeg_under_a_png_name(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (128, 128, 128)).save(tmp_path / "a.png", format="JPEG")
    assert _decode(tmp_path / "a.png")[0][0] == [128, 128, 128]


def _write_bad(path: Path, kind: str) -> None:
    if kind == "text":
        path.write_text("no image")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind != "missing":
        noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, format=kind)
        path.write_bytes(path.read_bytes()[:-400])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", "this file is not a JPEG or PNG image"),
        ("empty", r"this image file is empty \(0 bytes\)"),
        ("missing", "this image file does not exist"),
        ("PNG", "this image file is damaged or cut short"),
        ("JPEG", "this image file is damaged or cut short"),
    ],
)
@pytest.mark.parametrize("size", [8, 70])
def test_bad_files_are_named(tmp_path: Path, kind: str, message: str, size: int) -> None:
    path = tmp_path / "bad.png"
    _write_bad(path, kind)
    with pytest.raises(ValueError, match=rf"bad\.png: {message}"):
        decode_rgb(path)
    with pytest.raises(ValueError, match=rf"bad\.png: {message}"):
        decode_square([path], size)


def test_very_large_pictures_warn_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80)
    Image.new("RGB", (10, 10)).save(tmp_path / "large.png")
    assert decode_square([tmp_path / "large.png"], 2).shape == (1, 2, 2, 3)
    Image.new("RGB", (20, 10)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb\.png: this image has 200 pixels, more than are read"):
        decode_rgb(tmp_path / "bomb.png")


@pytest.mark.parametrize("size", [8, 70])
def test_block_is_in_order(tmp_path: Path, size: int) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(30)]
    for number, path in enumerate(paths):
        Image.new("RGB", (9, 5), (number, 0, 0)).save(path)
    assert decode_square(paths, size)[:, 3, 3, 0].tolist() == list(range(30))


def test_bad_images_are_found_in_order(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(9)]
    for path in paths:
        Image.new("RGB", (9, 5)).save(path)
    _write_bad(paths[7], "empty")
    _write_bad(paths[2], "PNG")
    assert [(position, complaint.split(" (")[0]) for position, complaint in find_bad_images(paths)] == [
        (2, f"{paths[2]}: this image file is damaged or cut short"),
        (7, f"{paths[7]}: this image file is empty"),
    ]


def test_a_picture_to_look_at_is_upright_and_no_longer_than_asked(tmp_path: Path) -> None:
    picture = Image.new("RGB", (400, 200), "red")
    picture.paste((0, 0, 255), (0, 0, 200, 200))  # the left half is blue
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees, clockwise
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    upright = decode_upright(tmp_path / "turned.jpg", 100)
    assert upright.size == (50, 100)
    colours = [upright.getpixel((25, row)) for row in (20, 80)]
    assert [max(range(3), key=lambda channel: colour[channel]) for colour in colours] == [2, 0]
    assert decode_upright(tmp_path / "turned.jpg", 1000).size == (200, 400)  # never enlarged
    Image.new("RGBA", (4, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert decode_upright(tmp_path / "clear.png", 10).getpixel((0, 0)) == (255, 255, 255)
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"bad\.png: this file is not a JPEG or PNG image"):
        decode_upright(tmp_path / "bad.png", 10)
