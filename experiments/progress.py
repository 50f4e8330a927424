"""What a grid tells the person who waits for it: the plan, a line a finished trial, the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from data.progress import duration
from orchestrator.ledger import Ledger
from orchestrator.metrics import summarise
from orchestrator.plan import PlannedTrial


class Progress:
    """Lines on the standard output; warnings on the standard error stream."""

    def __init__(self, planned: Sequence[PlannedTrial], *, ledger: Ledger, quiet: bool, verbose: bool) -> None:
        self._planned = planned
        self._ledger = ledger
        self._quiet = quiet
        self._verbose = verbose
        self._started = time.monotonic()
        self._num_todo = 0
        self._num_ended = 0
        self._rounds_done = 0
        self._rounds_left = 0

    def tell(self, line: str) -> None:
        """A line for the curious."""
        if not self._quiet:
            print(line, flush=True)

    def warn(self, line: str) -> None:
        """A line that matters."""
        print(line, file=sys.stderr, flush=True)

    def plan(self, title: str, output: Path) -> None:
        """What there is to do."""
        finished = sum(p.is_finished for p in self._planned)
        rounds = sum(p.trial.rounds - len(p.records) for p in self._planned)
        self.tell(
            f"{title}: {len(self._planned)} trials, {finished} finished, {len(self._planned) - finished} to run "
            f"({rounds} rounds) -> {output}"
        )

    def begin(self, todo: Sequence[PlannedTrial]) -> None:
        """The trials begin."""
        self._started = time.monotonic()
        self._num_todo = len(todo)
        self._rounds_left = sum(p.trial.rounds - len(p.records) for p in todo)

    def advance(self, planned: PlannedTrial, round_number: int, accuracy: float) -> None:
        """A trial finished a round."""
        self._rounds_done += 1
        self._rounds_left -= 1
        if self._verbose:
            self.tell(f"  {planned.trial.label}: round {round_number}, accuracy {accuracy:.3f}")

    def stumble(self, planned: PlannedTrial, reason: str) -> None:
        """A trial was lost and is started again."""
        if self._verbose:
            self.tell(f"  {planned.trial.label}: started again: {reason}")

    def end(self, planned: PlannedTrial, error: str | None) -> None:
        """One trial ended."""
        self._num_ended += 1
        count = f"[{self._num_ended}/{self._num_todo}]"
        if error is not None:
            self.warn(f"{count} {planned.trial.label}: FAILED: {error}")
            return
        records = self._ledger.history(planned.fingerprint)[: planned.trial.rounds]
        summary = summarise(records)
        precision = "" if summary.mean_precision is None else f"  precision {summary.mean_precision:.3f}"
        left = (time.monotonic() - self._started) / max(1, self._rounds_done) * self._rounds_left
        seconds = sum(sum(record.seconds.values()) for record in records)
        self.tell(
            f"{count} {planned.trial.label}: aubc {summary.aubc:.3f}  last {summary.last_accuracy:.3f}{precision}"
            f"  ({duration(seconds)}; {duration(left)} left)"
        )
