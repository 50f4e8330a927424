"""Python imports this by itself in every process below $NEMESIS: clocks jump and locks fail there on command.

`$NEMESIS/clock` holds the seconds by which `time.time` is off; while `$NEMESIS/no-locks` is there, `flock` fails as on
a network file system without locks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["NEMESIS"])
real_time, real_time_ns, real_flock = time.time, time.time_ns, fcntl.flock


def offset() -> int:
    """Seconds by which the clock is off."""
    try:
        return int((FOLDER / "clock").read_text() or 0)
    except OSError:
        return 0


def shifted_time() -> float:
    """In place of `time.time`."""
    return real_time() + offset()


def shifted_time_ns() -> int:
    """In place of `time.time_ns`."""
    return real_time_ns() + offset() * 1_000_000_000


def failing_flock(file: Any, operation: int) -> None:
    """In place of `fcntl.flock`."""
    if (FOLDER / "no-locks").exists():
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    real_flock(file, operation)


time.time, time.time_ns, fcntl.flock = shifted_time, shifted_time_ns, failing_flock
