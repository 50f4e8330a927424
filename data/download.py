"""Downloading a data set, because somebody asked for it; nothing else in this project downloads images."""

from __future__ import annotations

import shutil
from pathlib import Path

from data.archives import obtain, unpack
from data.console import Progress
from data.files import file_lock
from data.image_files import data_folder
from data.naming import unknown_name
from data.published import Download, Package, size_in_words
from data.registry import DATA_SETS, FOLDER_PREFIX
from data.sources.survey import Survey

_UNPACKED = 1.5
"""Room that an archive takes once unpacked, as a share of its size: small files waste the rest of a disk block."""


def fetch_data_set(name: str, *, root: Path | None, progress: Progress) -> Survey:
    """The data set called `name`, downloaded into the folder of all data sets, checked and unpacked.

    What is there already is used: a data set that is whole is left alone, an archive that somebody put there is checked
    and unpacked without any network, a download that broke off goes on.

    Raises ValueError in one line for a name that cannot be downloaded, a file that is not the published one, a folder
    that is there but not whole, a disk without room, a network that is not there, and another process at the same work.
    """
    source = DATA_SETS.get(name)
    if source is None or source.package is None:
        if name == "digits":
            raise ValueError("digits is bundled with scikit-learn; there is nothing to fetch")
        if name.startswith(FOLDER_PREFIX):
            raise ValueError(f"{name} is your own folder; there is nothing to fetch")
        raise unknown_name("data set", name, [known for known, source in DATA_SETS.items() if source.package])
    base = data_folder(root, name=name, how_to_fetch=source.package.how_to_fetch(name))
    try:
        survey = source.survey(root)
    except ValueError:
        pass
    else:
        progress(f"{name} is there already: {survey.where}")
        return survey
    folder = _folder(base, source.package)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with file_lock(folder / ".fetch.lock", wait=False):
            _fetch(source.package, folder, progress)
    except BlockingIOError as error:
        raise ValueError(f"another process is fetching into {folder}; wait for it") from error
    try:
        return source.survey(root)
    except ValueError as error:
        raise ValueError(
            f"{error}; what lies in {folder} is not whole: remove the unpacked folder and repeat"
        ) from error


def _folder(base: Path, package: Package) -> Path:
    """Where the package's files go; the data root may be given as the data set's own folder."""
    if package.folder:
        return base if base.name == package.folder else base / package.folder
    return base.parent if base.name in {item.folder for item in package.files} else base


def _fetch(package: Package, folder: Path, progress: Progress) -> None:
    """Obtain and unpack what `folder` lacks."""
    lacking = [item for item in package.files if not (item.folder and (folder / item.folder).exists())]
    _check_room(lacking, folder)
    for item in lacking:
        obtain(item, folder / item.name, progress)
        if item.folder:
            unpack(folder / item.name, folder / item.folder, progress)
            progress(f"unpacked {folder / item.name}; it may be removed now")


def _check_room(lacking: list[Download], folder: Path) -> None:
    """Raises ValueError where the disk has less room than the files will take."""
    needed = 0.0
    for item in lacking:
        needed += 0 if (folder / item.name).exists() else item.num_bytes
        needed += _UNPACKED * item.num_bytes if item.folder else 0
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{folder}: {size_in_words(int(needed))} are needed here, but only {size_in_words(free)} are free; make "
            "room, or choose another data root"
        )
