"""Decoding of image files to RGB pixels, for every kind of JPEG or PNG.

Shapes: B images of a block, H and W height and width, C = 3 channels.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

# Only these decoders are offered a file. JPEG and PNG are what data sets are made of; the others are here because such
# files are met under a .jpg or .png name. An animated file gives its first frame.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")

_ORIENTATION = 0x0112
"""EXIF tag of the camera's orientation."""
_KINDS = {
    b"II*\x00": "a TIFF image", b"MM\x00*": "a TIFF image", b"%PDF": "a PDF document", b"PK\x03\x04": "a ZIP archive",
    b"<svg": "an SVG drawing", b"<?xml": "an XML file, such as an SVG drawing", b"<!DOC": "a web page, not the image",
    b"<html": "a web page, not the image", b"version https://git-lfs": "a pointer of Git LFS (git lfs pull fetches it)",
    b"8BPS": "a Photoshop image", b"\x00\x00\x01\x00": "an icon", b"DICM": "a DICOM image",
}  # fmt: skip
"""First bytes of file kinds that occur among images but are not read -> name of the kind."""
_FTYPES = {
    b"heic": "a HEIC photograph",
    b"heix": "a HEIC photograph",
    b"mif1": "a HEIF image",
    b"avif": "an AVIF image",
}

_SMALL = (
    64  # up to this size one thread is faster: 0.2 ms per image against 0.45 ms with two threads (2 cores, n = 1000)
)


def decode_rgb(path: Path) -> Image.Image:
    """The file's picture as an RGB image with 8 bits per channel, in its original size.

    Grey is repeated in three channels; 16-bit levels are scaled to 8 bits; transparent pixels are laid on white; CMYK
    is converted; of an animation the first frame is taken. The EXIF orientation is ignored, as is usual for data sets.

    Raises ValueError naming the file if it is missing, empty, cut short or not an image.
    """
    with _no_warnings():
        return _decode(path)


def decode_upright(path: Path, longest: int) -> Image.Image:
    """The file's picture as a person is to see it: RGB, rotated as its EXIF data ask, at most `longest` pixels long.

    Raises ValueError as `decode_rgb` does.
    """
    # Warnings are left alone: this runs in a server's threads, and the filter belongs to the whole process.
    with _named_errors(path), Image.open(path, formats=FORMATS) as image:
        image.draft("RGB", (longest, longest))  # JPEG: decoded at a half, a quarter or an eighth of its size if it can
        image.load()
        upright = _to_rgb(ImageOps.exif_transpose(image))
    upright.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return upright


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels from the file's header alone. Raises ValueError as `decode_rgb` does."""
    with _no_warnings(), _named_errors(path), Image.open(path, formats=FORMATS) as image:
        return image.size


def fit_square(image: Image.Image, size: int) -> Image.Image:
    """The image with its shorter side resized to `size` (bicubic), centre cropped to `size` x `size` pixels."""
    width, height = image.size
    if (width, height) == (size, size):
        return image
    scale = size / min(width, height)
    resized = image.resize(
        (max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.BICUBIC
    )
    left, top = (resized.width - size) // 2, (resized.height - size) // 2
    return resized.crop((left, top, left + size, top + size))


def decode_square(paths: Sequence[Path], size: int) -> NDArray[np.uint8]:
    """The pictures of these files, cropped by `fit_square`: uint8 (B, size, size, 3), in the order of `paths`.

    Raises ValueError naming the first file that cannot be decoded.
    """
    pixels_BHWC = np.empty((len(paths), size, size, 3), dtype=np.uint8)

    def decode(row: int) -> None:
        pixels_BHWC[row] = np.asarray(fit_square(_decode(paths[row]), size))

    with _no_warnings():
        if size <= _SMALL:
            for row in range(len(paths)):
                decode(row)
        else:
            with _threads() as threads:
                list(threads.map(decode, range(len(paths))))
    return pixels_BHWC


def decode_content(content: bytes, size: int) -> NDArray[np.uint8]:
    """The picture of a file's content, cropped by `fit_square`: uint8 (size, size, 3).

    Raises ValueError for content that cannot be decoded. Pillow's warnings are left to the caller: see `_no_warnings`.
    """
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            image.load()
            return np.asarray(fit_square(_to_rgb(image), size))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"this is no image that can be decoded, {len(content):,} bytes ({error})") from None


def find_bad_images(paths: Sequence[Path]) -> list[tuple[int, str]]:
    """Position in `paths` and the error message, for each file that cannot be decoded; in order."""

    def try_to_decode(path: Path) -> str | None:
        try:
            _decode(path)
        except ValueError as error:
            return str(error)
        return None

    with _no_warnings(), _threads() as threads:
        complaints = list(threads.map(try_to_decode, paths))
    return [(position, complaint) for position, complaint in enumerate(complaints) if complaint is not None]


def _threads() -> ThreadPoolExecutor:
    """Threads for decoding, which Pillow does outside Python's lock; they end with the call."""
    # Not kept between calls: threads do not survive a fork.
    return ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0))))


def rotation_of(path: Path) -> bool:
    """Whether the file's EXIF data ask for the picture to be rotated or mirrored for display."""
    with _no_warnings(), _named_errors(path), Image.open(path, formats=FORMATS) as image:
        return image.getexif().get(_ORIENTATION, 1) in range(2, 9)


def levels_in_words(path: Path) -> str:
    """The lowest and the highest level of a file's picture, of how many its format has: "levels 0 to 4,095 of 65,535
    (12 of 16 bits)"."""
    with _no_warnings(), _named_errors(path), Image.open(path, formats=FORMATS) as image:
        levels = np.asarray(image if image.mode.startswith("I") else image.convert("RGB"))
    num_bits, low, high = (16 if levels.ndim == 2 else 8), int(levels.min()), int(levels.max())
    used = max(high.bit_length(), 1)
    return f"levels {low:,} to {high:,} of {2**num_bits - 1:,} ({used} of {num_bits} bits)"


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Silence Pillow's warnings about odd palettes and very large pictures; both are decoded correctly."""
    # The filter belongs to the whole process, so this is entered outside the decoding threads, never in them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turn what Pillow raises for a bad file into a ValueError that names it."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: {_what_is_wrong(path, error)}") from error


def _decode(path: Path) -> Image.Image:
    """The file's picture as `decode_rgb` returns it, without changing how warnings are handled."""
    with _named_errors(path), Image.open(path, formats=FORMATS) as image:
        image.load()  # some formats settle their mode and transparency only now
        return _to_rgb(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image of any mode as RGB."""
    if image.mode.startswith("I"):  # 16-bit grey; a plain conversion would clip at 255 instead of scaling
        levels_HW = np.asarray(image).astype(np.int64)
        grey_HW = ((np.clip(levels_HW, 0, 65535) + 128) // 257).astype(np.uint8)
        return Image.fromarray(grey_HW).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        picture = image.convert("RGBA")
        # Composed, not converted: a plain conversion would show the arbitrary colours under transparent pixels.
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return image.convert("RGB")


def _what_is_wrong(path: Path, error: Exception) -> str:
    """One line for the user about a file that cannot be decoded: the problem and what to do."""
    if isinstance(error, PermissionError):
        return "this image file may not be read; change its permissions"
    if not path.is_file():
        return "this image file does not exist"
    if path.stat().st_size == 0:
        return "this image file is empty (0 bytes); copy it again or remove it (or --on-bad-image skip)"
    if isinstance(error, Image.DecompressionBombError):
        pixels = re.search(r"\((\d+) pixels\)", str(error))
        num = f"{int(pixels[1]):,}" if pixels else "too many"
        return f"this image has {num} pixels, more than are read; make it smaller or remove it (or --on-bad-image skip)"
    if isinstance(error, UnidentifiedImageError):
        kind = _kind_of(path)
        if kind is not None:
            return (
                f"this file is {kind}; JPEG or PNG is expected: convert it, or remove it from the class folders (or "
                "--on-bad-image skip)"
            )
        return "this file is not a JPEG or PNG image; remove it from the class folders (or --on-bad-image skip)"
    return f"this image file is damaged or cut short ({error}); copy it again or remove it (or --on-bad-image skip)"


def _kind_of(path: Path) -> str | None:
    """Kind of a file that no decoder knows, by its first bytes; None if it is not in the lists above."""
    with path.open("rb") as file:
        head = file.read(132)
    if head[4:8] == b"ftyp":
        return _FTYPES.get(head[8:12], "a video or HEIF file")
    starts = (head.lstrip()[:64].lower(), head, head[128:])
    return next(
        (kind for start, kind in _KINDS.items() if any(h.startswith((start, start.lower())) for h in starts)), None
    )
