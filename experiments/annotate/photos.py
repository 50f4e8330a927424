"""The photos of a folder and their frozen features, computed once per image; imports no torch by itself.

A folder grows: features lie in the feature store in parts, and each call computes one more part for what is new or was
changed. Shapes: N sound images, D embedding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.console import Progress
from data.decoding import find_bad_images
from data.files import content_hash, file_hash, write_text_atomically
from data.image_files import ImageFile, Tree, list_tree, state_of_files
from data.image_store import open_stored_images
from data.imageset import ImageSet, make_data_set
from data.sealed import read_sealed_json, seal
from models.clipn.source import ClipnSource, clip_config, clipn_identity

if TYPE_CHECKING:
    from models.clipn.features import VisionLanguage

PARTS = "features.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Photos:
    """The sound images of a folder with their features."""

    names: tuple[str, ...]
    """Paths relative to the folder, sorted."""
    damaged: Mapping[str, str]
    """Image that cannot be read -> the reason."""
    num_other: int
    """Files that are no images."""
    features_ND: NDArray[np.float32]
    """Unit rows."""
    towers: VisionLanguage | None
    """The text towers; None with features of one's own."""
    identity: str
    """Identity (64 hex digits) of names and features."""


def list_photos(folder: Path) -> Tree:
    """The image files of the folder. Raises ValueError if there are none."""
    tree = list_tree(folder)
    if not tree.files:
        other = f"; it holds {tree.num_other:,} other files" if tree.num_other else ""
        raise ValueError(f"{folder}: there are no images in this folder (JPEG, PNG, GIF, WebP or BMP){other}")
    return tree


def photos_with_own_features(folder: Path, path: Path) -> Photos:
    """The photos with the rows of a .npy file, in the order of `list_photos`; the images are not opened.

    Raises ValueError for a file that is not an array of numbers with a row per image.
    """
    tree = list_photos(folder)
    try:
        rows_ND = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"--features: there is no file {path}") from None
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"--features: {path} is not an array as numpy.save writes it ({error})") from None
    if rows_ND.ndim != 2 or rows_ND.dtype.kind not in "fiu" or rows_ND.shape[1] < 1:
        raise ValueError(
            f"--features: {path} holds {rows_ND.dtype} of shape {rows_ND.shape}; a row of numbers per image is needed"
        )
    if len(rows_ND) != len(tree.files):
        raise ValueError(
            f"--features: {path} has {len(rows_ND):,} rows, but {folder} has {len(tree.files):,} images; rows are in "
            "the order of --list-images"
        )
    features_ND = np.asarray(rows_ND, dtype=np.float32)
    lengths_N = np.linalg.norm(features_ND, axis=1)
    bad = np.flatnonzero(~np.isfinite(lengths_N) | (lengths_N == 0))
    if len(bad):
        raise ValueError(f"--features: row {bad[0]} of {path} is zero or not finite ({len(bad)} such rows)")
    names = tuple(file.name for file in tree.files)
    return Photos(
        names=names,
        damaged=dict(tree.left_out),
        num_other=tree.num_other,
        features_ND=features_ND / lengths_N[:, None],
        towers=None,
        identity=content_hash({"images": state_of_files(tree.files), "features": file_hash(path)}),
    )


def photos_with_features(
    folder: Path, classes: tuple[str, ...], source: ClipnSource, directory: Path, *, device: str, progress: Progress
) -> Photos:
    """The photos with features of the image tower of `source`, each computed once; parts are listed in `directory`.

    Raises ValueError if no image can be decoded, and for weights that cannot be used or downloaded.
    """
    from models.clipn.features import VisionLanguage

    tree = list_photos(folder)

    def opened(parts: Sequence[tuple[ImageFile, ...]]) -> list[_Part]:
        return [_open_part(folder, part, classes, source, device, progress) for part in parts]

    earlier = [part for part in _read_parts(directory / PARTS) if not set(part).isdisjoint(tree.files)]
    known = {file for part in earlier for file in part}
    new = tuple(file for file in tree.files if file not in known)
    parts = [*earlier, *([new] if new else [])]
    # Before they are computed: a killed run continues with the same part, and so with its finished shards.
    _write_parts(directory / PARTS, parts)
    try:
        encoded = opened(parts)
    except (ValueError, OSError):
        # The cache was emptied, and images of an earlier part are gone or changed: that part cannot be made again.
        if len(parts) == 1 and parts[0] == tree.files:
            raise
        parts = [tree.files]
        _write_parts(directory / PARTS, parts)
        encoded = opened(parts)
    place_of = {file: (number, row) for number, part in enumerate(parts) for row, file in enumerate(part)}
    names, rows, damaged = [], [], dict(tree.left_out)
    for file in tree.files:
        number, row = place_of[file]
        if row in encoded[number].damaged:
            damaged[file.name] = encoded[number].damaged[row]
        else:
            names.append(file.name)
            rows.append(encoded[number].towers.image_features_ND[encoded[number].row_of[row]])
    if not names:
        raise ValueError(f"{folder}: none of the {len(tree.files):,} images can be decoded")
    last, features_ND = encoded[-1], np.stack(rows)  # 100,000 images of 512 numbers are 0.2 GB
    return Photos(
        names=tuple(names),
        damaged=damaged,
        num_other=tree.num_other,
        features_ND=features_ND,
        towers=VisionLanguage(
            image_features_ND=features_ND,
            logit_scale=last.towers.logit_scale,
            encode_classes=last.towers.text_features,
            encode_texts=last.towers.sentence_features,
        ),
        identity=content_hash({"images": state_of_files(tree.files), "weights": last.identity}),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """Images whose features were computed together."""

    towers: VisionLanguage
    row_of: NDArray[np.int64]
    """Row of each file in the features; meaningless for a damaged one."""
    damaged: Mapping[int, str]
    """Place of each damaged file -> the reason."""
    identity: str
    """Identity of weights and texts."""


def _open_part(
    folder: Path,
    files: Sequence[ImageFile],
    classes: tuple[str, ...],
    source: ClipnSource,
    device: str,
    progress: Progress,
) -> _Part:
    """Decode and encode a part, or open what is stored of it."""
    from models.clipn.features import open_vision_language

    stored = open_stored_images(
        folder,
        {"train": files},
        what=str(folder),
        image_size=clip_config(source.model)["vision_cfg"]["image_size"],
        skip_bad=True,
        progress=lambda line: None if line.startswith("skipped:") else progress(line),
    )
    kept = stored.kept["train"]
    bad = np.flatnonzero(~kept)
    reasons = dict(find_bad_images([folder / files[row].name for row in bad.tolist()]))
    images = ImageSet(images=stored.images["train"], labels=np.zeros(int(kept.sum()), dtype=np.int64))
    data_set = make_data_set(
        name=str(folder), class_names=classes, train=images, test=images, mean=stored.mean, std=stored.std
    )
    return _Part(
        towers=open_vision_language(data_set, source, device=device, progress=progress),
        row_of=np.cumsum(kept) - 1,
        damaged={row: _reason(reasons.get(number, "damaged")) for number, row in enumerate(bad.tolist())},
        identity=clipn_identity(source, data_set),
    )


def _reason(complaint: str) -> str:
    """What is wrong with a file, without its path and without advice about data sets."""
    return complaint.partition(": ")[2].partition(";")[0].partition(": convert")[0] or complaint


def _read_parts(path: Path) -> list[tuple[ImageFile, ...]]:
    """The files of each part that was begun; none if the list is missing or damaged, since it can be made again."""
    try:
        content, _ = read_sealed_json(path, PARTS)
    except (ValueError, OSError):
        return []
    return [
        tuple(
            ImageFile(name=name, num_bytes=num_bytes, times_ns=(changed, touched))
            for name, num_bytes, changed, touched in part
        )
        for part in content["parts"]
    ]


def _write_parts(path: Path, parts: Sequence[Sequence[ImageFile]]) -> None:
    lists = [[[file.name, file.num_bytes, *file.times_ns] for file in part] for part in parts]
    write_text_atomically(path, json.dumps(seal({"parts": lists}, PARTS)) + "\n")
