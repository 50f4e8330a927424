"""Listing of image files: sorted, without hidden files and litter, symbolic links followed."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.files import user_path

DATA_VARIABLE = "VLPURE_DATA"
LITTER = {"@eadir", "#recycle", "__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "$recycle.bin", "lost+found"}
"""Names, in lower case, of what file managers, archives and storage boxes leave between images; names that begin with a
dot are ignored anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """One file below a data set's folder, with the size and times that show whether it was changed."""

    name: str
    """Path relative to the data set's folder, with forward slashes."""
    num_bytes: int
    times_ns: tuple[int, int]
    """Times of the last change of the content, and of the content or its attributes, in ns."""


def data_folder(root: Path | None, *, name: str, how_to_fetch: str) -> Path:
    """The folder of all data sets: `root`, else `$VLPURE_DATA`.

    Raises ValueError if neither is given; the message names the data set `name` and repeats `how_to_fetch`.
    """
    folder = configured_folder(root)
    if folder is None:
        raise ValueError(
            f"{name}: the folder of the data sets is not set; give it as data root, or in {DATA_VARIABLE}; "
            f"{how_to_fetch}"
        )
    return folder


def configured_folder(root: Path | None) -> Path | None:
    """The folder of all data sets: `root`, else `$VLPURE_DATA`; None if neither is given."""
    configured = root if root is not None else os.environ.get(DATA_VARIABLE) or None
    return None if configured is None else user_path(configured)


def list_folders(folder: Path) -> list[str]:
    """Sorted names of the folders in `folder`.

    Raises ValueError for a visible entry that is not a folder, and for a link that leads nowhere or into itself.
    """
    names = []
    for entry in _visible(folder):
        if not entry.is_dir():
            raise ValueError(f"{entry.path}: a file among the class folders; put it into one of them or remove it")
        names.append(entry.name)
    return sorted(names)


def list_images(folder: Path, *, root: Path) -> list[ImageFile]:
    """The files in `folder`, which lies in `root`, sorted by name. They are not opened.

    Raises ValueError for a visible entry that is not a file, and for a link that leads nowhere or into itself.
    """
    prefix = folder.relative_to(root).as_posix()
    files = []
    for entry in _visible(folder):
        if not entry.is_file():
            raise ValueError(f"{entry.path}: this is not a file; a class folder holds images only")
        files.append(_image_file(f"{prefix}/{entry.name}", entry.stat()))
    return sorted(files, key=lambda file: file.name)


def describe_file(path: Path, *, root: Path) -> ImageFile:
    """Name, size and times of the file `path`, which lies in `root`. Raises OSError if it is missing."""
    return _image_file(path.relative_to(root).as_posix(), path.stat())


def state_of_files(files: Sequence[ImageFile]) -> str:
    """Hash (64 hex digits) that changes when a file of the list is added, removed, renamed or written to."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.num_bytes}\0{file.times_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _image_file(name: str, stat: os.stat_result) -> ImageFile:
    """The description of a file from its status."""
    return ImageFile(name=name, num_bytes=stat.st_size, times_ns=(stat.st_mtime_ns, stat.st_ctime_ns))


def _visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The entries of `folder` that are neither hidden nor litter, after checking that links lead somewhere."""
    if folder.is_symlink():
        _check_target(folder)
    for entry in _entries(folder):
        if entry.is_symlink():
            _check_target(Path(entry.path))
        yield entry


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The entries of `folder` that are neither hidden nor litter."""
    with os.scandir(folder) as entries:
        yield from (e for e in entries if not e.name.startswith(".") and e.name.lower() not in LITTER)


def _check_target(link: Path) -> None:
    """Raise ValueError for a symbolic link that leads nowhere.

    `state_of_files` sees the state of the target.
    """
    # A link that leaves the data set is followed: subsets without copies, DVC and git-annex are made of such links.
    try:
        target = link.resolve(strict=True)
    except RuntimeError:  # Python 3.11 and 3.12 raise it for a loop
        raise ValueError(f"{link}: this link leads back to itself") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"{link}: this link leads back to itself") from None
        raise ValueError(f"{link}: this link points to {link.readlink()}, which does not exist") from None
    if target.is_dir() and link.parent.resolve().is_relative_to(target):
        raise ValueError(f"{link}: this link leads to a folder that it lies in itself, {target}")


IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp")
"""Endings, in lower case, of the files that `list_tree` takes for images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The image files of a folder and its subfolders."""

    files: tuple[ImageFile, ...]
    """Sorted by name."""
    left_out: Mapping[str, str]
    """Entries that cannot be followed, such as links that lead nowhere -> the reason."""
    num_other: int
    """Visible files that are no images by their names' endings."""


def list_tree(root: Path) -> Tree:
    """The image files anywhere below `root`, by the endings of their names; they are not opened.

    Hidden files and litter are ignored; links are followed, except those that lead nowhere or into themselves. Names
    need not be UTF-8. Raises OSError for a folder that may not be read.
    """
    files: list[ImageFile] = []
    left_out: dict[str, str] = {}
    num_other = 0
    pending = [root]
    while pending:
        folder = pending.pop()
        for entry in _entries(folder):
            path = Path(entry.path)
            name = path.relative_to(root).as_posix()
            try:
                if entry.is_symlink():
                    _check_target(path)
            except ValueError as error:
                left_out[name] = str(error).partition(": ")[2]
                continue
            if entry.is_dir():
                pending.append(path)
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                files.append(_image_file(name, entry.stat()))
            else:
                num_other += 1
    return Tree(files=tuple(sorted(files, key=lambda file: file.name)), left_out=left_out, num_other=num_other)
