"""What a grid tells the person who waits for it: the plan, a line a finished trial, how the rest is getting on."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from data.console import duration
from experiments.commands.gpu_use import GpuUse
from experiments.commands.live import LiveBlock, is_terminal
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.metrics import summarise
from orchestrator.plan import PlannedTrial, distinct

REDRAW_EVERY = 1.0
"""Seconds between two looks of the live summary."""
SUMMARY_EVERY, SUMMARY_SHARE = 30.0, 0.05
"""Where there is no terminal: seconds, and share of the rounds, between two summaries at least."""


class Progress:
    """Lines on the standard output; warnings on the standard error stream."""

    def __init__(self, planned: Sequence[PlannedTrial], *, ledger: Ledger, quiet: bool, verbose: bool) -> None:
        self._planned = planned
        self._ledger = ledger
        self._quiet = quiet
        self._verbose = verbose
        self._block = LiveBlock(sys.stdout) if is_terminal(sys.stdout) and not quiet else None
        self._gpu = GpuUse()
        self._on_begin: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._started = self._summed_up = time.monotonic()
        self._num_todo = self._num_ended = self._num_failed = 0
        self._rounds_done = self._rounds_left = self._rounds_summed_up = 0
        self._running: dict[str, tuple[PlannedTrial, int]] = {}
        """Trials that have started, with the number of rounds that each has finished."""

    def tell(self, line: str) -> None:
        """A line for the curious."""
        if self._block is not None:
            self._block.print(line, to=sys.stdout)
        elif not self._quiet:
            print(line, flush=True)

    def warn(self, line: str) -> None:
        """A line that matters."""
        if self._block is not None:
            self._block.print(line, to=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def plan(self, title: str, output: Path) -> None:
        """What there is to do."""
        trials = distinct(self._planned)
        finished = sum(p.is_finished for p in trials)
        rounds = sum(p.trial.rounds - len(p.records) for p in trials)
        self.tell(
            f"{title}: {len(trials)} trials, {finished} finished, {len(trials) - finished} to run "
            f"({rounds} rounds) -> {output}"
        )

    @contextmanager
    def live(self, *, on_begin: Callable[[], None] | None = None) -> Iterator[None]:
        """Inside, a terminal shows how the grid is getting on, below all other lines; `on_begin` is called first."""
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
                self._block.draw(self.summary())

    def begin(self, todo: Sequence[PlannedTrial]) -> None:
        """The trials begin."""
        if self._on_begin is not None:
            self._on_begin()
        with self._lock:
            self._started = self._summed_up = time.monotonic()
            self._num_todo = len(todo)
            self._rounds_left = sum(p.trial.rounds - len(p.records) for p in todo)

    def start(self, planned: PlannedTrial) -> None:
        """A trial starts, or starts again."""
        with self._lock:
            self._running.setdefault(planned.fingerprint, (planned, len(planned.records)))

    def advance(self, planned: PlannedTrial, round_number: int, accuracy: float) -> None:
        """A trial finished a round."""
        with self._lock:
            self._rounds_done += 1
            self._rounds_left -= 1
            self._running[planned.fingerprint] = (planned, round_number + 1)
        if self._verbose:
            self.tell(f"  {planned.label}: round {round_number}, accuracy {accuracy:.3f}")
        self._sum_up_now_and_then()

    def stumble(self, planned: PlannedTrial, reason: str) -> None:
        """A trial was lost and is started again."""
        if self._verbose:
            self.tell(f"  {planned.label}: started again: {reason}")

    def end(self, planned: PlannedTrial, error: str | None) -> None:
        """One trial ended."""
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
        summary = summarise(records)
        precision = "" if summary.mean_precision is None else f"  precision {summary.mean_precision:.3f}"
        seconds = sum(sum(record.seconds.values()) for record in records)
        self.tell(
            f"{count} {planned.label}: aubc {summary.aubc:.3f}  last {summary.last_accuracy:.3f}{precision}"
            f"  ({duration(seconds)}; {self._left()} left)"
        )

    def summary(self) -> list[str]:
        """How the grid is getting on: a line, and with --verbose one for each trial that is running."""
        gpu = self._gpu.words()
        with self._lock:
            minutes = max(1e-9, time.monotonic() - self._started) / 60
            parts = [
                f"{len(self._running)} running",
                f"{self._num_ended - self._num_failed} of {self._num_todo} done",
                f"{self._num_failed} failed",
            ]
            if self._rounds_done:
                parts += [f"{self._rounds_done / minutes:.3g} rounds a minute", f"{self._left()} left"]
            lines = [", ".join(parts) + (f"; {gpu}" if gpu else "")]
            if self._verbose:
                lines += [
                    f"  {planned.label}: round {min(done, planned.trial.rounds - 1)} of {planned.trial.rounds}"
                    for planned, done in self._running.values()
                ]
        return lines

    def _left(self) -> str:
        """The time that the rest takes at the pace so far."""
        if not self._rounds_done:
            return "unknown time"
        return duration((time.monotonic() - self._started) / self._rounds_done * self._rounds_left)

    def _sum_up_now_and_then(self) -> None:
        """Where nothing is redrawn: the summary as a line, rarely enough not to be a flood."""
        if self._block is not None or self._quiet or not self._rounds_left:
            return
        share = SUMMARY_SHARE * (self._rounds_done + self._rounds_left)
        if time.monotonic() - self._summed_up >= SUMMARY_EVERY and self._rounds_done - self._rounds_summed_up >= share:
            self._summed_up, self._rounds_summed_up = time.monotonic(), self._rounds_done
            for line in self.summary():
                self.tell(line)
