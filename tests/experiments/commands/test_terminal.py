"""What a running grid tells: lines that stay, a block that is redrawn on a terminal, and no flood elsewhere."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.commands import terminal as terminal_module
from experiments.commands.terminal import GpuUse, LiveBlock, Progress
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial

Planned = Callable[..., PlannedTrial]


class Terminal(io.StringIO):
    """A screen that understands what is sent to it."""

    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> list[str]:
        """The lines that a person sees."""
        lines, row, column = [""], 0, 0
        for token in re.findall(r"\x1b\[\d*[AJ]|[^\x1b]", self.getvalue()):
            if token == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif token == "\r":
                column = 0
            elif token == "\x1b[J":
                lines[row:] = [lines[row][:column]]
            elif token.startswith("\x1b"):
                row -= int(token[2:-1])
            else:
                lines[row] = lines[row][:column].ljust(column) + token + lines[row][column + 1 :]
                column += 1
        return lines


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(terminal_module.time, "monotonic", clock.monotonic)
    return clock


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)


def make(planned: list[PlannedTrial], folder: Path, **how: bool) -> Progress:
    return Progress(planned, ledger=Ledger(folder), **{"quiet": False, "verbose": False, **how})


def test_printed_lines_stay_above_the_block() -> None:
    terminal = Terminal()
    block = LiveBlock(terminal)
    block.print("first", to=terminal)
    block.draw(["1 running", "  trial"])
    block.print("second", to=terminal)
    assert terminal.screen == ["first", "second", "1 running", "  trial"]
    block.draw(["2 running"])
    sent = len(terminal.getvalue())
    block.draw(["2 running"])
    assert len(terminal.getvalue()) == sent  # nothing changed
    assert terminal.screen == ["first", "second", "2 running"]
    block.draw([])
    block.print("third", to=terminal)
    assert terminal.screen == ["first", "second", "third", ""]


def test_the_block_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    monkeypatch.setenv("LINES", "3")
    terminal = Terminal()
    LiveBlock(terminal).draw(["x" * 30, "b", "c", "d"])
    assert terminal.screen == ["x" * 9, "b"]


def test_counts_rate_and_time_left(
    planned_trial: Planned, record: Callable[..., RoundRecord], clock: Clock, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    todo = [planned_trial(seed) for seed in range(3)]
    told = make(todo, tmp_path, verbose=True)
    told.begin(todo)
    for trial in todo[:2]:
        told.start(trial)
    assert told.summary()[0] == "2 running, 0 of 3 done, 0 failed"
    clock.now += 60
    for number in range(3):
        told.advance(todo[0], number, 0.5)
        Ledger(tmp_path).append(todo[0].fingerprint, {}, record(number))
    told.end(todo[0], None)
    told.advance(todo[1], 0, 0.5)
    told.start(todo[1])  # lost and started again
    assert told.summary() == [
        "1 running, 1 of 3 done, 0 failed, 4 rounds per minute, 1 min 15 s left",
        "  digits mismatch 0.2 ood 0.6 conf seed 1: round 1 of 3",
    ]
    told.end(todo[1], "out of luck")
    assert told.summary() == ["0 running, 1 of 3 done, 1 failed, 4 rounds per minute, 45 s left"]
    out, err = capsys.readouterr()
    assert "[1/3] digits mismatch 0.2 ood 0.6 conf seed 0: aubc 0.600  last 0.700  precision 0.750  (4 s; " in out
    assert err == "[2/3] digits mismatch 0.2 ood 0.6 conf seed 1: FAILED: out of luck\n"


def test_summaries_without_a_terminal_are_few(
    planned_trial: Planned, clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    todo = [planned_trial(0, rounds=30, budget=10) for _ in range(40)]
    told = make(todo, tmp_path)
    told.begin(todo)
    for number in range(1200):
        clock.now += 1
        told.advance(todo[number // 30], number % 30, 0.5)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 19  # one every 60 rounds, 5 % of all, and none at the very end
    assert all(" running, 0 of 40 done, " in line for line in lines)


def test_quick_rounds_bring_a_summary_every_half_minute(
    planned_trial: Planned, clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    todo = [planned_trial(0, rounds=30, budget=10)]
    told = make(todo, tmp_path)
    told.begin(todo)
    for number in range(29):
        clock.now += 2.5
        told.advance(todo[0], number, 0.5)
    assert len(capsys.readouterr().out.splitlines()) == 2
    quiet = make(todo, tmp_path, quiet=True)
    quiet.begin(todo)
    for number in range(29):
        clock.now += 10
        quiet.advance(todo[0], number, 0.5)
    assert capsys.readouterr().out == ""


def test_on_a_terminal_the_summary_is_redrawn_and_goes_away(
    planned_trial: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(terminal_module, "REDRAW_EVERY", 0.01)
    todo = [planned_trial()]
    told = make(todo, tmp_path)
    with told.live():
        told.begin(todo)
        told.start(todo[0])
        while "running" not in terminal.getvalue():
            pass
        told.tell("a line")
    assert terminal.screen == ["a line", ""]
    before = terminal.getvalue()
    assert before.count("1 running, 0 of 1 done") >= 1


@pytest.mark.parametrize(("term", "quiet"), [("dumb", False), ("xterm", True)])
def test_no_block_for_those_who_cannot_see_it(
    term: str, quiet: bool, planned_trial: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", term)
    told = make([planned_trial()], tmp_path, quiet=quiet)
    with told.live():
        told.begin([planned_trial()])
        told.tell("a line")
    assert terminal.getvalue() == ("" if quiet else "a line\n")


def test_gpu_use_is_asked_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    tool, answer = tmp_path / "nvidia-smi", tmp_path / "answer"
    tool.write_text(f"#!/bin/sh\ncat {answer}\n")
    tool.chmod(0o755)
    assert GpuUse().words() == ""
    monkeypatch.setattr("shutil.which", lambda name: str(tool))
    use = GpuUse()
    answer.write_text("87, 31744, 81920\n")
    assert use.words() == "GPU 87 %, 31 of 80 GiB"
    answer.write_text("80, 1024, 81920\n40, 1024, 81920\n")
    assert use.words() == "GPU 87 %, 31 of 80 GiB"  # asked a moment ago
    clock.now += terminal_module.EVERY
    assert use.words() == "2 GPUs 60 %, 2 of 160 GiB"
    clock.now += terminal_module.EVERY
    answer.write_text("[N/A], 1024, 81920\n")
    assert use.words() == ""
