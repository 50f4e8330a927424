"""`tiny-imagenet` and `tiny-imagenet:words`: Tiny-ImageNet-200 in its original layout, 64x64 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.console import Progress
from data.image_files import ImageFile, data_folder, list_folders, list_images
from data.image_store import open_stored_images
from data.imageset import DataSet, ImageSet, Survey, make_data_set
from data.published import Download, Package

_NAME = "tiny-imagenet"
_FOLDER = "tiny-imagenet-200"
PACKAGE = Package(
    files=(
        Download(
            url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            num_bytes=248_100_043,
            algorithm="md5",
            checksum="90528d7ca1a48142e341f4ef8d21d0de",
            folder=_FOLDER,
        ),
    )
)
_CURATED_NAMES = Path(__file__).with_name("tiny_imagenet_names.txt")
_SIZE = 64
# Published, as used by the paper's official code.
_MEAN = (0.4802, 0.4481, 0.3975)
_STD = (0.2764, 0.2689, 0.2816)


def read_tiny_imagenet(
    *, root: Path | None = None, skip_bad_images: bool = False, progress: Progress | None = None
) -> DataSet:
    """Tiny-ImageNet-200: 100,000 training and 10,000 test images (the published validation images) of 200 classes.

    Read from `tiny-imagenet-200` in `root` (or `root` itself), else in `$VLPURE_DATA`. Classes are the folders of
    `train/` (WordNet ids), sorted, as the official code numbers them; a class is named by this project's own table
    `tiny_imagenet_names.txt`, in which "crane" is a "construction crane" (the paper's code has such a table too).
    Validation images may lie as published (`val/images`, labels in `val_annotations.txt`), or one folder per class as
    many scripts re-arrange them: `val/<class>`, `val/<class>/images` or `val/images/<class>`; the data set is the same.
    All files are decoded the first time, with progress, into one array per set (1.4 GB in the cache).

    Raises ValueError for a missing file or folder, annotations that name missing files or unknown classes, a class that
    the table does not name, and images that cannot be decoded.

    Source: Stanford CS231n, Tiny ImageNet Visual Recognition Challenge.
    """
    names = _read_table(_CURATED_NAMES)
    return _read(_NAME, names, _CURATED_NAMES, root, skip_bad_images, progress)


def read_tiny_imagenet_words(
    *, root: Path | None = None, skip_bad_images: bool = False, progress: Progress | None = None
) -> DataSet:
    """Tiny-ImageNet with each class named by the first synonym of its line in the archive's `words.txt`.

    Otherwise as `read_tiny_imagenet`.
    """
    words = _find_words(root)
    names = {wnid: synonyms.partition(",")[0].strip() for wnid, synonyms in _read_table(words).items()}
    return _read(f"{_NAME}:words", names, words, root, skip_bad_images, progress)


def _read(
    name: str,
    names: dict[str, str],
    table: Path,
    root: Path | None,
    skip_bad_images: bool,
    progress: Progress | None,
) -> DataSet:
    """The data set with its classes named by `names`, which were read from `table`."""
    source = _find(root)
    wnids, train_files, train_labels = _list_train(source)
    unnamed = [wnid for wnid in wnids if not names.get(wnid)]
    if unnamed:
        raise ValueError(f"{table}: no name for class '{unnamed[0]}', which {source / 'train'} has; unpack again")
    test_files, test_labels = _list_test(source, wnids)
    stored = open_stored_images(
        source,
        {"train": train_files, "test": test_files},
        what=_NAME,
        image_size=_SIZE,
        skip_bad=skip_bad_images,
        progress=progress,
    )
    train, test = (
        ImageSet(images=stored.images[part], labels=np.array(labels, dtype=np.int64)[stored.kept[part]])
        for part, labels in (("train", train_labels), ("test", test_labels))
    )
    class_names = tuple(names[wnid] for wnid in wnids)
    return make_data_set(name=name, class_names=class_names, train=train, test=test, mean=_MEAN, std=_STD)


def survey_tiny_imagenet(root: Path | None = None) -> Survey:
    """Folder of Tiny-ImageNet and its numbers of images, without decoding. Raises ValueError as the reader does."""
    source = _find(root)
    wnids, train_files, _ = _list_train(source)
    test_files, _ = _list_test(source, wnids)
    return Survey(where=str(source), num_train=len(train_files), num_test=len(test_files))


def survey_tiny_imagenet_words(root: Path | None = None) -> Survey:
    """The survey of `survey_tiny_imagenet`, after checking that the table of names exists."""
    _find_words(root)
    return survey_tiny_imagenet(root)


def _find_words(root: Path | None) -> Path:
    """Path of the archive's table of names. Raises ValueError if it is missing."""
    words = _find(root) / "words.txt"
    if not words.is_file():
        raise ValueError(f"{words}: no such file; unpack the archive again, or use {_NAME}, which does not need it")
    return words


def _find(root: Path | None) -> Path:
    """The folder `tiny-imagenet-200`, after checking that its parts exist."""
    base = data_folder(root, name=_NAME, how_to_fetch=PACKAGE.how_to_fetch(_NAME))
    source = base if base.name == _FOLDER else base / _FOLDER
    for part in ("train", "val", "wnids.txt"):
        _check_exists(source, source / part)
    return source


def _check_exists(source: Path, path: Path) -> None:
    """Raise ValueError if a part of the data set is missing."""
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; {PACKAGE.how_to_fetch(_NAME, source.parent)}")


def _list_train(source: Path) -> tuple[list[str], list[ImageFile], list[int]]:
    """WordNet ids of the classes, and the training files with their labels."""
    wnids = list_folders(source / "train")
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
    """The validation files with their labels, sorted by file name whatever folder they are in."""
    for folder in (source / "val", source / "val" / "images"):
        if folder.is_dir() and any((folder / wnid).is_dir() for wnid in wnids):
            files, labels = _list_class_folders(source, folder, wnids)
            break
    else:
        files, labels = _list_annotated(source, wnids)
    lacking = sorted(set(range(len(wnids))) - set(labels.values()))
    if lacking:
        raise ValueError(f"{source / 'val'}: no image of class '{wnids[lacking[0]]}'; every class needs test images")
    ordered = sorted(labels)
    return [files[name] for name in ordered], [labels[name] for name in ordered]


def _list_annotated(source: Path, wnids: list[str]) -> tuple[dict[str, ImageFile], dict[str, int]]:
    """Files and labels by file name in the published layout: all in `val/images`, labels in `val_annotations.txt`."""
    annotations, folder = source / "val" / "val_annotations.txt", source / "val" / "images"
    _check_exists(source, annotations)
    _check_exists(source, folder)
    files = {_own_name(file): file for file in list_images(folder, root=source)}
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    labels: dict[str, int] = {}
    for number, line in enumerate(_read_lines(annotations), start=1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if name not in files:
            raise ValueError(f"{annotations}, line {number}: it names {name}, which is not in val/images; unpack again")
        if wnid not in label_of:
            raise ValueError(f"{annotations}, line {number}: '{wnid}' is not a class of train/; unpack again")
        if name in labels:
            raise ValueError(f"{annotations}, line {number}: {name} was named before; unpack the archive again")
        labels[name] = label_of[wnid]
    unnamed = sorted(set(files) - set(labels))
    if unnamed:
        raise ValueError(f"{annotations}: no line for val/images/{unnamed[0]}; unpack the archive again")
    return files, labels


def _list_class_folders(source: Path, folder: Path, wnids: list[str]) -> tuple[dict[str, ImageFile], dict[str, int]]:
    """Files and labels by file name in the re-arranged layout: one folder per class in `folder`, or its `images`."""
    left_over = source / "val" / "images"
    if folder != left_over and left_over.is_dir() and list_images(left_over, root=source):
        raise ValueError(f"{left_over}: images are left here next to class folders in val/; finish re-arranging them")
    strange = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in {*wnids, "images"})
    if strange:
        raise ValueError(f"{folder / strange[0]}: '{strange[0]}' is not a class of train/; remove it or unpack again")
    files: dict[str, ImageFile] = {}
    labels: dict[str, int] = {}
    for label, wnid in enumerate(wnids):
        inner = folder / wnid / "images"
        of_class = inner if inner.is_dir() else folder / wnid
        for file in list_images(of_class, root=source) if of_class.is_dir() else []:
            name = _own_name(file)
            if name in files:
                raise ValueError(f"{source / file.name}: {files[name].name} has the same name; re-arrange val/ again")
            files[name], labels[name] = file, label
    return files, labels


def _own_name(file: ImageFile) -> str:
    """The file's name without its folders."""
    return file.name.rpartition("/")[2]


def _read_table(path: Path) -> dict[str, str]:
    """A table with two columns separated by a tab: the first column -> the rest of the line."""
    return dict(line.partition("\t")[::2] for line in _read_lines(path))


def _read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: this is not a text file; unpack the archive again") from error
    return [line for line in text.splitlines() if line.strip()]
