"""A report that fills while its grid runs: a thread of the driver writes it again when the ledger has changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from types import TracebackType

EVERY = 15.0
"""Seconds between two looks at the ledger."""
SHARE = 0.1
"""Most of the time that may be spent writing: a page of 1,440 trials takes many seconds."""


class LivePage(AbstractContextManager["LivePage"]):
    """Inside, the page is kept up to date; the last word, with nothing running, is its owner's."""

    def __init__(
        self, write: Callable[[], object], version: Callable[[], Hashable], tell: Callable[[str], None]
    ) -> None:
        """`write` writes the page, `version` changes whenever it would come out otherwise; `tell` hears of trouble."""
        self._write, self._version, self._tell = write, version, tell
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="live-page", daemon=True)
        self._is_told = False

    def start(self) -> None:
        """Write the page now, and follow the ledger."""
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, after the page that is being written."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _follow(self) -> None:
        written: Hashable = None
        pause = 0.0
        while not self._stop.wait(pause):
            version = (self._version(),)
            pause = EVERY
            if version == written:
                continue
            started = time.monotonic()
            try:
                self._write()
            except Exception as error:  # the trials go on, and the report at the end says what is wrong
                if not self._is_told:
                    self._tell(f"warning: the page could not be written while the grid runs ({error})")
                self._is_told = True
            written = version
            pause = max(EVERY, (time.monotonic() - started) / SHARE)
