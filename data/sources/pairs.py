"""Image-caption pairs from a CSV file with the columns `path` and `caption`.

Shapes: N pairs, S image size in pixels.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.console import Progress, StepReporter
from data.decoding import decode_square
from data.files import content_hash, file_hash
from data.image_store import MAX_ARRAY_SIZE
from data.imageset import ArrayImages, Images, PathImages

OnBadImage = Literal["stop", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Images, each with a caption."""

    images: Images
    captions: tuple[str, ...]
    """N texts; caption i belongs to image i."""
    skipped: tuple[str, ...]
    """One message for each image that was skipped, with its name and the problem."""

    def draw(self, num_pairs: int | None, *, seed: int) -> NDArray[np.int64]:
        """Positions of `num_pairs` random pairs, sorted int64; None for all.

        Raises ValueError for fewer than two or more than there are.
        """
        if num_pairs is None:
            return np.arange(len(self.captions))
        if not 2 <= num_pairs <= len(self.captions):
            raise ValueError(f"--images is {num_pairs}; it must be in 2..{len(self.captions)}")
        return np.sort(np.random.default_rng(seed).permutation(len(self.captions))[:num_pairs])


def read_pairs(path: Path, *, image_size: int, on_bad_image: OnBadImage, progress: Progress) -> Pairs:
    """The pairs of a UTF-8 CSV file, in its order; image paths are relative to the file's folder.

    Every image is decoded once, so that a bad one is found before any training: it stops the reading, or is skipped
    and reported. Images of up to 64 pixels are held in memory, larger ones decoded on demand; the shorter side is
    resized to `image_size`, then the centre cropped.

    Raises ValueError naming the file and the line for a missing or bad CSV file, an empty field, a bad image
    (`on_bad_image` "stop"), and if fewer than two pairs remain.
    """
    rows = list(_read_rows(path))
    names, captions, skipped, pixels = [], [], [], []
    reporter = StepReporter(f"reading the images of {path.name}", len(rows), progress)
    for number, (line, name, caption) in enumerate(rows, start=1):
        try:
            pixels_1SS3 = decode_square([path.parent / name], image_size)
        except ValueError as error:
            if on_bad_image == "stop":
                raise ValueError(
                    f"line {line} of {path}: {error}; or skip such images with --on-bad-image skip"
                ) from error
            skipped.append(str(error))
            progress(f"skipped: {error}")
            continue
        names.append(name)
        captions.append(caption)
        if image_size <= MAX_ARRAY_SIZE:
            pixels.append(pixels_1SS3)
        reporter.done(number)
    if len(names) < 2:
        raise ValueError(f"{path}: {len(names)} usable pairs; at least 2 are needed")
    images: Images
    if image_size <= MAX_ARRAY_SIZE:
        images = ArrayImages(np.concatenate(pixels))
    else:
        hashes = [file_hash(path.parent / name) for name in names]
        images = PathImages(
            path.parent,
            names,
            image_size=image_size,
            fingerprint=content_hash({"files": hashes, "image_size": image_size}),
        )
    return Pairs(images=images, captions=tuple(captions), skipped=tuple(skipped))


def _read_rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, path, caption) of each row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"path", "caption"} <= set(reader.fieldnames or ()):
                raise ValueError(f"{path}: the first line must name the columns path and caption")
            for row in reader:
                name, caption = (row["path"] or "").strip(), (row["caption"] or "").strip()
                if not name or not caption:
                    raise ValueError(f"line {reader.line_num} of {path}: path and caption must both be given")
                yield reader.line_num, name, caption
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {path}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error
