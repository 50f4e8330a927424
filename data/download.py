"""Download of published files: resumed if interrupted, checked against their checksums, and unpacked safely.

Nothing is downloaded unless a user asks for it by name, and nothing else in this project downloads images.
"""

from __future__ import annotations

import gzip
import http.client
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from data.console import Progress, StepReporter, unknown_name
from data.files import file_lock, sync_folder
from data.image_files import data_folder
from data.imageset import Survey
from data.published import Download, Package, is_published, size_in_words
from data.registry import DATA_SETS, FOLDER_PREFIX

UNPACKING = ".unpacking-"
"""Prefix of the folders that archives are unpacked into until they are complete."""
_UNPACKED = 1.5
"""Disk space of an unpacked archive as a multiple of its size: small files waste the rest of a disk block."""


def fetch_data_set(name: str, *, root: Path | None, progress: Progress) -> Survey:
    """The data set called `name`, downloaded into the folder of all data sets, checked and unpacked.

    Existing files are used: a complete data set is left alone, an archive that somebody put there is checked and
    unpacked without any network, an interrupted download is continued.

    Raises ValueError in one line for a name that cannot be downloaded, a file that is not the published one, a folder
    that exists but is incomplete, a disk without room, a missing network, and another process at the same work.
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
            f"{error}; the files in {folder} are incomplete: remove the unpacked folder and repeat this command"
        ) from error


def _folder(base: Path, package: Package) -> Path:
    """Folder that the package's files go to; the data root may be given as the data set's own folder."""
    if package.folder:
        return base if base.name == package.folder else base / package.folder
    return base.parent if base.name in {item.folder for item in package.files} else base


def _fetch(package: Package, folder: Path, progress: Progress) -> None:
    """Obtain and unpack the files that are missing in `folder`."""
    lacking = [item for item in package.files if not (item.folder and (folder / item.folder).exists())]
    for path in folder.glob(f"{UNPACKING}*"):  # left by a killed process: a living one would hold this folder's lock
        shutil.rmtree(path)
    _check_room(lacking, folder)
    for item in lacking:
        obtain(item, folder / item.name, progress)
        if item.folder:
            unpack(folder / item.name, folder / item.folder, progress)
            progress(f"unpacked {folder / item.name}; it may be removed now")


def _check_room(lacking: list[Download], folder: Path) -> None:
    """Raise ValueError if the disk has less room than the files will take."""
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


_CHUNK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte


def obtain(item: Download, path: Path, progress: Progress) -> None:
    """Make `path` the published file: an existing file is checked, a missing one is downloaded and checked.

    An interrupted download continues where it stopped, from the file `<path>.part`.

    Raises ValueError in one line for a file that is not the published one, and if it cannot be downloaded.
    """
    if path.exists():
        _check(item, path, progress)
        return
    part = path.with_name(f"{path.name}.part")
    if not part.exists() or part.stat().st_size != item.num_bytes:
        _download(item, path, part, progress)
    try:
        _check(item, part, progress)
    except ValueError:
        part.unlink()  # if kept, it would pass for complete by its size and fail again at the next try
        raise
    part.replace(path)


def unpack(archive: Path, target: Path, progress: Progress) -> None:
    """Unpack the folder `target.name` of a .zip or .tar.gz file to `target`, which appears only when it is whole.

    Other entries are ignored. Raises ValueError naming the archive if it is damaged or cut short, does not hold the
    folder, or has an entry that would lie outside it; OSError if the disk is full.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=UNPACKING) as temporary:
        root = Path(temporary)
        try:
            if archive.suffix == ".zip":
                _unpack_zip(archive, root, target.name, progress)
            else:
                _unpack_tar(archive, root, target.name, progress)
        except tarfile.FilterError as error:
            raise _outside(archive, error.tarinfo.name) from error
        except _DAMAGED as error:
            raise ValueError(f"{archive}: this archive is damaged or cut short ({error}); fetch it again") from error
        if not (root / target.name).is_dir():
            raise ValueError(f"{archive}: it holds no folder {target.name}, so it is not the published archive")
        (root / target.name).rename(target)
    sync_folder(target.parent)


def _unpack_zip(archive: Path, root: Path, folder: str, progress: Progress) -> None:
    """Write the members of `folder`. `zipfile` writes plain files only, and checks the CRC of each."""
    with zipfile.ZipFile(archive) as file:
        wanted = [info for info in file.infolist() if _is_wanted(archive, info.filename, folder)]
        reporter = StepReporter(f"unpacking {archive.name}", len(wanted), progress)
        for number, info in enumerate(wanted, start=1):
            file.extract(info, root)
            reporter.done(number)


def _unpack_tar(archive: Path, root: Path, folder: str, progress: Progress) -> None:
    """Write the members of `folder`. Python's data filter refuses entries outside it; links are refused too."""
    with tarfile.open(archive) as file:
        wanted = [info for info in file if _is_wanted(archive, info.name, folder)]
        reporter = StepReporter(f"unpacking {archive.name}", len(wanted), progress)
        for number, info in enumerate(wanted, start=1):
            if not info.isfile() and not info.isdir():
                raise ValueError(
                    f"{archive}: its entry {info.name!r} is not a plain file, so this is not the published archive"
                )
            file.extract(info, root, filter=_as_data)
            reporter.done(number)


def _as_data(info: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
    """The archive member after Python's data filter, with its mode left to the umask as for all our files."""
    mode: Any = None  # documented to mean "set none"; its annotation says int
    return tarfile.data_filter(info, path).replace(mode=mode, deep=False)


def _is_wanted(archive: Path, name: str, folder: str) -> bool:
    """Whether a member lies in `folder`. Raises ValueError for one that points outside, whatever else it is."""
    path = PurePosixPath(name)
    # zipfile would drop such parts silently, and both modules take a backslash for a letter; other systems do not.
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise _outside(archive, name)
    return path.parts[:1] == (folder,)


def _outside(archive: Path, name: str) -> ValueError:
    return ValueError(f"{archive}: its entry {name!r} points outside the archive's folder; do not use it")


_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


def _download(item: Download, path: Path, part: Path, progress: Progress) -> None:
    """Download the published file to `part`, continuing after the bytes that are already there."""
    start = part.stat().st_size if part.exists() else 0
    if start > item.num_bytes:
        part.unlink()
        start = 0
    reporter = StepReporter(f"downloading {item.name}, MB", item.num_bytes // 10**6, progress, every_seconds=10)
    progress(f"downloading {item.name} ({size_in_words(item.num_bytes - start)}) from {item.url}")
    headers = {"User-Agent": "vlpure"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(item.url, headers=headers), timeout=_TIMEOUT) as response:
            # A server that ignores the range sends the whole file with status 200; it is then written from the start.
            continues = start > 0 and response.status == http.HTTPStatus.PARTIAL_CONTENT
            offered = (start if continues else 0) + int(response.headers.get("Content-Length", item.num_bytes))
            # Before the first byte is written: an error page of a mirror must not be appended to a good part.
            if offered != item.num_bytes:
                raise ValueError(f"{item.url} sends {offered:,} bytes, not the {item.num_bytes:,} of {item.name}")
            with part.open("ab" if continues else "wb") as file:
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    reporter.done(file.tell() // 10**6)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason: object = error
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        elif isinstance(error, urllib.error.URLError):
            reason = error.reason
        raise ValueError(
            f"cannot download {item.url} ({reason}); get {item.name} elsewhere, put it into {path.parent} and repeat "
            "this command, or repeat it later"
        ) from error
    if part.stat().st_size < item.num_bytes:
        raise ValueError(f"{item.url}: the download was cut off; repeat this command to continue it")


def _check(item: Download, path: Path, progress: Progress) -> None:
    """Raise ValueError unless the file at `path` is the published one."""
    num_bytes = path.stat().st_size
    if num_bytes < item.num_bytes:
        raise ValueError(
            f"{path}: cut short, {num_bytes:,} of {item.num_bytes:,} bytes; remove it and repeat this command"
        )
    if num_bytes > 10**8:
        progress(f"checking {path.name}")
    if num_bytes != item.num_bytes or not is_published(item, path):
        raise ValueError(
            f"{path}: not the published {item.name} (its {item.algorithm} is not {item.checksum}); remove it and "
            "repeat this command"
        )
