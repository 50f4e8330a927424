"""Progress lines: silent for short work, a line every few seconds for long work."""

from __future__ import annotations

import pytest

from data.console import StepReporter, to_stderr


def test_lines_come_at_intervals_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    lines: list[str] = []
    reporter = StepReporter("reading", 3000, lines.append, every_seconds=5)
    for seconds, num_done in ((1, 10), (4.9, 100), (6, 1000), (10, 1500), (12, 2000)):
        now[0] = 100 + seconds
        reporter.done(num_done)
    # 6 s for 1,000 of 3,000 leave 12 s; the next line may come at 11 s: at 12 s, 2,000 done, 6 s are left.
    assert lines == ["reading: 1,000 of 3,000, about 12 s left", "reading: 2,000 of 3,000, about 6 s left"]


def test_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    lines: list[str] = []
    reporter = StepReporter("reading", 110, lines.append)
    now[0] = 10
    reporter.done(0)
    assert lines == []
    reporter.done(10)
    assert lines == ["reading: 10 of 110, about 1 min 40 s left"]


def test_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    to_stderr("far")
    assert capsys.readouterr().err == "far\n"
