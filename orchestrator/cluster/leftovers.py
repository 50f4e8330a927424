"""Ray's processes and files on this machine: where they may lie, and their removal. Importing this needs no Ray.

Ray's part of a grid runs in a session of its own (`setsid`), which all that Ray starts stays in, workers included, and
with a private folder: both can be removed whatever happened to them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data.files import file_lock

PREFIX = "vlpure-ray-"
LOCK = "lock"
LONGEST_BASE = 107 - len("/" + PREFIX + "12345678" + "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""Longest name of a folder below which Ray's sockets fit: a socket's path has at most 107 characters (Linux)."""
SWEEP_SECONDS = 10.0
"""Seconds for processes to be gone after SIGKILL; one in the middle of a disk's write takes its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of this machine."""

    pid: int
    parent: int
    session: int
    name: str
    is_dead: bool
    """Ended, and not yet asked for its exit code by its parent."""


def find_process(pid: int) -> Process | None:
    """Process with that id, if there is one and the system shows it in /proc."""
    try:
        head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")  # a name may hold spaces and brackets
    except OSError:
        return None
    state, parent, _, session = tail.split()[:4]
    return Process(
        pid=pid, parent=int(parent), session=int(session), name=head.partition("(")[2], is_dead=state in "ZX"
    )


def processes() -> list[Process]:
    """All processes that the system shows in /proc; empty without /proc."""
    found = (find_process(int(folder.name)) for folder in Path("/proc").glob("[0-9]*"))
    return [each for each in found if each is not None]


def end_session(leader: int) -> None:
    """Kill what is left of the session of process `leader`, and wait until it is gone.

    Without /proc those of its process group, which is all of Ray but its workers; they end when the raylet does.
    """
    deadline = time.monotonic() + SWEEP_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
        left = {each.pid for each in processes() if each.session == leader and not each.is_dead}
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder for Ray's files and sockets, for this user only; it goes away with all that is in it.

    Folders of runs that were killed go away, too. Raises ValueError if no temporary folder has a short enough name.
    """
    base = _base()
    sweep_folders(base)
    unnamed = Path(tempfile.mkdtemp(prefix=".vlpure-", dir=base))  # mode 0700
    folder = base / (PREFIX + unnamed.name[-8:])
    try:
        with file_lock(unnamed / LOCK):
            unnamed.rename(folder)  # only now, locked, is it one that others may find and try to sweep
            yield folder
    finally:
        _remove(folder)


def _base() -> Path:
    """Temporary folder, the user's own if its name is short enough for Ray."""
    wishes = [os.environ.get("RAY_TMPDIR"), tempfile.gettempdir(), "/tmp", "/var/tmp"]
    for wish in wishes:
        if wish and len(os.fsencode(wish)) <= LONGEST_BASE and os.access(wish, os.W_OK | os.X_OK):
            return Path(wish)
    raise ValueError(
        f"no temporary folder for Ray: {tempfile.gettempdir()} has more than {LONGEST_BASE} letters, and /tmp cannot "
        "be written; set TMPDIR to a folder with a shorter name"
    )


def sweep_folders(base: Path) -> None:
    """Remove the private folders of this user whose runs are gone, as after a SIGKILL."""
    for folder in base.glob(PREFIX + "*"):
        with contextlib.suppress(OSError, BlockingIOError):  # another user's, or one that is just being removed
            if folder.stat().st_uid == os.getuid() and (folder / LOCK).exists():
                with file_lock(folder / LOCK, wait=False):
                    _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder in which the last of Ray's processes may still be writing."""
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
