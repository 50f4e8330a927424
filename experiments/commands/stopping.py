"""How a running command is stopped: the first Ctrl-C in order, the second at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from data.console import INTERRUPTED

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what a batch system or a machine that is taken away sends."""


@contextmanager
def stoppable(last_words: str = "stopped at once; every finished round is saved") -> Iterator[None]:
    """Inside, the first signal raises KeyboardInterrupt and the second ends the process at once, with exit code 130.

    `last_words` are said then. The processes of a local Ray end with this one. Files are whole whenever that happens.
    """
    asked = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise KeyboardInterrupt
        os.write(sys.stderr.fileno(), f"\n{last_words}\n".encode())
        os._exit(INTERRUPTED)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
