"""`cifar10` and `cifar100`: the published python-version archives, unpacked.

Shapes: N images, H = W = 32 pixels, C = 3 channels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from data.cache import Meta
from data.console import Progress, to_stderr
from data.image_files import data_folder, describe_file, state_of_files
from data.image_store import open_array, open_entry, write_array
from data.imageset import ArrayImages, DataSet, ImageSet, Survey, make_data_set
from data.published import Download, Package
from data.sources.restricted_pickle import load_pickle

_SIZE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Archive:
    """Names and checksums of the files in one of the two archives."""

    name: str
    package: Package
    train_files: tuple[str, ...]
    test_file: str
    meta_file: str
    md5: tuple[str, ...]
    """Published MD5 of the training files, the test file and the meta file, in this order."""
    labels_key: str
    names_key: str
    mean: tuple[float, float, float]
    """Published mean of the channels, as used by the paper's official code; `std` is from there too."""
    std: tuple[float, float, float]

    @property
    def folder(self) -> str:
        """The folder that the archive holds."""
        folder = self.package.files[0].folder
        assert folder is not None
        return folder

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all files of the folder that are read."""
        return (*self.train_files, self.test_file, self.meta_file)


# The checksums are those that torchvision checks.
CIFAR10_PACKAGE = Package(
    files=(
        Download(
            url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            num_bytes=170_498_071,
            algorithm="md5",
            checksum="c58f30108f718f92721af3b95e74349a",
            folder="cifar-10-batches-py",
        ),
    )
)
CIFAR100_PACKAGE = Package(
    files=(
        Download(
            url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            num_bytes=169_001_437,
            algorithm="md5",
            checksum="eb9058c3a382ffc7106e4002c42a8d85",
            folder="cifar-100-python",
        ),
    )
)
_CIFAR10 = _Archive(
    name="cifar10",
    package=CIFAR10_PACKAGE,
    train_files=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test_file="test_batch",
    meta_file="batches.meta",
    md5=(
        "c99cafc152244af753f735de768cd75f",
        "d4bba439e000b95fd0a9bffe97cbabec",
        "54ebc095f3ab1f0389bbae665268c751",
        "634d18415352ddfa80567beed471001a",
        "482c414d41f54cd18b22e5b47cb7c3cb",
        "40351d587109b95175f43aff81a1287e",
        "5ff9c542aee3614f3951f8cda6e48888",
    ),
    labels_key="labels",
    names_key="label_names",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.247, 0.2435, 0.2616),
)
_CIFAR100 = _Archive(
    name="cifar100",
    package=CIFAR100_PACKAGE,
    train_files=("train",),
    test_file="test",
    meta_file="meta",
    md5=(
        "16019d7e3df5f24257cddd939b257f8d",
        "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "7973b15100ade9c7d40fb424638fde48",
    ),
    labels_key="fine_labels",
    names_key="fine_label_names",
    mean=(0.5071, 0.4867, 0.4408),
    std=(0.2675, 0.2565, 0.2761),
)


def read_cifar10(*, root: Path | None = None, progress: Progress | None = None) -> DataSet:
    """CIFAR-10: 50,000 training and 10,000 test images of 10 classes, 32x32 pixels.

    Read from `cifar-10-batches-py` in `root` (or `root` itself), else in `$VLPURE_DATA`. Class names are those of the
    archive. Raises ValueError for a file that is missing or has another form than the published one.

    Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    return _read(_CIFAR10, root, progress)


def read_cifar100(*, root: Path | None = None, progress: Progress | None = None) -> DataSet:
    """CIFAR-100 with its 100 fine classes: 50,000 training and 10,000 test images, 32x32 pixels.

    Read from `cifar-100-python`; otherwise as `read_cifar10`. Names keep their underscores (`pickup_truck`).
    """
    return _read(_CIFAR100, root, progress)


def survey_cifar10(root: Path | None = None) -> Survey:
    """Folder of CIFAR-10 and its numbers of images. Raises ValueError as `read_cifar10` does."""
    return _survey(_CIFAR10, root)


def survey_cifar100(root: Path | None = None) -> Survey:
    """Folder of CIFAR-100 and its numbers of images. Raises ValueError as `read_cifar100` does."""
    return _survey(_CIFAR100, root)


def _survey(archive: _Archive, root: Path | None) -> Survey:
    """The survey of an archive, after reading its files (about a second the first time) and checking their MD5."""
    data_set, source = _read(archive, root, None), _find(archive, root)
    other = [name for name, md5 in zip(archive.files, archive.md5, strict=True) if _md5(source / name) != md5]
    note = f"NOT the published files: {', '.join(other)}" if other else "the published files, by their checksums"
    return Survey(where=str(source), num_train=len(data_set.train), num_test=len(data_set.test), note=note)


def _md5(path: Path) -> str:
    """The file's MD5 (32 hex digits), the algorithm of the published checksums."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _read(archive: _Archive, root: Path | None, progress: Progress | None) -> DataSet:
    """The data set of one of the two archives."""
    source = _find(archive, root)
    state = state_of_files([describe_file(source / name, root=source) for name in archive.files])
    folder, meta = open_entry(
        {"data_set": archive.name, "files": state},
        lambda folder: _build(archive, source, folder),
        what=archive.name,
        progress=progress or to_stderr,
    )
    train, test = (
        ImageSet(
            images=ArrayImages(open_array(folder / f"{part}.npy"), fingerprint=meta["fingerprints"][part]),
            labels=np.array(meta["labels"][part], dtype=np.int64),
        )
        for part in ("train", "test")
    )
    class_names = tuple(meta["class_names"])
    return make_data_set(
        name=archive.name, class_names=class_names, train=train, test=test, mean=archive.mean, std=archive.std
    )


def _find(archive: _Archive, root: Path | None) -> Path:
    """The folder that holds the archive's files, all of them."""
    base = data_folder(root, name=archive.name, how_to_fetch=archive.package.how_to_fetch(archive.name))
    source = base if base.name == archive.folder else base / archive.folder
    for name in archive.files:
        if not (source / name).is_file():
            how = archive.package.how_to_fetch(archive.name, source.parent)
            raise ValueError(f"{source / name}: no such file; {how}")
    return source


def _build(archive: _Archive, source: Path, folder: Path) -> Meta:
    """Write the two arrays of an entry of the image store. Returns its meta data."""
    class_names = _read_class_names(archive, source / archive.meta_file)
    fingerprints, labels = {}, {}
    for part, names in (("train", archive.train_files), ("test", (archive.test_file,))):
        batches = [_read_batch(source / name, archive.labels_key, len(class_names)) for name in names]
        labels[part] = [label for _, batch_labels in batches for label in batch_labels]
        shape = (len(labels[part]), _SIZE, _SIZE, 3)
        fingerprints[part] = write_array(folder / f"{part}.npy", (pixels for pixels, _ in batches), shape)
    return {"class_names": class_names, "fingerprints": fingerprints, "labels": labels}


def _read_class_names(archive: _Archive, path: Path) -> list[str]:
    """The class names of the archive, unchanged."""
    names = load_pickle(path).get(archive.names_key)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: no list of names under '{archive.names_key}'; unpack the archive again")
    return cast(list[str], names)


def _read_batch(path: Path, labels_key: str, num_classes: int) -> tuple[NDArray[np.uint8], list[int]]:
    """Pixels (N, H, W, 3) and labels of one batch file."""
    content = load_pickle(path)
    rows, labels = content.get("data"), content.get(labels_key)
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.shape[1:] != (3 * _SIZE * _SIZE,):
        raise ValueError(f"{path}: 'data' is not an array of {3 * _SIZE * _SIZE} bytes per image; unpack it again")
    if not isinstance(labels, list) or len(labels) != len(rows):
        raise ValueError(f"{path}: '{labels_key}' does not give one label for each of {len(rows)} images")
    wrong = [label for label in labels if type(label) is not int or not 0 <= label < num_classes]
    if wrong:
        raise ValueError(f"{path}: label {wrong[0]!r} is not one of the {num_classes} classes 0..{num_classes - 1}")
    return rows.reshape(-1, 3, _SIZE, _SIZE).transpose(0, 2, 3, 1), labels
