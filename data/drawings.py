"""`python -m data.drawings DIR`: drawn images in the layout of DomainNet, to try its commands without 18.5 GB.

Ten shapes in the styles of six domains. DIR then holds `domainnet` (as published: folders `<domain>/<class>`, lists
`<domain>_train.txt` and `<domain>_test.txt`) and `drawings`, an image folder of other drawings of the same shapes in
all styles, to train a small CLIPN on. Equal arguments give equal images. Results on them say nothing about a method.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data.console import DONE, CommandParser, run_command
from data.files import path_argument
from data.sources.domainnet_lists import DOMAINS, FOLDER

SIDE = 32
"""Height and width of an image, in pixels."""
_LARGE = 4 * SIDE
"""Height and width that an image is drawn at before it is reduced, in pixels."""

Point = tuple[float, float]
Colour = tuple[int, int, int]


def _regular(corners: int, *, inner: float = 1.0, turn: float = 0.0) -> list[Point]:
    """The corners of a polygon (or with `inner` below 1 of a star) in the unit circle."""
    steps = corners if inner == 1.0 else 2 * corners
    angles = [2 * math.pi * step / steps - math.pi / 2 + turn for step in range(steps)]
    radii = [inner if step % 2 else 1.0 for step in range(steps)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in zip(radii, angles, strict=True)]


def _bars(*boxes: tuple[float, float, float, float]) -> list[list[Point]]:
    return [[(left, top), (right, top), (right, bottom), (left, bottom)] for left, top, right, bottom in boxes]


SHAPES: dict[str, list[list[Point]]] = {
    "circle": [_regular(40)],
    "cross": _bars((-1, -0.3, 1, 0.3), (-0.3, -1, 0.3, 1)),
    "diamond": [[(0, -1), (0.6, 0), (0, 1), (-0.6, 0)]],
    "hourglass": [[(-0.9, -1), (0.9, -1), (-0.9, 1), (0.9, 1)]],
    "house": [[(-1, 0), (0, -1), (1, 0)], [(-0.7, 0), (0.7, 0), (0.7, 1), (-0.7, 1)]],
    "ladder": _bars((-0.8, -1, -0.5, 1), (0.5, -1, 0.8, 1), (-0.8, -0.5, 0.8, -0.25), (-0.8, 0.25, 0.8, 0.5)),
    "moon": [[*_regular(40)[:21], *((0.45 * x, 0.8 * y) for x, y in reversed(_regular(40)[:21]))]],
    "square": [[(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]],
    "star": [_regular(5, inner=0.4)],
    "triangle": [_regular(3)],
}
"""Class -> polygons in [-1, 1]^2, y downwards; the names are in alphabetical order, as the published classes."""


def _colour(generator: np.random.Generator, low: int, high: int) -> Colour:
    red, green, blue = (int(value) for value in generator.integers(low, high, 3))
    return red, green, blue


def _placed(shape: list[list[Point]], generator: np.random.Generator, size: float) -> list[list[Point]]:
    """The polygons in pixels: near the middle, slightly rotated, of about that size (share of the image)."""
    angle = generator.uniform(-0.25, 0.25)
    scale = _LARGE / 2 * size * generator.uniform(0.85, 1.1)
    x0, y0 = _LARGE / 2 + generator.uniform(-0.08, 0.08, 2) * _LARGE
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    return [[(float(x0 + x * cos - y * sin), float(y0 + x * sin + y * cos)) for x, y in part] for part in shape]


def _filled(image: Image.Image, parts: list[list[Point]], colour: Colour, *, edge: Colour | None = None) -> None:
    for part in parts:
        ImageDraw.Draw(image).polygon(part, fill=colour, outline=edge, width=6)


def _outlined(image: Image.Image, parts: list[list[Point]], colour: Colour, *, width: int) -> None:
    for part in parts:
        ImageDraw.Draw(image).line([*part, part[0]], fill=colour, width=width, joint="curve")


def _noisy(image: Image.Image, generator: np.random.Generator, deviation: float) -> Image.Image:
    noisy = np.asarray(image, dtype=np.float64) + generator.normal(0, deviation, (_LARGE, _LARGE, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _clipart(shape: list[list[Point]], generator: np.random.Generator) -> Image.Image:
    """A shape in one bright colour with a dark edge on white."""
    image = Image.new("RGB", (_LARGE, _LARGE), "white")
    _filled(image, _placed(shape, generator, 0.75), _colour(generator, 60, 240), edge=(20, 20, 20))
    return image


def _infograph(shape: list[list[Point]], generator: np.random.Generator) -> Image.Image:
    """A smaller shape above lines that stand for text, on a pale ground."""
    image = Image.new("RGB", (_LARGE, _LARGE), _colour(generator, 210, 255))
    _filled(image, _placed(shape, generator, 0.55), _colour(generator, 20, 170))
    for row in range(3):
        y, length = _LARGE - 8 - 9 * row, int(generator.integers(30, _LARGE - 10))
        ImageDraw.Draw(image).line([(6, y), (6 + length, y)], fill=(90, 90, 90), width=3)
    return image


def _painting(shape: list[list[Point]], generator: np.random.Generator) -> Image.Image:
    """A shape and a ground whose colours run into each other."""
    image = Image.new("RGB", (_LARGE, _LARGE), _colour(generator, 90, 190))
    _filled(image, _placed(shape, generator, 0.75), _colour(generator, 0, 255))
    return _noisy(image.filter(ImageFilter.GaussianBlur(5)), generator, 25)


def _quickdraw(shape: list[list[Point]], generator: np.random.Generator) -> Image.Image:
    """The outline of a shape as a thin black line on white."""
    image = Image.new("RGB", (_LARGE, _LARGE), "white")
    shaky = [
        [(x + generator.normal(0, 2), y + generator.normal(0, 2)) for x, y in part]
        for part in _placed(shape, generator, 0.8)
    ]
    _outlined(image, shaky, (0, 0, 0), width=5)
    return image


def _real(shape: list[list[Point]], generator: np.random.Generator) -> Image.Image:
    """A shape with a shadow on a ground that grows darker downwards."""
    ground = np.linspace(generator.uniform(150, 230), generator.uniform(40, 120), _LARGE)[:, None, None]
    tint = np.array(_colour(generator, 180, 255)) / 255
    image = Image.fromarray((ground * tint * np.ones((1, _LARGE, 1))).astype(np.uint8))
    parts = _placed(shape, generator, 0.7)
    _filled(image, [[(x + 6, y + 8) for x, y in part] for part in parts], (35, 35, 35))
    image = image.filter(ImageFilter.GaussianBlur(3))
    _filled(image, parts, _colour(generator, 40, 255))
    return _noisy(image, generator, 12)


def _sketch(shape: list[list[Point]], generator: np.random.Generator) -> Image.Image:
    """The outline of a shape in several grey strokes on a paper-like ground."""
    image = Image.new("RGB", (_LARGE, _LARGE), (240, 238, 230))
    parts = _placed(shape, generator, 0.75)
    for _ in range(3):
        grey = int(generator.integers(60, 150))
        shift = generator.normal(0, 3, 2)
        strokes = [[(x + float(shift[0]), y + float(shift[1])) for x, y in part] for part in parts]
        _outlined(image, strokes, (grey, grey, grey), width=3)
    return _noisy(image, generator, 8)


MANNERS: dict[str, Callable[[list[list[Point]], np.random.Generator], Image.Image]] = {
    "clipart": _clipart, "infograph": _infograph, "painting": _painting, "quickdraw": _quickdraw, "real": _real,
    "sketch": _sketch,
}  # fmt: skip


def draw(class_name: str, domain: str, generator: np.random.Generator) -> Image.Image:
    """An image of `SIDE` x `SIDE` pixels of that class in the style of that domain."""
    return MANNERS[domain](SHAPES[class_name], generator).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def write_drawings(root: Path, *, num_train: int = 24, num_test: int = 8, seed: int = 0) -> None:
    """Write both data sets below `root`, which is created, with these numbers of images per class and domain.

    Raises ValueError if one of them exists already, and for numbers below 1.
    """
    if min(num_train, num_test) < 1:
        raise ValueError(f"{num_train} training and {num_test} test images per class and domain; at least 1 of each")
    for name in (FOLDER, "drawings"):
        if (root / name).exists():
            raise ValueError(f"{root / name} is there already; choose another folder, or remove it")
    generator = np.random.default_rng(seed)
    for domain in DOMAINS:
        lines: dict[str, list[str]] = {"train": [], "test": []}
        for label, name in enumerate(SHAPES):
            folder = root / FOLDER / domain / name
            folder.mkdir(parents=True)
            for number in range(num_train + num_test):
                file = f"{domain}_{label + 1:03}_{number + 1:06}.png"
                draw(name, domain, generator).save(folder / file)
                lines["train" if number < num_train else "test"].append(f"{domain}/{name}/{file} {label}")
        for part, of_part in lines.items():
            (root / FOLDER / f"{domain}_{part}.txt").write_text("\n".join(of_part) + "\n")
    for part, num in (("train", num_train), ("test", num_test)):
        for name in SHAPES:
            folder = root / "drawings" / part / name
            folder.mkdir(parents=True)
            for domain in DOMAINS:
                for number in range(num):
                    draw(name, domain, generator).save(folder / f"{domain}_{number}.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the drawings. Returns the exit code: 0, or 2 if they cannot be written."""
    parser = CommandParser(prog="python -m data.drawings", description="Draw a small DomainNet.")
    parser.add_argument("folder", type=path_argument, metavar="DIR", help="folder to write domainnet and drawings to")
    parser.add_argument("--num-train", type=int, default=24, metavar="N", help="training images per class, domain (24)")
    parser.add_argument("--num-test", type=int, default=8, metavar="N", help="test images per class, domain (8)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of everything random (0)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return run_command(parser, _write, arguments)


def _write(options: argparse.Namespace) -> int:
    """Write the images that the command line asks for. Returns the exit code."""
    write_drawings(options.folder, num_train=options.num_train, num_test=options.num_test, seed=options.seed)
    total = len(SHAPES) * len(DOMAINS) * (options.num_train + options.num_test)
    print(f"{options.folder}: {total} images in domainnet, and as many others in drawings")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
