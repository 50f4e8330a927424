"""Files that are whole or absent: the cache folder, atomic writes, locks and content hashes.

Everything this project keeps on disk goes through here, so that a killed process never leaves half a file behind.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from inspect import signature
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

    `write` gets an open binary file. The parent folder is created; the file's mode is the umask's. Raises OSError, with
    `path` as its file name, if the disk is full or the folder cannot be written, also if what `write` calls makes
    another error of that.
    """
    made = make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        # "x" and not mkstemp, whose files are private: what a group shares follows its umask and default ACL.
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        cause = _disk_error(error)
        if cause is not None:
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise
    for folder in (path.parent, *(each.parent for each in reversed(made))):
        sync_folder(folder)


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it that are missing; those that were made, the outermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")
"""Names of files that `write_atomically` had not finished when its process was killed."""


def leftovers(folder: Path) -> list[Path]:
    """The files in a folder that `write_atomically` had not finished, if nobody is writing there now."""
    return [path for path in sorted(folder.glob(".*")) if TEMPORARY.fullmatch(path.name) and path.is_file()]


def _disk_error(error: BaseException | None) -> OSError | None:
    """The failed write behind an error: itself, or what came before it (torch turns it into a RuntimeError)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        error = error.__cause__ or error.__context__
    return None


def write_text_atomically(path: Path, text: str) -> None:
    """`write_atomically` for UTF-8 text."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """`write_atomically` for bytes that are at hand."""

    def write(file: BinaryIO) -> None:
        file.write(content)

    write_atomically(path, write)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_PATIENCE = 0.2
"""Seconds for which a lock that is not waited for is tried: whoever looks at it (`lock_holder`) has it that instant."""


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (created if needed) among the processes of one machine.

    The lock ends with the process, however that ends; the file stays, and holds the process's id meanwhile. With
    `wait=False` a lock held elsewhere raises BlockingIOError. Raises ValueError on a file system that has no locks, and
    then leaves nothing behind.
    """
    from filelock import FileLock, Timeout  # 35 ms, and most commands take no lock

    made, is_new = make_folder(path.parent), not path.exists()
    # On a file system without locks filelock 4 would make do with a file that a killed process leaves behind. The
    # filelock that an older torch brings along knows no such thing, nor the parameter.
    strict: dict[str, Any] = (
        {"fallback_to_soft": False} if "fallback_to_soft" in signature(FileLock.__init__).parameters else {}
    )
    lock = FileLock(path, **strict)
    try:
        lock.acquire(timeout=-1 if wait else _PATIENCE)
    except Timeout:
        raise BlockingIOError(errno.EWOULDBLOCK, "another process holds the lock", str(path)) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        # To go on without would let two runs write the same files, which shows only in the numbers.
        _forget([path] if is_new else [], made)
        raise ValueError(
            f"{path.parent} is on a file system without locks ({error.strerror}), which keep two processes from "
            "writing the same files; choose a folder on a local disk, or have it mounted with locks (NFS: without "
            "nolock)"
        ) from error
    # Who holds a lock is a courtesy, and `--repair` must be able to take one on a full disk.
    with suppress(OSError):
        path.write_text(f"{os.getpid()}\n", encoding="ascii")
    try:
        yield
    finally:
        with suppress(OSError):  # the file may have been removed with its folder
            os.truncate(path, 0)
        lock.release()


def _forget(files: Sequence[Path], folders: Sequence[Path]) -> None:
    """Remove what was made for nothing, the innermost folder last in `folders`; what others use by now stays."""
    for file in files:
        file.unlink(missing_ok=True)
    with suppress(OSError):
        for folder in reversed(folders):
            folder.rmdir()


def lock_holder(path: Path) -> int | None:
    """The id of the process that holds `file_lock(path)`; None if none does.

    The process that was killed left its id, so the lock itself is asked, with a reader's lock for an instant. In
    another container the id is that container's own.
    """
    try:
        with path.open("rb") as file:
            content = file.read(20).strip()
            if not content.isdigit():
                return None
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(content)
    except OSError:
        pass  # no lock file, or none that this user may read: nobody is seen
    return None


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
