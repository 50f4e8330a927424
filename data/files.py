"""Files that are whole or absent: the cache folder, atomic writes, locks and content hashes.

Everything this project keeps on disk is written here, so that a killed process never leaves half a file behind.
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
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from inspect import signature
from pathlib import Path
from typing import Any, BinaryIO

CACHE_VARIABLE = "VLPURE_CACHE"


def cache_root() -> Path:
    """Folder of everything that can be computed again (decoded images, trained stand-in weights, features).

    `$VLPURE_CACHE` if set, else `~/.cache/vlpure`. It is not created here. Raises ValueError if the user has no home
    folder.
    """
    configured = os.environ.get(CACHE_VARIABLE)
    if configured:
        return user_path(configured)
    try:
        return Path.home() / ".cache" / "vlpure"
    except RuntimeError:
        raise ValueError(
            f"this user has no home folder (user id {os.getuid()} has no entry in the system's list of users, and HOME "
            f"is not set); set HOME, or set {CACHE_VARIABLE} to a folder for the files kept between runs"
        ) from None


def user_path(text: str | Path) -> Path:
    """The path that a user wrote, with `~` and `~name` expanded: the only way from typed text to a path.

    Raises ValueError for a `~` without a home folder, and for bytes that are not UTF-8.
    """
    path = Path(text)
    # Refused here: records, reports and MLflow cannot hold such a name, and would fail only when all is computed.
    if not is_unicode(str(path)):
        raise ValueError(f"the path {shown(str(path))} holds bytes that are not UTF-8; rename the folder or link to it")
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(
            f"there is no home folder for '{path.parts[0]}'; write the path out"
            + (", or set HOME" * (path.parts[0] == "~"))
        ) from None


def path_argument(text: str) -> Path:
    """The path that `user_path` gives for a command-line argument; serves as an argparse type."""
    try:
        # Path("") is the current folder, so an unset variable in a shell script would pass unnoticed.
        if not text.strip():
            raise ValueError("expected a path, got an empty text")
        return user_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8, which names of files need not be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories of what a terminal obeys or cannot show: controls, marks of direction, surrogates, line ends."""
JOINERS = "\u200c\u200d"
"""Characters of category Cf that are allowed, since letters of some languages need them."""


def is_printable(character: str) -> bool:
    """Whether a character is none of those that a terminal obeys (`UNPRINTABLE`)."""
    return character.isprintable() or unicodedata.category(character) not in UNPRINTABLE or character in JOINERS


def shown(text: str, *, keep: str = "") -> str:
    """A text in printable form: what a terminal would obey, and bytes that are not UTF-8, as escapes (\\x1b, \\xe9).

    The characters in `keep` stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(each if is_printable(each) or each in keep else _escape(each) for each in text)


def _escape(character: str) -> str:
    # A byte of a file name that is not UTF-8 is \udc80 to \udcff in Python; people know it as \x80 to \xff.
    is_byte = "\udc80" <= character <= "\udcff"
    return f"\\x{ord(character) - 0xDC00:02x}" if is_byte else character.encode("unicode_escape").decode()


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file so that `path` holds either its old content or all of the new one, even after a power cut.

    `write` gets an open binary file. The parent folder is created; the file's mode is the umask's. Raises OSError, with
    `path` as its file name, if the disk is full or the folder cannot be written, also if a library inside `write` turns
    that into another error.
    """
    made = make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        # "x" and not mkstemp, whose files are private: files shared by a group follow its umask and default ACL.
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
    # A rename and a new folder survive a power cut only once the folder that names them is on disk.
    for folder in (path.parent, *(each.parent for each in reversed(made))):
        sync_folder(folder)


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and its missing parents. Returns the folders that were made, the outermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")
"""Names of files that `write_atomically` had not finished when its process was killed."""


def leftovers(folder: Path) -> list[Path]:
    """The files in a folder that `write_atomically` had not finished, if nobody is writing there now."""
    return [path for path in sorted(folder.glob(".*")) if TEMPORARY.fullmatch(path.name) and path.is_file()]


def _disk_error(error: BaseException | None) -> OSError | None:
    """The OSError behind an error: the error itself or one in its chain; None if there is none."""
    # torch turns a failed write into a RuntimeError.
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        error = error.__cause__ or error.__context__
    return None


def write_text_atomically(path: Path, text: str) -> None:
    """Write a UTF-8 text as `write_atomically` does."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write bytes as `write_atomically` does."""

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


class NoLocks(ValueError):
    """A file system has no locks. The message names the folder and what to do."""


_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_PATIENCE = 0.2
"""Seconds for which a lock is tried even without waiting: a reader in `lock_holder` holds it for an instant."""


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (created if needed) among the processes of one machine.

    The lock ends with the process, however the process ends; the file stays, and holds the process's id while locked.
    With `wait=False` a lock held elsewhere raises BlockingIOError. Raises NoLocks on a file system that has none, and
    then leaves nothing behind.
    """
    from filelock import FileLock, Timeout  # 35 ms, and most commands take no lock

    made, is_new = make_folder(path.parent), not path.exists()
    # On a file system without locks filelock 4 falls back to a plain file, which a killed process leaves behind. Older
    # releases, such as the one an older torch installs, have neither the fallback nor the parameter.
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
        # Continuing without a lock would let two runs write the same files, which shows only in the numbers.
        _forget([path] if is_new else [], made)
        raise NoLocks(
            f"{path.parent} is on a file system without locks ({error.strerror}), which keep two processes from "
            "writing the same files; choose a folder on a local disk, or have it mounted with locks (NFS: without "
            "nolock)"
        ) from error
    # The id in the file is only a help for people, and `--repair` must be able to take a lock on a full disk.
    with suppress(OSError):
        path.write_text(f"{os.getpid()}\n", encoding="ascii")
    try:
        yield
    finally:
        with suppress(OSError):  # the file may have been removed with its folder
            os.truncate(path, 0)
        # A lock service that is gone refuses this too, and hid the error that a run was ending with behind its own; the
        # lock ends with the process at the latest.
        with suppress(OSError):
            lock.release()


def _forget(files: Sequence[Path], folders: Sequence[Path]) -> None:
    """Remove files and folders that were made in vain (`folders` innermost last), unless others use them by now."""
    for file in files:
        file.unlink(missing_ok=True)
    with suppress(OSError):
        for folder in reversed(folders):
            folder.rmdir()


def lock_holder(path: Path) -> int | None:
    """The id of the process that holds `file_lock(path)`; None if no process does.

    The id of a process in another container is that container's.
    """
    # A killed process leaves its id in the file, so the lock itself is tested, with a reader's lock for an instant.
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
        pass  # no lock file, or one that this user may not read: no holder can be seen
    return None


def content_hash(value: Any) -> str:
    """SHA-256 (64 hex digits) of a JSON-like value; equal values have equal hashes, whatever the order of their keys.

    Raises ValueError for NaN or infinity, TypeError for a value that JSON cannot hold.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
