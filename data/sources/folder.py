"""`folder:<path>`: an image folder with `train/` and `test/`, in each a folder a class with JPEG or PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.console import Progress
from data.image_files import ImageFile, list_folders, list_images
from data.image_store import open_stored_images
from data.imageset import DataSet, ImageSet, make_data_set

_PARTS = ("train", "test")


def read_folder(path: Path, *, name: str, skip_bad_images: bool = False, progress: Progress | None = None) -> DataSet:
    """The image folder at `path` as a data set; class names are the folder names, sorted; images are sorted by name.

    All files are decoded the first time (with progress), so that a bad one is found before any training. Images whose
    median shorter side is at most 64 pixels are kept as one array a set; larger ones are decoded on demand, the shorter
    side resized to at most 224 pixels. Mean and deviation are those of the training images.

    `skip_bad_images`: files that are no whole image are left out, each named to `progress`.

    Raises ValueError, naming the path, for a missing folder, fewer than two classes, classes that differ between
    `train/` and `test/`, an empty class folder, a file that is no whole image, and a link that leaves `path`.
    """
    root = path.expanduser()
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; {name} must be a folder with train/ and test/ in it")
    classes = {part: _list_classes(root, part) for part in _PARTS}
    _check_same_classes(root, classes["train"], classes["test"])
    files: dict[str, list[ImageFile]] = {part: [] for part in _PARTS}
    labels: dict[str, list[int]] = {part: [] for part in _PARTS}
    for part in _PARTS:
        for label, class_name in enumerate(classes[part]):
            of_class = list_images(root / part / class_name, root=root)
            if not of_class:
                raise ValueError(f"{root / part / class_name}: this class folder is empty; add images or remove it")
            files[part].extend(of_class)
            labels[part].extend([label] * len(of_class))
    stored = open_stored_images(root, files, what=name, skip_bad=skip_bad_images, progress=progress)
    train, test = (
        ImageSet(images=stored.images[part], labels=np.array(labels[part], dtype=np.int64)[stored.kept[part]])
        for part in _PARTS
    )
    return make_data_set(
        name=name, class_names=tuple(classes["train"]), train=train, test=test, mean=stored.mean, std=stored.std
    )


def _list_classes(root: Path, part: str) -> list[str]:
    """Sorted class names of `train` or `test`."""
    folder = root / part
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; {root} must hold train/ and test/ with a folder a class in each")
    return list_folders(folder, root=root)


def _check_same_classes(root: Path, train: list[str], test: list[str]) -> None:
    """Raise ValueError unless both parts hold the same two or more classes."""
    for here, there, here_names, there_names in (("train", "test", train, test), ("test", "train", test, train)):
        missing = sorted(set(here_names) - set(there_names))
        if missing:
            raise ValueError(
                f"{root}: {here}/ has the class '{missing[0]}' but {there}/ has not; both need every class"
            )
    if len(train) < 2:
        raise ValueError(f"{root / 'train'}: {len(train)} class folders; at least 2 are needed")
