"""Store of decoded images on disk: small ones as one uint8 array per set, decoded once and memory-mapped by all trials.

Larger images stay files; only the results of one pass over all of them are kept (hash, mean, deviation). An entry of
the store is a folder below the cache root. It is valid only once its `meta.json` exists, which is written last.

Shapes: N images of a set, B of a block, H and W height and width, C = 3 channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from data import cache
from data.cache import Meta, clear_write_errors
from data.console import Progress, StepReporter, to_stderr
from data.deceptive import Suspicions
from data.decoding import decode_square, find_bad_images, picture_size
from data.files import content_hash, file_hash, write_atomically
from data.image_files import ImageFile, state_of_files
from data.imageset import ArrayImages, Images, PathImages
from data.pixels import ChannelStatistics, PixelHash

LAYOUT = 2
"""Version that is part of every key: raised if entries written by an older version must not be read any more."""
MAX_ARRAY_SIZE = 64
"""Largest size (pixels) of images that are kept as an array: Tiny-ImageNet's 110,000 take 1.4 GB, mapped and shared."""
SMALLEST_IMAGE = 8
"""Smallest size (pixels) that the networks here take: three halvings leave one pixel."""
MAX_IMAGE_SIZE = 224
"""Size (pixels) that larger images are resized to on demand: the input size of the encoders here."""
_BLOCK = 256
_SAMPLE = 1000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredImages:
    """The images of each named set of files, and the statistics of the set `train`."""

    images: Mapping[str, Images]
    kept: Mapping[str, NDArray[np.bool_]]
    """For each set, which of its files are among its images: all, unless bad ones were skipped."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    notes: tuple[str, ...] = ()
    """One line for each kind of misleading image (`data.deceptive`); empty in entries of earlier versions."""


def open_stored_images(
    root: Path,
    sets: Mapping[str, Sequence[ImageFile]],
    *,
    what: str,
    image_size: int | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> StoredImages:
    """The images of these files, decoded and checked the first time, opened from the cache afterwards.

    Args:
        root: folder that the file names are relative to.
        sets: files of each set; `train` must be among them.
        what: name of the data set for progress lines.
        image_size: height and width in pixels; None takes the median shorter side of the training images, at most 224.
        skip_bad: skip the files that cannot be decoded, naming each, instead of stopping at the first.
        progress: gets lines of text during long work; None prints them on the standard error stream.

    Raises ValueError naming the file that cannot be decoded, the set that has no other, an image that is too small for
    the networks if most are, or the cache folder that cannot be written.
    """
    report = progress or to_stderr
    state = {name: state_of_files(files) for name, files in sets.items()}

    def reporter(doing: str) -> StepReporter:
        return StepReporter(f"{doing} the images of {what}", sum(map(len, sets.values())), report)

    def build(folder: Path) -> Meta:
        bad = _find_bad(root, sets, reporter("checking"), report) if skip_bad else {}
        good = {name: _without(files, bad.get(name, [])) for name, files in sets.items()}
        size = image_size or _choose_image_size(root, good["train"], what)
        return _decode_sets(folder, root, good, size, reporter("reading")) | {"bad": bad}

    # The field is absent if False, so that keys of entries made before it existed stay the same.
    key = {"sets": state, "image_size": image_size} | ({"skip_bad": True} if skip_bad else {})
    folder, meta = open_entry(key, build, what=what, progress=report)
    images: dict[str, Images] = {}
    kept = {}
    for name, all_files in sets.items():
        files = _without(all_files, meta["bad"].get(name, []))
        kept[name] = ~np.isin(np.arange(len(all_files)), meta["bad"].get(name, []))
        fingerprint = meta["fingerprints"][name]
        if meta["as_array"]:
            images[name] = ArrayImages(open_array(folder / f"{name}.npy"), fingerprint=fingerprint)
        else:
            names = [file.name for file in files]
            images[name] = PathImages(root, names, image_size=meta["image_size"], fingerprint=fingerprint)
    return StoredImages(
        images=images,
        kept=kept,
        mean=_triple(meta["mean"]),
        std=_triple(meta["std"]),
        notes=tuple(meta.get("notes", ())),
    )


def open_entry(key: Any, build: Callable[[Path], Meta], *, what: str, progress: Progress) -> tuple[Path, Meta]:
    """Folder and meta data of the store's entry for `key` (JSON-like), which this process builds if it is missing.

    `build` writes arrays into the folder it gets and returns the meta data, which must be JSON-like. Otherwise as
    `data.cache.open_entry`.
    """
    digest = content_hash({"layout": LAYOUT, "key": key})[:32]
    entry = cache.Entry(kind=cache.IMAGES, key=digest, what=what)
    meta = cache.open_entry(entry, build, progress=progress)
    # Entries of earlier versions have no checksums; their pixel hashes find a flipped byte as well.
    if "checksums" not in meta and not are_as_fingerprinted(entry.folder, meta):
        progress(f"{what}: the stored images in {entry.folder} are damaged; they are read again")
        (entry.folder / cache.META).unlink(missing_ok=True)
        meta = cache.open_entry(entry, build, progress=progress)
    return entry.folder, meta


def are_as_fingerprinted(folder: Path, meta: Meta) -> bool:
    """Whether the arrays of an entry without checksums (of an earlier version) match their fingerprints."""
    fingerprints: Mapping[str, str] = meta.get("fingerprints", {})
    arrays = {name: folder / f"{name}.npy" for name in fingerprints}
    return all(
        PixelHash.of(open_array(path)) == fingerprints[name]
        for name, path in arrays.items()
        if path.name in meta["num_bytes"]
    )


def write_array(path: Path, blocks: Iterable[NDArray[np.uint8]], shape: tuple[int, int, int, int]) -> str:
    """Write blocks (B, H, W, 3) as one .npy array of `shape` (N, H, W, 3). Returns its fingerprint (64 hex digits)."""
    pixel_hash = PixelHash(shape[1])

    def write(file: BinaryIO) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        npy_format.write_array_header_1_0(file, header)
        for block_BHWC in blocks:
            pixel_hash.update(block_BHWC)
            file.write(np.ascontiguousarray(block_BHWC).data)

    with clear_write_errors(path.parent):
        write_atomically(path, write)
    return pixel_hash.hexdigest()


def open_array(path: Path) -> NDArray[np.uint8]:
    """The array that `write_array` wrote, (N, H, W, 3), as a read-only memory map."""
    return cast(NDArray[np.uint8], np.load(path, mmap_mode="r", allow_pickle=False))


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    """Three numbers read from JSON."""
    red, green, blue = values
    return red, green, blue


def _choose_image_size(root: Path, files: Sequence[ImageFile], what: str) -> int:
    """Median shorter side of about a thousand of the files, evenly spaced, in pixels; at most 224.

    Raises ValueError naming a file if the median is too small for the networks.
    """
    sample = files[:: -(-len(files) // _SAMPLE)]
    sides = [min(picture_size(root / file.name)) for file in sample]
    median = sorted(sides)[len(sides) // 2]
    if median < SMALLEST_IMAGE:
        number = next(number for number, side in enumerate(sides) if side < SMALLEST_IMAGE)
        raise ValueError(
            f"{root / sample[number].name}: its shorter side is {sides[number]} pixels, and most images of {what} are "
            f"too small for the networks, which need {SMALLEST_IMAGE} or more; enlarge them"
        )
    return min(MAX_IMAGE_SIZE, median)


def _without(files: Sequence[ImageFile], bad: Sequence[int]) -> list[ImageFile]:
    """The files without those at the positions `bad`."""
    left_out = set(bad)
    return [file for number, file in enumerate(files) if number not in left_out]


def _find_bad(
    root: Path, sets: Mapping[str, Sequence[ImageFile]], reporter: StepReporter, report: Progress
) -> dict[str, list[int]]:
    """Positions of the files of each set that cannot be decoded; each is named to `report`.

    Raises ValueError for a set with no other file.
    """
    bad: dict[str, list[int]] = {}
    num_before = 0
    for name, files in sets.items():
        paths = [root / file.name for file in files]
        bad[name] = skip_bad_files(
            paths, what=f"{root}, {name}", num_before=num_before, reporter=reporter, report=report
        )
        num_before += len(files)
    return bad


def skip_bad_files(
    paths: Sequence[Path], *, what: str, num_before: int = 0, reporter: StepReporter, report: Progress
) -> list[int]:
    """Positions of the files that cannot be decoded; each is named to `report`.

    `reporter` shows the progress; `num_before` of its steps were done before. Raises ValueError, with `what` as the
    name of the files, if none of them can be decoded.
    """
    bad = []
    for start in range(0, len(paths), _BLOCK):
        for position, complaint in find_bad_images(paths[start : start + _BLOCK]):
            report(f"skipped: {complaint}")
            bad.append(start + position)
        reporter.done(num_before + min(start + _BLOCK, len(paths)))
    if len(bad) == len(paths):
        raise ValueError(f"{what}: none of the {len(paths)} images can be decoded")
    return bad


def _decode_sets(
    folder: Path, root: Path, sets: Mapping[str, Sequence[ImageFile]], size: int, reporter: StepReporter
) -> Meta:
    """Decode every file once and keep small images as arrays in `folder`. Returns the entry's meta data."""
    as_array = size <= MAX_ARRAY_SIZE
    statistics = ChannelStatistics()
    suspicions = Suspicions(root, sets)
    fingerprints = {}
    num_before = 0
    for name, files in sets.items():
        paths = [root / file.name for file in files]
        blocks = _decoded_blocks(paths, size, reporter, num_before, suspicions)
        if name == "train":
            blocks = _observed(blocks, statistics)
        if as_array:
            shape = (len(paths), size, size, 3)
            fingerprints[name] = write_array(folder / f"{name}.npy", blocks, shape)
        else:
            fingerprints[name] = _hash_files(paths, blocks, size)
        num_before += len(paths)
    mean, std = statistics.result()
    return {
        "image_size": size,
        "as_array": as_array,
        "fingerprints": fingerprints,
        "mean": mean,
        "std": std,
        "notes": suspicions.notes(),
    }


def _decoded_blocks(
    paths: Sequence[Path], size: int, reporter: StepReporter, num_before: int, suspicions: Suspicions
) -> Iterator[NDArray[np.uint8]]:
    """The pictures of `paths` in order, in blocks of uint8 (B, size, size, 3)."""
    for start in range(0, len(paths), _BLOCK):
        block_BHWC = decode_square(paths[start : start + _BLOCK], size)
        suspicions.look(paths[start : start + _BLOCK], block_BHWC)
        yield block_BHWC
        reporter.done(num_before + min(start + _BLOCK, len(paths)))


def _observed(blocks: Iterator[NDArray[np.uint8]], statistics: ChannelStatistics) -> Iterator[NDArray[np.uint8]]:
    """The blocks unchanged; each is added to `statistics` when it is taken."""
    for block_BHWC in blocks:
        statistics.update(block_BHWC)
        yield block_BHWC


def _hash_files(paths: Sequence[Path], blocks: Iterator[NDArray[np.uint8]], size: int) -> str:
    """Hash (64 hex digits) of the bytes of all files and the image size, after every file was decoded once."""
    for _ in blocks:  # decoded only to find a bad image before any training; the pixels are not kept
        pass
    digest = hashlib.sha256(f"files at {size} pixels\n".encode())
    for path in paths:
        digest.update(bytes.fromhex(file_hash(path)))
    return digest.hexdigest()
