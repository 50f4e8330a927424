"""`tiny-imagenet`: Tiny-ImageNet-200 in its original layout, 64x64 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.image_files import ImageFile, data_folder, list_folders, list_images
from data.image_store import open_stored_images
from data.imageset import DataSet, ImageSet, make_data_set
from data.progress import Progress
from data.sources.survey import Survey

_FOLDER = "tiny-imagenet-200"
_WHERE_FROM = (
    f"tiny-imagenet needs {_FOLDER}.zip (from the page of Stanford's course CS231n), unpacked in its original layout; "
    "it is not downloaded for you"
)
_SIZE = 64
# Published, as used by the paper's official code.
_MEAN = (0.4802, 0.4481, 0.3975)
_STD = (0.2764, 0.2689, 0.2816)


def read_tiny_imagenet(
    *, root: Path | None = None, skip_bad_images: bool = False, progress: Progress | None = None
) -> DataSet:
    """Tiny-ImageNet-200: 100,000 training and 10,000 test images (the published validation images) of 200 classes.

    Read from `tiny-imagenet-200` in `root` (or `root` itself), else in `$VLPURE_DATA`. Classes are the folders of
    `train/` (WordNet ids), sorted, as the official code numbers them; a class is named by the first synonym of its line
    in `words.txt`. All files are decoded the first time, with progress, into one array a set (1.4 GB in the cache).

    Raises ValueError for a missing file or folder, annotations that name missing files or unknown classes, and images
    that cannot be decoded.

    Source: Stanford CS231n, Tiny ImageNet Visual Recognition Challenge.
    """
    source = _find(root)
    wnids, train_files, train_labels = _list_train(source)
    test_files, test_labels = _list_test(source, wnids)
    class_names = _read_class_names(source, wnids)
    stored = open_stored_images(
        source,
        {"train": train_files, "test": test_files},
        what="tiny-imagenet",
        image_size=_SIZE,
        skip_bad=skip_bad_images,
        progress=progress,
    )
    return make_data_set(
        name="tiny-imagenet",
        class_names=class_names,
        train=ImageSet(
            images=stored.images["train"], labels=np.array(train_labels, dtype=np.int64)[stored.kept["train"]]
        ),
        test=ImageSet(images=stored.images["test"], labels=np.array(test_labels, dtype=np.int64)[stored.kept["test"]]),
        mean=_MEAN,
        std=_STD,
    )


def survey_tiny_imagenet(root: Path | None = None) -> Survey:
    """Where the files lie and how many images there are, without decoding. Raises ValueError as the reader does."""
    source = _find(root)
    wnids, train_files, _ = _list_train(source)
    test_files, _ = _list_test(source, wnids)
    return Survey(where=str(source), num_train=len(train_files), num_test=len(test_files))


def _find(root: Path | None) -> Path:
    """The folder `tiny-imagenet-200`, after checking that its parts are there."""
    base = data_folder(root, _WHERE_FROM)
    source = base if base.name == _FOLDER else base / _FOLDER
    for part in ("train", "val/images", "val/val_annotations.txt", "wnids.txt", "words.txt"):
        if not (source / part).exists():
            raise ValueError(f"{source / part}: not there; {_WHERE_FROM}")
    return source


def _list_train(source: Path) -> tuple[list[str], list[ImageFile], list[int]]:
    """WordNet ids of the classes, and the training files with their labels."""
    wnids = list_folders(source / "train", root=source)
    if len(wnids) < 2:
        raise ValueError(f"{source / 'train'}: {len(wnids)} class folders; at least 2 are needed")
    absent = sorted(set(_read_lines(source / "wnids.txt")) - set(wnids))
    if absent:
        raise ValueError(f"{source / 'train' / absent[0]}: no such folder, but wnids.txt names it; unpack again")
    files: list[ImageFile] = []
    labels: list[int] = []
    for label, wnid in enumerate(wnids):
        folder = source / "train" / wnid / "images"
        of_class = list_images(folder, root=source) if folder.is_dir() else []
        if not of_class:
            raise ValueError(f"{folder}: no images of this class; unpack the archive again")
        files.extend(of_class)
        labels.extend([label] * len(of_class))
    return wnids, files, labels


def _list_test(source: Path, wnids: list[str]) -> tuple[list[ImageFile], list[int]]:
    """The validation files that the annotations name, sorted by name, with their labels."""
    annotations = source / "val" / "val_annotations.txt"
    files = {file.name.rpartition("/")[2]: file for file in list_images(source / "val" / "images", root=source)}
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    labels: dict[str, int] = {}
    for number, line in enumerate(_read_lines(annotations), start=1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if name not in files:
            raise ValueError(f"{annotations}, line {number}: it names {name}, which is not in val/images; unpack again")
        if wnid not in label_of:
            raise ValueError(f"{annotations}, line {number}: '{wnid}' is no class of train/; unpack the archive again")
        if name in labels:
            raise ValueError(f"{annotations}, line {number}: {name} was named before; unpack the archive again")
        labels[name] = label_of[wnid]
    unnamed = sorted(set(files) - set(labels))
    if unnamed:
        raise ValueError(f"{annotations}: no line for val/images/{unnamed[0]}; unpack the archive again")
    lacking = sorted(set(label_of.values()) - set(labels.values()))
    if lacking:
        raise ValueError(f"{annotations}: no image of class '{wnids[lacking[0]]}'; every class needs test images")
    ordered = sorted(labels)
    return [files[name] for name in ordered], [labels[name] for name in ordered]


def _read_class_names(source: Path, wnids: list[str]) -> tuple[str, ...]:
    """The first synonym of each class in `words.txt`."""
    words = dict(line.partition("\t")[::2] for line in _read_lines(source / "words.txt"))
    names = []
    for wnid in wnids:
        name = words.get(wnid, "").partition(",")[0].strip()
        if not name:
            raise ValueError(f"{source / 'words.txt'}: no line for class '{wnid}'; unpack the archive again")
        names.append(name)
    return tuple(names)


def _read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: this is no text file; unpack the archive again") from error
    return [line for line in text.splitlines() if line.strip()]
