"""What a grid tells the person who waits for it: the plan, a line a finished trial, the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from data.progress import duration
from orchestrator.grid import RunSettings
from orchestrator.ledger import Ledger
from orchestrator.metrics import summarise
from orchestrator.plan import PlannedTrial, distinct, feature_lines


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
        trials = distinct(self._planned)
        finished = sum(p.is_finished for p in trials)
        rounds = sum(p.trial.rounds - len(p.records) for p in trials)
        self.tell(
            f"{title}: {len(trials)} trials, {finished} finished, {len(trials) - finished} to run "
            f"({rounds} rounds) -> {output}"
        )

    def bill(self, run: RunSettings) -> None:
        """The grid in detail: each condition and strategy with its seeds, and what a trial takes."""
        cells: dict[tuple[str, ...], list[PlannedTrial]] = {}
        for p in self._planned:
            trial = p.trial
            key = (trial.dataset, f"{trial.mismatch_ratio:g}", f"{trial.ood_ratio:g}", p.row)
            cells.setdefault(key, []).append(p)
        header = ("dataset", "mismatch", "ood", "strategy", "seeds done", "seeds left")
        rows = [header, *((*key, _seeds(cell, done=True), _seeds(cell, done=False)) for key, cell in cells.items())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        lengths = " or ".join(sorted({p.trial.recipe.length for p in self._planned}))
        rounds = " or ".join(str(number) for number in sorted({p.trial.rounds for p in self._planned}))
        print(
            f"each trial: {rounds} rounds of {lengths}, {run.cpus_per_trial} CPU(s), "
            f"{run.gpus_per_trial:g} GPU; {run.scorers} scoring actor(s) with {run.gpus_per_scorer:g} GPU"
        )
        for line in feature_lines(self._planned):
            print(line)
        trials = distinct(self._planned)
        known = [sum(r.seconds.values()) for p in trials for r in p.records if sum(r.seconds.values())]
        left = sum(p.trial.rounds - len(p.records) for p in trials)
        if known and left:
            mean = sum(known) / len(known)
            print(f"{left} rounds left at {mean:.2f} s measured so far: {duration(left * mean)} of trial time")

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
            self.tell(f"  {planned.label}: round {round_number}, accuracy {accuracy:.3f}")

    def stumble(self, planned: PlannedTrial, reason: str) -> None:
        """A trial was lost and is started again."""
        if self._verbose:
            self.tell(f"  {planned.trial.label}: started again: {reason}")

    def end(self, planned: PlannedTrial, error: str | None) -> None:
        """One trial ended."""
        self._num_ended += 1
        count = f"[{self._num_ended}/{self._num_todo}]"
        if error is not None:
            self.warn(f"{count} {planned.label}: FAILED: {error}")
            return
        records = self._ledger.history(planned.fingerprint)[: planned.trial.rounds]
        summary = summarise(records)
        precision = "" if summary.mean_precision is None else f"  precision {summary.mean_precision:.3f}"
        left = (time.monotonic() - self._started) / max(1, self._rounds_done) * self._rounds_left
        seconds = sum(sum(record.seconds.values()) for record in records)
        self.tell(
            f"{count} {planned.label}: aubc {summary.aubc:.3f}  last {summary.last_accuracy:.3f}{precision}"
            f"  ({duration(seconds)}; {duration(left)} left)"
        )


def _seeds(cell: Sequence[PlannedTrial], *, done: bool) -> str:
    seeds = [str(p.trial.seed) for p in cell if p.is_finished == done]
    return ",".join(seeds) or "-"
