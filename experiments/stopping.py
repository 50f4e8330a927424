"""How a running command is stopped: the first Ctrl-C in order, the second at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from experiments.flags import INTERRUPTED

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what a batch system or a machine that is taken away sends."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside, the first signal raises KeyboardInterrupt and the second ends the process at once, with exit code 130.

    The processes of a local Ray end with this one. Files are whole whenever that happens.
    """
    asked = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise KeyboardInterrupt
        os.write(sys.stderr.fileno(), b"\nstopped at once; every finished round is saved\n")
        os._exit(INTERRUPTED)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
