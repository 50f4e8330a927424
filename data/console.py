"""What every command prints: lines of progress, durations in words, errors for unknown names."""

from __future__ import annotations

import difflib
import sys
import time
from collections.abc import Callable, Iterable

Progress = Callable[[str], None]
"""Takes one line of text about work in progress."""


def to_stderr(line: str) -> None:
    """Print a line of progress on the standard error stream."""
    print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as people say them: 8 s, 2 min 5 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class StepReporter:
    """Says every few seconds how much is done and how long is left; silent for short work."""

    def __init__(self, what: str, total: int, progress: Progress, *, every_seconds: float = 5.0) -> None:
        """`what` names the work, `total` its size in steps; lines go to `progress`."""
        self._what, self._total, self._progress, self._every = what, total, progress, every_seconds
        self._start = self._last = time.monotonic()

    def done(self, num_done: int) -> None:
        """Tell that `num_done` steps are finished in all."""
        now = time.monotonic()
        if now - self._last < self._every or num_done == 0:
            return
        self._last = now
        left = (now - self._start) / num_done * (self._total - num_done)
        self._progress(f"{self._what}: {num_done:,} of {self._total:,}, about {duration(left)} left")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """The error to raise for a name that is not in `known`: it lists the known ones and suggests the nearest."""
    known = list(known)
    near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=1)
    nearest = next((k for k in known if near and k.lower() == near[0]), None)
    hint = f" (did you mean '{nearest}'?)" if nearest else ""
    return ValueError(f"unknown {kind} '{name}'{hint}; known: {', '.join(known)}")


class RunStopped(Exception):
    """The run cannot go on; what it recorded so far is kept. The message says why and what to do."""
