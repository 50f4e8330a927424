"""`domainnet-<domain>`: one domain of DomainNet (cleaned version) against the other five, images read on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.cache import Meta
from data.console import Progress, StepReporter, to_stderr
from data.image_files import data_folder, list_images
from data.image_store import MAX_IMAGE_SIZE, open_entry, skip_bad_files
from data.imageset import DataSet, ImageSet, PathImages, Survey, make_data_set
from data.published import is_published
from data.sources.domainnet_lists import (
    DOMAINS,
    FOLDER,
    LIST_FILES,
    PACKAGE,
    ImageList,
    Part,
    list_path,
    merge_classes,
    read_list,
)

# ImageNet's values, as is usual for the encoders that see these images: 400,000 images are not scanned for their own.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def read_domainnet(
    domain: str, *, root: Path | None = None, skip_bad_images: bool = False, progress: Progress | None = None
) -> DataSet:
    """DomainNet with `domain` as its ID domain: its 345 classes, and the training images of all six domains.

    Training labels are 0..344 for images of `domain` and 345 for those of the others; the test images are the domain's
    own. The split protocol is "domain". The training images, and their order, are the same for all six domains, so that
    features computed for one of them serve all. Images are decoded on demand to 224 pixels. A class has the
    unchanged name of its folder; not every domain has training images of every class (painting has none of t-shirt).

    Read from `domainnet` in `root` (or `root` itself), else in `$VLPURE_DATA`: folders `<domain>/<class>` and lists
    `<domain>_train.txt`, `<domain>_test.txt`, there or in `txt/`. The first time, all files are looked up with their
    lengths; this is repeated if a list or a class folder changes. The fingerprint covers names and lengths, not 20 GB
    of content: a file replaced by another of equal length is not noticed. A damaged image is found when it is decoded,
    which is when the frozen encoder sees it, before any training; `skip_bad_images` decodes all of them at once, and
    skips those that cannot be decoded.

    Raises ValueError for a missing list, folder or file, a bad line, an empty file, an image that is both for training
    and for testing, and a link that leaves the folder.

    Source: X. Peng et al., Moment Matching for Multi-Source Domain Adaptation, ICCV 2019.
    """
    source = find_domainnet(domain, root)
    report = progress or to_stderr
    train_lists = [read_list(source, each, "train") for each in DOMAINS]
    test_list = read_list(source, domain, "test")
    class_names = merge_classes([*train_lists, test_list])
    _check_disjoint(train_lists[DOMAINS.index(domain)], test_list)
    train_labels = [
        each.labels if name == domain else np.full(len(each.labels), len(class_names), dtype=np.int64)
        for name, each in zip(DOMAINS, train_lists, strict=True)
    ]
    train_names = tuple(name for each in train_lists for name in each.names)
    return make_data_set(
        name=f"{FOLDER}-{domain}",
        class_names=class_names,
        train=_open_images(source, train_names, np.concatenate(train_labels), "train", skip_bad_images, report),
        test=_open_images(source, test_list.names, test_list.labels, "test", skip_bad_images, report),
        mean=_MEAN,
        std=_STD,
        split_protocol="domain",
        domain=domain,
    )


def survey_domainnet(domain: str, root: Path | None = None) -> Survey:
    """Folder of DomainNet and the numbers of images in its lists; no image is opened.

    Raises ValueError for a missing folder or list.
    """
    source = find_domainnet(domain, root)
    needed = _needed_lists(domain)
    other = [f"{each}_{part}" for each, part in needed if not _is_published_list(source, each, part)]
    note = f"NOT the published lists: {', '.join(other)}" if other else "the published lists, by their checksums"
    return Survey(
        where=str(source),
        num_train=sum(len(read_list(source, each, part).names) for each, part in needed if part == "train"),
        num_test=len(read_list(source, domain, "test").names),
        note=note,
    )


def _needed_lists(domain: str) -> list[tuple[str, Part]]:
    """Domain and part of each list that a data set needs."""
    return [*((each, "train") for each in DOMAINS), (domain, "test")]


def _is_published_list(source: Path, domain: str, part: Part) -> bool:
    """Whether a list is the published one."""
    return is_published(LIST_FILES[f"{domain}_{part}"], list_path(source, domain, part))


def find_domainnet(domain: str, root: Path | None) -> Path:
    """The folder `domainnet`, after checking that its lists and domains exist."""
    name = f"{FOLDER}-{domain}"
    base = data_folder(root, name=name, how_to_fetch=PACKAGE.how_to_fetch(name))
    source = base if base.name == FOLDER else base / FOLDER
    lists = [list_path(source, *which) for which in _needed_lists(domain)]
    for path in (source / domain, *lists, *(source / each for each in DOMAINS)):
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder; {PACKAGE.how_to_fetch(name, source.parent)}")
    return source


def _check_disjoint(train: ImageList, test: ImageList) -> None:
    """Raise ValueError for an image that is in both lists."""
    both = sorted(set(train.names) & set(test.names))
    if both:
        raise ValueError(f"{test.path}: {both[0]} is in {train.path.name} too; take both lists from one source")


def _open_images(
    source: Path, names: Sequence[str], labels: NDArray[np.int64], part: Part, skip_bad: bool, report: Progress
) -> ImageSet:
    """The images called `names` with their labels, after checking once that every file exists."""
    positions: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        positions.setdefault(name.rpartition("/")[0], []).append(position)
    key = {
        "data_set": FOLDER,
        "root": str(source.resolve()),
        "names": _hash_rows(names),
        "folders": [_folder_time(source / folder) for folder in positions],
    } | ({"skip_bad": True} if skip_bad else {})
    _, meta = open_entry(
        key, lambda _: _look_at_files(source, names, positions, part, skip_bad, report), what=FOLDER, progress=report
    )
    kept = np.ones(len(names), dtype=bool)
    kept[meta["bad"]] = False
    kept_names = tuple(name for name, is_kept in zip(names, kept, strict=True) if is_kept)
    images = PathImages(source, kept_names, image_size=MAX_IMAGE_SIZE, fingerprint=meta["fingerprint"])
    return ImageSet(images=images, labels=labels[kept])


def _look_at_files(
    source: Path,
    names: Sequence[str],
    positions: Mapping[str, Sequence[int]],
    part: Part,
    skip_bad: bool,
    report: Progress,
) -> Meta:
    """Meta data from one pass over all files: the fingerprint and, if `skip_bad`, the positions of damaged images."""
    sizes = np.zeros(len(names), dtype=np.int64)
    reporter = StepReporter(f"looking at the class folders of {FOLDER}", len(positions), report)
    for number, (folder, of_folder) in enumerate(positions.items(), start=1):
        found = {file.name: file.num_bytes for file in list_images(source / folder, root=source)}
        for position in of_folder:
            if names[position] not in found:
                list_name = f"{folder.partition('/')[0]}_{part}.txt"
                raise ValueError(f"{source / names[position]}: no such file, but {list_name} names it; unpack again")
            sizes[position] = found[names[position]]
        reporter.done(number)
    if not skip_bad and not sizes.all():
        empty = source / names[int(np.argmin(sizes))]
        raise ValueError(f"{empty}: this image file is empty (0 bytes); copy it again (or --skip-bad-images)")
    bad: list[int] = []
    if skip_bad:
        reporter = StepReporter(f"checking the images of {FOLDER}", len(names), report)
        paths = [source / name for name in names]
        bad = skip_bad_files(paths, what=f"{source}, {part}", reporter=reporter, report=report)
    left_out = set(bad)
    rows = (f"{name}\0{sizes[n]}" for n, name in enumerate(names) if n not in left_out)
    return {"bad": bad, "fingerprint": _hash_rows([f"names and lengths, at {MAX_IMAGE_SIZE} pixels", *rows])}


def _folder_time(folder: Path) -> int:
    """Time of the last addition, removal or renaming in the folder, in ns."""
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder}: no such folder, but a list names images in it; unpack the archive again"
        ) from error


def _hash_rows(rows: Sequence[str]) -> str:
    """SHA-256 (64 hex digits) of texts in their order."""
    return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()
