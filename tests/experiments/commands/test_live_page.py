"""The page of a running grid: written at once, then only when the ledger has changed, and never after the end."""

from __future__ import annotations

import threading

import pytest

from experiments.commands import live_page
from experiments.commands.live_page import LivePage


class Ledger:
    """Something with a version, and a page that says which version it shows."""

    def __init__(self) -> None:
        self.version = 0
        self.written: list[int] = []
        self.looks = threading.Semaphore(0)
        self.fails = False

    def look(self) -> int:
        self.looks.release()
        return self.version

    def write(self) -> None:
        self.written.append(self.version)
        if self.fails:
            raise OSError("the disk is full")


def test_only_changes_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_page, "EVERY", 0.01)
    ledger, said = Ledger(), list[str]()
    with LivePage(ledger.write, ledger.look, said.append) as page:
        page.start()
        for _ in range(3):
            assert ledger.looks.acquire(timeout=20)
        assert ledger.written == [0]
        ledger.fails = True
        for version in (1, 2):
            ledger.version = version
            for _ in range(2):  # the look that may have begun before, and one that sees it
                assert ledger.looks.acquire(timeout=20)
            assert ledger.looks.acquire(timeout=20)
    assert ledger.written == [0, 1, 2]
    assert said == ["warning: the page could not be written while the grid runs (the disk is full)"]
    assert not any(thread.name == "live-page" for thread in threading.enumerate())


def test_long_pages_are_written_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    page = LivePage(lambda: None, lambda: 1, lambda line: None)
    clock = iter([0.0, 30.0])
    monkeypatch.setattr(live_page.time, "monotonic", lambda: next(clock))

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) == 3

    monkeypatch.setattr(page._stop, "wait", wait)
    page._follow()
    assert pauses == [0.0, 300.0, 15.0]
