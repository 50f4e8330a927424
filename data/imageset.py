"""Images without labels, images with labels, and data sets: the values that every reader returns.

Shapes: N images of a set, B of a batch, H and W the height and width in pixels (always equal), C = 3 colour channels.
"""

from __future__ import annotations

import hashlib
import itertools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from data.decoding import decode_square
from data.files import content_hash
from data.pixels import PixelHash

IndexArray = NDArray[np.int64]

SplitProtocol = Literal["ratios", "domain"]
"""Rule that splits a data set into ID and OOD: by ratios of classes and images (`data.splits.ratios`), or one domain
against all others (`data.splits.domain`)."""


class Images(Protocol):
    """Images as pixels without labels, which is all that strategies may see."""

    @property
    def fingerprint(self) -> str:
        """64 hex digits: hash of the pixels (or of the file bytes and the image size), in order."""
        ...

    @property
    def image_size(self) -> int:
        """Height and width of what `load` returns, in pixels."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def load(self, idx: IndexArray) -> NDArray[np.uint8]:
        """Pixels of the images `idx`, uint8 (B, H, W, 3), RGB, in the order of `idx`."""
        ...


class ArrayImages:
    """Images held in one uint8 array, in memory or memory-mapped."""

    __slots__ = ("_fingerprint", "pixels_NHWC")

    def __init__(self, pixels_NHWC: NDArray[np.uint8], *, fingerprint: str | None = None) -> None:
        """Wrap an array of shape (N, H, W, 3) with H = W, RGB. It is not copied, and cannot be changed through this.

        `fingerprint` is given by a reader that has stored it; otherwise it is computed from the pixels.
        """
        assert pixels_NHWC.dtype == np.uint8, pixels_NHWC.dtype
        _, height, width, num_channels = pixels_NHWC.shape
        assert (width, num_channels) == (height, 3), pixels_NHWC.shape
        # Read-only: plug-in strategies get these images, and all trials of a process share them.
        self.pixels_NHWC = pixels_NHWC.view()
        self.pixels_NHWC.flags.writeable = False
        self._fingerprint = fingerprint or PixelHash.of(pixels_NHWC)

    @property
    def fingerprint(self) -> str:
        """64 hex digits: hash of the pixels, in order."""
        return self._fingerprint

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return int(self.pixels_NHWC.shape[1])

    def __len__(self) -> int:
        """Number of images."""
        return int(self.pixels_NHWC.shape[0])

    def load(self, idx: IndexArray) -> NDArray[np.uint8]:
        """A copy of the images `idx`, uint8 (B, H, W, 3), in the order of `idx`."""
        return np.asarray(self.pixels_NHWC[idx])


_FILES: dict[int, tuple[Path, tuple[str, ...]]] = {}
"""Folder and file names of each PathImages, by its key."""
# Not in the object, which strategies hold: the folder that an image lies in is its hidden label.
_KEYS = itertools.count()


class PathImages:
    """Image files that are decoded on demand: the shorter side resized to `image_size`, then the centre cropped."""

    __slots__ = ("__weakref__", "_fingerprint", "_image_size", "_key")

    def __init__(self, root: Path, names: Sequence[str], *, image_size: int, fingerprint: str) -> None:
        """Images `root / name` for each of `names`; `fingerprint` identifies the bytes of all files, in order."""
        assert image_size > 0, image_size
        self._key = next(_KEYS)
        _FILES[self._key] = root, tuple(names)
        weakref.finalize(self, _FILES.pop, self._key)
        self._image_size = image_size
        self._fingerprint = fingerprint

    @property
    def fingerprint(self) -> str:
        """64 hex digits: hash of the file bytes, in order, and of the image size."""
        return self._fingerprint

    @property
    def image_size(self) -> int:
        """Height and width of what `load` returns, in pixels."""
        return self._image_size

    def __len__(self) -> int:
        """Number of images."""
        return len(_FILES[self._key][1])

    def load(self, idx: IndexArray) -> NDArray[np.uint8]:
        """The images `idx`, decoded now: uint8 (B, H, W, 3), in the order of `idx`.

        Raises ValueError naming the file if one cannot be decoded.
        """
        root, names = _FILES[self._key]
        return decode_square([root / names[index] for index in idx], self._image_size)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageSet:
    """Images and their labels."""

    images: Images
    labels: NDArray[np.int64]
    """(N,), 0..C-1 for C classes; C for an image of another domain (only if the split protocol is "domain")."""

    def __post_init__(self) -> None:
        """Check that images and labels belong together."""
        assert self.labels.dtype == np.int64, self.labels.dtype
        assert self.labels.shape == (len(self.images),), (self.labels.shape, len(self.images))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def class_sizes(self, num_classes: int) -> NDArray[np.int64]:
        """(num_classes,) int64, the number of images of each class; images of another domain are in none of them."""
        return np.bincount(self.labels, minlength=num_classes)[:num_classes].astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataSet:
    """Training and test images of one data set with what is needed to use them. Made by `make_data_set`."""

    name: str
    """Name as the user wrote it: one of the registry, or `folder:<path>`."""
    class_names: tuple[str, ...]
    """C names; label c is `class_names[c]`."""
    train: ImageSet
    test: ImageSet
    pretrain: ImageSet | None
    """Images disjoint from train and test, for training a stand-in CLIPN; None if there are none."""
    mean: tuple[float, float, float]
    """Mean of each channel over the training images, in [0, 1] units (the published value if there is one)."""
    std: tuple[float, float, float]
    """Standard deviation of each channel over all pixels, in the units of `mean`."""
    fingerprint: str
    """Hash (64 hex digits) of all of the above that changes numbers; not of the name or of the files' location."""
    split_protocol: SplitProtocol = "ratios"
    domain: str | None = None
    """The word for the data set's domain in prompts ("real"); None if it has none. Not part of the fingerprint."""
    notes: tuple[str, ...] = ()
    """Facts about the images for a reader of the results (`data.deceptive`). Not part of the fingerprint."""

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return len(self.class_names)

    @property
    def image_size(self) -> int:
        """Height and width of every image, in pixels."""
        return self.train.images.image_size


def make_data_set(
    *,
    name: str,
    class_names: tuple[str, ...],
    train: ImageSet,
    test: ImageSet,
    pretrain: ImageSet | None = None,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    split_protocol: SplitProtocol = "ratios",
    domain: str | None = None,
    notes: tuple[str, ...] = (),
) -> DataSet:
    """The data set with its fingerprint computed from everything but the name, the domain's word and the notes."""
    for image_set in (train, test, pretrain):
        if image_set is not None:
            has_others = split_protocol == "domain" and image_set is train
            assert image_set.images.image_size == train.images.image_size
            assert set(np.unique(image_set.labels)) <= set(range(len(class_names) + has_others))
    identity: dict[str, object] = {
        "class_names": class_names,
        "train": _identity(train),
        "test": _identity(test),
        "pretrain": _identity(pretrain) if pretrain else None,
        "mean": mean,
        "std": std,
    }
    # Only if it is not the default: fingerprints of data sets opened before the field existed stay the same.
    if split_protocol != "ratios":
        identity["split_protocol"] = split_protocol
    fingerprint = content_hash(identity)
    return DataSet(
        name=name,
        class_names=class_names,
        train=train,
        test=test,
        pretrain=pretrain,
        mean=mean,
        std=std,
        fingerprint=fingerprint,
        split_protocol=split_protocol,
        domain=domain,
        notes=notes,
    )


def _identity(image_set: ImageSet) -> dict[str, str]:
    """Hashes of the images and the labels."""
    labels = np.ascontiguousarray(image_set.labels, dtype="<i8")
    return {"images": image_set.images.fingerprint, "labels": hashlib.sha256(labels.data).hexdigest()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Location and size of a data set that is present."""

    where: str
    """Folder of its files, or the package that holds it."""
    num_train: int
    """Number of training images."""
    num_test: int
    note: str = ""
    """Remark for people, such as whether the files are the published ones."""
