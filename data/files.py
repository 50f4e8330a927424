"""Files that are whole or absent: the cache folder, atomic writes, locks and content hashes.

Everything this project keeps on disk goes through here, so that a killed process never leaves half a file behind.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

CACHE_VARIABLE = "VLPURE_CACHE"


def cache_root() -> Path:
    """Folder for what can be computed again (decoded images, trained stand-in weights, features).

    `$VLPURE_CACHE` if set, else `~/.cache/vlpure`. It is not created here. Raises ValueError without a
    home folder.
    """
    configured = os.environ.get(CACHE_VARIABLE)
    if configured:
        return user_path(configured)
    try:
        return Path.home() / ".cache" / "vlpure"
    except RuntimeError:
        raise ValueError(
            f"this user has no home folder (user id {os.getuid()} has no entry in the system's list of users, and HOME "
            f"is not set); set HOME, or set {CACHE_VARIABLE} to a folder for what is kept between runs"
        ) from None


def user_path(text: str | Path) -> Path:
    """A path as a user wrote it, `~` and `~name` expanded: the one way from what is typed to a path.

    Raises ValueError for a `~` without a home folder behind it, and for bytes that are no UTF-8: records, reports and
    MLflow could not hold such a name, and would say so only after everything was computed.
    """
    path = Path(text)
    if not is_unicode(str(path)):
        raise ValueError(f"the path {shown(str(path))} holds bytes that are no UTF-8; rename the folder or link to it")
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(
            f"there is no home folder for '{path.parts[0]}'; write the path out"
            + (", or set HOME" * (path.parts[0] == "~"))
        ) from None


def path_argument(text: str) -> Path:
    """An argparse type for a path, by `user_path`."""
    try:
        if not text.strip():
            raise ValueError("expected a path, not an empty text")
        return user_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: names of files need not be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(text: str) -> str:
    """A name of a file for people and reports: bytes that are no UTF-8 become \\xe9."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file so that `path` holds either its old content or all of the new one, even after a power cut.

    `write` gets an open binary file. The parent folder is created. Raises OSError, with `path` as its file name, where
    the disk is full or the folder cannot be written, also if what `write` calls makes another error of that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        cause = _disk_error(error)
        if cause is not None:
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise
    sync_folder(path.parent)


def _disk_error(error: BaseException | None) -> OSError | None:
    """The failed write behind an error: itself, or what came before it (torch turns it into a RuntimeError)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        error = error.__cause__ or error.__context__
    return None


def write_text_atomically(path: Path, text: str) -> None:
    """`write_atomically` for UTF-8 text."""
    encoded = text.encode()

    def write(file: BinaryIO) -> None:
        file.write(encoded)

    write_atomically(path, write)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (created if needed) among the processes of one machine.

    The lock ends with the process, however that ends. With `wait=False` a lock held elsewhere raises BlockingIOError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def lock_holder(path: Path) -> int | None:
    """The process that holds `file_lock(path)` on this machine; None where none is seen. Only looks: takes no lock.

    Read from Linux's table of locks; on other systems, and for a process outside this container, there is none to see.
    """
    try:
        there = path.stat()
        table = Path("/proc/locks").read_text()
    except OSError:
        return None
    for line in table.splitlines():  # 1: FLOCK  ADVISORY  WRITE 6164 fe:00:2146792 0 EOF
        fields = line.split()
        if fields[1:2] != ["FLOCK"] or fields[3] != "WRITE" or not fields[5].endswith(f":{there.st_ino}"):
            continue
        pid = int(fields[4])
        if _has_open(pid, there, device=fields[5].rpartition(":")[0]):
            return pid
    return None


def _has_open(pid: int, file: os.stat_result, *, device: str) -> bool:
    """Whether a process has that file open; of another user's process the device is compared, as the kernel names it.

    (Layered file systems have two names for a device, so its name alone does not settle it.)
    """
    try:
        descriptors = [entry.stat() for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.exists()]
    except OSError:
        return device == f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}"
    return any((opened.st_dev, opened.st_ino) == (file.st_dev, file.st_ino) for opened in descriptors)


def content_hash(value: Any) -> str:
    """64 hex digits that identify a JSON-like value: equal values, equal hash, whatever the order of keys.

    Raises ValueError for NaN or infinity, TypeError for what JSON cannot hold.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
