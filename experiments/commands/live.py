"""Lines at the bottom of a terminal that are redrawn in place, while everything else is printed above them."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence
from typing import TextIO

UP, CLEAR_BELOW = "\x1b[{}A", "\r\x1b[J"


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody looks at the stream, with a screen on which a line can be redrawn."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class LiveBlock:
    """A few lines below all others; any thread may print or draw."""

    def __init__(self, screen: TextIO) -> None:
        """`screen` is the terminal."""
        self._screen = screen
        self._lock = threading.Lock()
        self._drawn: list[str] = []

    def print(self, line: str, *, to: TextIO) -> None:
        """A line that stays, on the stream `to`, above the block."""
        with self._lock:
            drawn = self._drawn
            self._clear()
            print(line, file=to, flush=True)
            self._draw(drawn)

    def draw(self, lines: Sequence[str]) -> None:
        """Let these lines take the place of the block; none removes it."""
        columns, rows = shutil.get_terminal_size()
        fitting = [line[: columns - 1] for line in lines[: rows - 1]]  # a line that wraps could not be removed
        with self._lock:
            if fitting != self._drawn:
                self._clear()
                self._draw(fitting)

    def _clear(self) -> None:
        if self._drawn:
            up = UP.format(len(self._drawn) - 1) if len(self._drawn) > 1 else ""
            self._screen.write(up + CLEAR_BELOW)
            self._screen.flush()
        self._drawn = []

    def _draw(self, lines: list[str]) -> None:
        if lines:
            self._screen.write("\n".join(lines))
            self._screen.flush()
        self._drawn = lines
