"""Registry of data sets: the names that can be opened, each with its reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from data.console import Progress, unknown_name
from data.files import user_path
from data.imageset import DataSet, SplitProtocol, Survey
from data.published import Package
from data.sources.cifar import (
    CIFAR10_PACKAGE,
    CIFAR100_PACKAGE,
    read_cifar10,
    read_cifar100,
    survey_cifar10,
    survey_cifar100,
)
from data.sources.digits import read_digits, survey_digits
from data.sources.domainnet import read_domainnet, survey_domainnet
from data.sources.domainnet_lists import DOMAINS
from data.sources.domainnet_lists import PACKAGE as DOMAINNET_PACKAGE
from data.sources.folder import read_folder
from data.sources.tiny_imagenet import (
    PACKAGE as TINY_IMAGENET_PACKAGE,
)
from data.sources.tiny_imagenet import (
    read_tiny_imagenet,
    read_tiny_imagenet_words,
    survey_tiny_imagenet,
    survey_tiny_imagenet_words,
)

FOLDER_PREFIX = "folder:"


class Reader(Protocol):
    """A function that opens one data set; it raises ValueError for missing or bad files."""

    def __call__(
        self, *, root: Path | None = None, skip_bad_images: bool = False, progress: Progress | None = None
    ) -> DataSet:
        """The data set, read below `root` (a reader without files refuses one); `progress` gets lines of text."""
        ...


class PlainReader(Protocol):
    """A reader of data that are not image files, so that none can be skipped."""

    def __call__(self, *, root: Path | None = None, progress: Progress | None = None) -> DataSet:
        """The data set, read below `root`; `progress` gets lines of text."""
        ...


def _without_image_files(read: PlainReader) -> Reader:
    """The reader with the parameters of `Reader`; `skip_bad_images` has no effect on it."""

    def reader(*, root: Path | None = None, skip_bad_images: bool = False, progress: Progress | None = None) -> DataSet:
        return read(root=root, progress=progress)

    return reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Functions and files of one data set."""

    read: Reader
    survey: Callable[[Path | None], Survey]
    """Location and size without decoding images; raises ValueError that names what is missing and where to get it."""
    package: Package | None = None
    """Files that `python -m data fetch` downloads; None if there is nothing to download."""
    split_protocol: SplitProtocol = "ratios"


DATA_SETS: dict[str, Source] = {
    "digits": Source(read=_without_image_files(read_digits), survey=survey_digits),
    "cifar10": Source(read=_without_image_files(read_cifar10), survey=survey_cifar10, package=CIFAR10_PACKAGE),
    "cifar100": Source(read=_without_image_files(read_cifar100), survey=survey_cifar100, package=CIFAR100_PACKAGE),
    "tiny-imagenet": Source(read=read_tiny_imagenet, survey=survey_tiny_imagenet, package=TINY_IMAGENET_PACKAGE),
    "tiny-imagenet:words": Source(
        read=read_tiny_imagenet_words, survey=survey_tiny_imagenet_words, package=TINY_IMAGENET_PACKAGE
    ),
    **{
        f"domainnet-{domain}": Source(
            read=partial(read_domainnet, domain),
            survey=partial(survey_domainnet, domain),
            package=DOMAINNET_PACKAGE,
            split_protocol="domain",
        )
        for domain in DOMAINS
    },
}


def split_protocol_of(name: str) -> SplitProtocol:
    """Split protocol of the data set called `name`, without opening it; "ratios" for image folders and other names."""
    source = DATA_SETS.get(name)
    return source.split_protocol if source else "ratios"


def open_data_set(
    name: str, *, root: Path | None = None, skip_bad_images: bool = False, progress: Progress | None = None
) -> DataSet:
    """The data set called `name`.

    Args:
        name: a name of `DATA_SETS`, or `folder:<path>` for an image folder.
        root: folder that holds the files; None for the reader's own default.
        skip_bad_images: skip image files that cannot be decoded, naming each, instead of stopping at the first;
            has no effect on data sets that are not image files.
        progress: gets lines of text while images are decoded for the first time; None prints them on the standard error
            stream.

    Raises ValueError for an unknown name (the nearest is suggested) and for missing or bad files.
    """
    if name.startswith(FOLDER_PREFIX):
        return read_folder(_folder_path(name, root), name=name, skip_bad_images=skip_bad_images, progress=progress)
    if name not in DATA_SETS:
        raise unknown_name("data set", name, [*DATA_SETS, f"{FOLDER_PREFIX}<path>"])
    return DATA_SETS[name].read(root=root, skip_bad_images=skip_bad_images, progress=progress)


def _folder_path(name: str, root: Path | None) -> Path:
    """The folder that `folder:<path>` names; a relative path starts at `root` if given, else at the current folder."""
    path = user_path(name.removeprefix(FOLDER_PREFIX))
    if not path.name:
        raise ValueError(
            f"'{name}' names no folder; write {FOLDER_PREFIX}<path>, for example {FOLDER_PREFIX}images/birds"
        )
    return user_path(root) / path if root else path
