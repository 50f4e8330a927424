"""The output of a running grid: the plan, one line per finished trial, and live lines about the rest and the GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from data.console import duration
from data.files import shown
from data.stopping import write_controls
from experiments.commands.live_table import live_table
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.records import summarise
from orchestrator.ledger.repair import mending
from orchestrator.plan import PlannedTrial, distinct

REDRAW_EVERY = 1.0
"""Seconds between two updates of the live summary."""
SUMMARY_EVERY, SUMMARY_SHARE = 30.0, 0.05
"""Without a terminal: least seconds, and least share of the rounds, between two summaries."""


class Progress:
    """Prints lines on the standard output, and warnings on the standard error stream."""

    def __init__(self, planned: Sequence[PlannedTrial], *, ledger: Ledger, quiet: bool, verbose: bool) -> None:
        self._planned = planned
        self._ledger = mending(ledger, self.warn)
        self._quiet = quiet
        self._verbose = verbose
        self._block = LiveBlock(sys.stdout) if is_terminal(sys.stdout) and not quiet else None
        self._gpu = GpuUse()
        self._on_begin: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._started = self._summed_up = time.monotonic()
        self._num_todo = self._num_ended = self._num_failed = 0
        self._rounds_done = self._rounds_left = self._rounds_summed_up = 0
        self._finished = {
            p.fingerprint: summarise(p.records[: p.trial.rounds]) for p in distinct(planned) if p.is_finished
        }
        self._running: dict[str, tuple[PlannedTrial, int]] = {}
        """Trials that have started, with the number of rounds that each has finished."""

    def tell(self, line: str) -> None:
        """Print a line, which --quiet suppresses."""
        if self._block is not None:
            self._block.print(line, to=sys.stdout)
        elif not self._quiet:
            print(line, flush=True)

    def warn(self, line: str) -> None:
        """Print a warning, which --quiet does not suppress."""
        if self._block is not None:
            self._block.print(line, to=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def plan(self, title: str, output: Path) -> None:
        """Print how many trials and rounds there are to run."""
        trials = distinct(self._planned)
        finished = sum(p.is_finished for p in trials)
        rounds = sum(p.trial.rounds - len(p.records) for p in trials)
        self.tell(
            f"{title}: {len(trials)} trials, {finished} finished, {len(trials) - finished} to run "
            f"({rounds} rounds) -> {output}"
        )

    @contextmanager
    def live(self, *, on_begin: Callable[[], None] | None = None) -> Iterator[None]:
        """Inside, a terminal shows the progress of the grid below all other lines; `on_begin` is called first."""
        self._on_begin = on_begin
        if self._block is None:
            yield
            return
        stop = threading.Event()
        ticker = threading.Thread(target=self._redraw, args=(stop,), name="live-summary", daemon=True)
        ticker.start()
        try:
            yield
        finally:
            stop.set()
            ticker.join()
            self._block.draw([])

    def _redraw(self, stop: threading.Event) -> None:
        assert self._block is not None
        while not stop.wait(REDRAW_EVERY):
            if self._num_todo:
                with self._lock:
                    table = live_table(self._planned, self._finished)
                self._block.draw([*table, *self.summary()])

    def begin(self, todo: Sequence[PlannedTrial]) -> None:
        """Start the clock: the trials begin."""
        if self._on_begin is not None:
            self._on_begin()
        with self._lock:
            self._started = self._summed_up = time.monotonic()
            self._num_todo = len(todo)
            self._rounds_left = sum(p.trial.rounds - len(p.records) for p in todo)

    def start(self, planned: PlannedTrial) -> None:
        """Note that a trial starts, or starts again."""
        with self._lock:
            # setdefault: a trial that is started again keeps the rounds that it has finished since the plan was made.
            self._running.setdefault(planned.fingerprint, (planned, len(planned.records)))

    def advance(self, planned: PlannedTrial, round_number: int, accuracy: float) -> None:
        """Count a round that a trial has finished."""
        with self._lock:
            self._rounds_done += 1
            self._rounds_left -= 1
            self._running[planned.fingerprint] = (planned, round_number + 1)
        if self._verbose:
            self.tell(f"  {planned.label}: round {round_number}, accuracy {accuracy:.3f}")
        self._sum_up_now_and_then()

    def stumble(self, planned: PlannedTrial, reason: str) -> None:
        """Report, with --verbose, that a trial was lost and is started again."""
        if self._verbose:
            self.tell(f"  {planned.label}: started again: {reason}")

    def end(self, planned: PlannedTrial, error: str | None) -> None:
        """Print the line of a trial that has ended."""
        with self._lock:
            self._num_ended += 1
            _, num_rounds = self._running.pop(planned.fingerprint, (planned, planned.trial.rounds))
            if error is not None:
                self._num_failed += 1
                self._rounds_left -= planned.trial.rounds - num_rounds
        count = f"[{self._num_ended}/{self._num_todo}]"
        if error is not None:
            self.warn(f"{count} {planned.label}: FAILED: {error}")
            return
        records = self._ledger.history(planned.fingerprint)[: planned.trial.rounds]
        if len(records) < planned.trial.rounds:  # its file was damaged and set aside just now
            self.warn(
                f"{count} {planned.label}: finished, and then lost from the disk; the same command computes it again"
            )
            return
        summary = summarise(records)
        with self._lock:
            self._finished[planned.fingerprint] = summary
        precision = "" if summary.mean_precision is None else f"  precision {summary.mean_precision:.3f}"
        seconds = sum(sum(record.seconds.values()) for record in records)
        self.tell(
            f"{count} {planned.label}: aubc {summary.aubc:.3f}  last {summary.last_accuracy:.3f}{precision}"
            f"  ({duration(seconds)}; {self._left()} left)"
        )

    def summary(self) -> list[str]:
        """The progress of the grid in one line, and with --verbose one more line per running trial."""
        gpu = self._gpu.words()
        with self._lock:
            minutes = max(1e-9, time.monotonic() - self._started) / 60
            parts = [
                f"{len(self._running)} running",
                f"{self._num_ended - self._num_failed} of {self._num_todo} done",
                f"{self._num_failed} failed",
            ]
            # No rate and no time left before the first round: there is nothing yet to compute them from.
            if self._rounds_done:
                parts += [f"{self._rounds_done / minutes:.3g} rounds per minute", f"{self._left()} left"]
            lines = [", ".join(parts) + (f"; {gpu}" if gpu else "")]
            if self._verbose:
                lines += [
                    f"  {planned.label}: round {min(done, planned.trial.rounds - 1)} of {planned.trial.rounds}"
                    for planned, done in self._running.values()
                ]
        return lines

    def _left(self) -> str:
        """The time that the remaining rounds take at the rate so far."""
        if not self._rounds_done:
            return "unknown time"
        return duration((time.monotonic() - self._started) / self._rounds_done * self._rounds_left)

    def _sum_up_now_and_then(self) -> None:
        """Print the summary if nothing is redrawn, rarely enough not to flood a log."""
        if self._block is not None or self._quiet or not self._rounds_left:
            return
        share = SUMMARY_SHARE * (self._rounds_done + self._rounds_left)
        if time.monotonic() - self._summed_up >= SUMMARY_EVERY and self._rounds_done - self._rounds_summed_up >= share:
            self._summed_up, self._rounds_summed_up = time.monotonic(), self._rounds_done
            for line in self.summary():
                self.tell(line)


UP, CLEAR_BELOW = "\x1b[{}A", "\r\x1b[J"


def is_terminal(stream: TextIO) -> bool:
    """Whether the stream is a terminal on which a line can be redrawn."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class LiveBlock:
    """A few lines below all others; any thread may print or draw."""

    def __init__(self, screen: TextIO) -> None:
        """Keep the terminal `screen`; nothing is drawn yet."""
        self._screen = screen
        self._lock = threading.Lock()
        self._drawn: list[str] = []

    def print(self, line: str, *, to: TextIO) -> None:
        """Print a line that stays, on the stream `to`, above the block."""
        with self._lock:
            drawn = self._drawn
            self._clear()
            print(line, file=to, flush=True)
            self._draw(drawn)

    def draw(self, lines: Sequence[str]) -> None:
        """Replace the block with these lines; an empty sequence removes it."""
        columns, rows = shutil.get_terminal_size()
        # A line that wraps could not be removed; escapes are longer than what they stand for, so they come first.
        fitting = [shown(line)[: columns - 1] for line in lines[: rows - 1]]
        with self._lock:
            if fitting != self._drawn:
                self._clear()
                self._draw(fitting)

    def _clear(self) -> None:
        if self._drawn:
            up = UP.format(len(self._drawn) - 1) if len(self._drawn) > 1 else ""
            write_controls(self._screen, up + CLEAR_BELOW)
            self._screen.flush()
        self._drawn = []

    def _draw(self, lines: list[str]) -> None:
        if lines:
            self._screen.write("\n".join(lines))
            self._screen.flush()
        self._drawn = lines


EVERY = 5.0
"""Seconds for which an answer of nvidia-smi is kept."""
TIMEOUT = 5.0
QUERY = ("--query-gpu=utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits")


class GpuUse:
    """Load and memory of the machine's GPUs, asked of nvidia-smi at most every few seconds."""

    def __init__(self) -> None:
        self._tool = shutil.which("nvidia-smi")
        self._asked = float("-inf")
        self._words = ""

    def words(self) -> str:
        """The use as text: "GPU 87 %, 31 of 80 GiB" (mean and sums of several cards); empty without a GPU."""
        if self._tool is not None and time.monotonic() - self._asked >= EVERY:
            self._words = _ask(self._tool)
            self._asked = time.monotonic()
        return self._words


def _ask(tool: str) -> str:
    try:
        answer = subprocess.run(
            [tool, *QUERY], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=True
        ).stdout
        cards = [[float(part) for part in line.split(",")] for line in answer.splitlines() if line.strip()]
        uses, used, total = zip(*cards, strict=True)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ""  # no driver, or a card that does not report its use: not worth a warning
    name = "GPU" if len(cards) == 1 else f"{len(cards)} GPUs"
    return f"{name} {sum(uses) / len(uses):.0f} %, {sum(used) / 1024:.0f} of {sum(total) / 1024:.0f} GiB"
