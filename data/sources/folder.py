"""`folder:<path>`: an image folder with `train/` and `test/`, each with one folder of JPEG or PNG files per class.

A class that only `train/` has, such as `train/_ood_/`, can only be OOD: nothing is tested on it.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np

from data.console import Progress, to_stderr
from data.files import is_unicode, shown
from data.image_files import ImageFile, list_folders, list_images
from data.image_store import open_stored_images
from data.imageset import DataSet, ImageSet, make_data_set

VALIDATION = ("val", "valid", "validation")
"""Names of the folder of test images that are accepted if there is no `test`."""
_TOLD: set[str] = set()
"""Lines about data sets that this process has printed."""
# A data set is opened several times on the way to a trial, and each line is to be printed once.


def read_folder(path: Path, *, name: str, skip_bad_images: bool = False, progress: Progress | None = None) -> DataSet:
    """The image folder at `path` as a data set; class names are the folder names, sorted; images are sorted by name.

    All files are decoded the first time (with progress), so that a bad one is found before any training. Images whose
    median shorter side is at most 64 pixels are kept as one array per set; larger ones are decoded on demand, their
    shorter side resized to at most 224 pixels. Mean and deviation are those of the training images. Without `test/`,
    `val/` holds the test images. Misleading images are reported once per process.

    `skip_bad_images`: files that are not whole images are skipped, each named to `progress`.

    Raises ValueError, naming the path, for a missing folder, fewer than two classes, a class of `test/` that `train/`
    lacks, an empty class folder, a file that is not a whole image, and a link that leads nowhere.
    """
    root = path
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; {name} must be a folder with train/ and test/ in it")
    classes = _matched_classes(root, _test_folder(root))
    files: dict[str, list[ImageFile]] = {part: [] for part in classes}
    labels: dict[str, list[int]] = {part: [] for part in classes}
    for part, folders in classes.items():
        for label, folder in folders.items():
            of_class = list_images(folder, root=root)
            if not of_class:
                raise ValueError(f"{folder}: this class folder is empty; add images or remove it")
            files[part].extend(of_class)
            labels[part].extend([label] * len(of_class))
    stored = open_stored_images(root, files, what=name, skip_bad=skip_bad_images, progress=progress)
    train, test = (
        ImageSet(images=stored.images[part], labels=np.array(labels[part], dtype=np.int64)[stored.kept[part]])
        for part in ("train", "test")
    )
    for note in stored.notes:
        _tell_once(f"{name}: {note}", progress or to_stderr)
    return make_data_set(
        name=name,
        class_names=tuple(folder.name for folder in classes["train"].values()),
        train=train,
        test=test,
        mean=stored.mean,
        std=stored.std,
        notes=stored.notes,
    )


def _tell_once(line: str, progress: Progress) -> None:
    """Print a line unless this process has printed it before."""
    if line not in _TOLD:
        _TOLD.add(line)
        progress(line)


def _test_folder(root: Path) -> str:
    """Name of the folder with the test images. Raises ValueError unless it and `train` are there."""
    present = [name for name in ("test", *VALIDATION) if (root / name).is_dir()]
    test = present[0] if present else "test"
    for part in ("train", test):
        if not (root / part).is_dir():
            raise ValueError(
                f"{root / part}: no such folder; {root} must hold train/ and test/ (or val/), each with one folder "
                "per class"
            )
    return test


def _matched_classes(root: Path, test: str) -> dict[str, dict[int, Path]]:
    """Label -> class folder of "train" and of "test", labelled in the order of the training classes' names.

    Names are compared in Unicode's composed form. Raises ValueError for fewer than two classes, for a class that only
    the test images have, for test images of no class, and for two folders of one name.
    """
    # Composed, because macOS writes an accent as a separate letter and other systems do not.
    names = {part: _by_name(root / part) for part in ("train", test)}
    missing = sorted(set(names[test]) - set(names["train"]))
    if missing:
        raise ValueError(
            f"{root}: {test}/ has the class '{missing[0]}' but train/ does not; every class needs training images"
        )
    for part in ("train", test):
        if len(names[part]) < 2:
            raise ValueError(f"{root / part}: {len(names[part])} class folders; at least 2 are needed")
    folders = list(names["train"].items())
    return {
        "train": {label: folder for label, (_, folder) in enumerate(folders)},
        "test": {label: names[test][name] for label, (name, _) in enumerate(folders) if name in names[test]},
    }


def _by_name(part: Path) -> dict[str, Path]:
    """Composed name -> folder of each class, sorted by the names on disk."""
    folders: dict[str, Path] = {}
    for name in list_folders(part):
        if not is_unicode(name):
            raise ValueError(f"{part}: the name of the class folder '{shown(name)}' is not UTF-8; rename it")
        composed = unicodedata.normalize("NFC", name)
        if composed in folders:
            raise ValueError(f"{part}: two folders are called '{composed}', in two spellings of Unicode; merge them")
        folders[composed] = part / name
    return folders
