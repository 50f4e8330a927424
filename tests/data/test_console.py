"""Progress lines: silent for short work, a line every few seconds for long work."""

from __future__ import annotations

import argparse
import errno

import pytest

from data.console import CommandParser, RunStopped, StepReporter, nearest, run_command, to_stderr


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


def _ends_with(error: BaseException) -> int:
    """The exit code of a command whose body raises that error."""
    parser = CommandParser(prog="command", description="")
    parser.add_argument("--debug", action="store_true")

    def body(_: argparse.Namespace) -> int:
        raise error

    return run_command(parser, body, [])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("budget = 0:\n  must be 1"), 2, "command: error: budget = 0: must be 1\n"),
        (OSError(errno.ENOENT, "No such file", "x"), 2, "command: error: x: No such file\n"),
        (RunStopped("Ray did not start"), 1, "command: failed: Ray did not start\n"),
        (FloatingPointError("loss is NaN"), 1, "command: failed: loss is NaN\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
    ],
)
def test_every_command_ends_alike(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _ends_with(error) == code
    assert capsys.readouterr().err == line


def test_a_full_disk_is_no_mistake_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    assert _ends_with(OSError(errno.ENOSPC, "No space left on device", "ledger/a")) == 1
    assert "command: failed: ledger/a: No space left on device: make room" in capsys.readouterr().err


def test_the_nearest_name_whatever_its_case() -> None:
    assert nearest("VLPUR", ["random", "VLPure", "vlpure"]) == "VLPure"
    assert nearest("x", ["random", "VLPure"]) is None
