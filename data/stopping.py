"""Stopping of commands (in order at the first signal, at once at the second) and loss of their output streams.

Every command runs inside `stoppable` and calls `steady_output` first.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

from data.files import shown

INTERRUPTED = 130
"""Exit code of a command that was stopped."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals of Ctrl-C; of a batch system, a container or a machine that is taken away; of a terminal that is closed."""
READER_GONE = (errno.EPIPE, errno.EIO)
"""Error numbers of a write after `head` has read enough, `tee` died, or the terminal was closed."""


@contextmanager
def stoppable(last_words: str = "stopped at once; every finished round is saved") -> Iterator[None]:
    """Make the first signal raise KeyboardInterrupt, and the second end the process at once with exit code 130.

    `last_words` are printed before the process ends. The processes of a local Ray end with this one. Files are whole
    whenever that happens. SIGHUP stays ignored if it was (`nohup`). If two such blocks are nested, the inner one
    decides.
    """
    asked = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise KeyboardInterrupt
        with contextlib.suppress(OSError, ValueError):  # there may be nobody left to read them
            os.write(sys.stderr.fileno(), f"\n{last_words}\n".encode())
        os._exit(INTERRUPTED)

    before = {
        number: signal.signal(number, stop)
        for number in SIGNALS
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def steady_output() -> None:
    """Make the standard streams survive the loss of their reader and letters that they cannot encode.

    Streams that are not the interpreter's own (a test's) are left as they are.
    """
    # A grid that runs for days must not end because the `tee` behind it did.
    sys.stdout, sys.stderr = _steady(sys.stdout), _steady(sys.stderr)


def _steady(stream: TextIO) -> TextIO:
    if type(stream) is not io.TextIOWrapper:
        return stream
    encoding, lines = stream.encoding, stream.line_buffering
    return SteadyStream(stream.detach(), encoding=encoding, errors="backslashreplace", line_buffering=lines)


LAYOUT = "\n\t"
"""Control characters that texts may have."""


def write_controls(stream: TextIO, text: str) -> None:
    """Write control sequences of our own to a terminal, which `SteadyStream.write` would show and not send."""
    if isinstance(stream, SteadyStream):
        stream.write_as_it_is(text)
    else:
        stream.write(text)


class SteadyStream(io.TextIOWrapper):
    """A text stream that discards what is written to it once its reader is gone, and obeys no name it prints.

    Names of classes, folders, files and strategies and messages of guests come from elsewhere and may hold sequences
    that move a terminal's cursor, rename its window or hide a line. Here, not where they are printed: every output of a
    command passes this place.
    """

    def write(self, text: str) -> int:
        """Write a text, with what a terminal would obey as escapes. Returns its length."""
        self.write_as_it_is(shown(text, keep=LAYOUT))
        return len(text)

    def write_as_it_is(self, text: str) -> None:
        """Write a text with its control sequences."""
        with self._heeding_loss():
            super().write(text)

    def flush(self) -> None:
        """Write the buffered text to the stream's file."""
        with self._heeding_loss():
            super().flush()

    @contextmanager
    def _heeding_loss(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in READER_GONE:  # a log on a full disk: trials continue, but the loss is reported
                with contextlib.suppress(OSError):
                    os.write(2, f"output is lost from here on: {error.strerror}\n".encode())
            # The bytes that could not be written stay in the buffer and would fail again, at the latest at exit.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            super().flush()
