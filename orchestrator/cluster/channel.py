"""Messages from Ray's process to its supervisor, pickled, through a pair of sockets that only this user can reach."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from orchestrator.ledger.output import OutputFolder
from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial
from orchestrator.settings.grid import RunSettings

Compute = Callable[..., list[RoundRecord]]
"""Computes a trial, as `orchestrator.trial.compute.compute_trial` does."""
SECONDS_TO_STOP = 15.0
"""Seconds for Ray's process to end in order when asked to; then it is killed."""
LONGEST_REASON = 300
"""Longest reported part of an error, in characters; the rest is in the ledger or in Ray's own log."""


class Listener(Protocol):
    """Receiver of the reports of a running grid."""

    def tell(self, line: str) -> None:
        """Report a line for people."""
        ...

    def warn(self, line: str) -> None:
        """Report a line that matters."""
        ...

    def begin(self, todo: Sequence[PlannedTrial]) -> None:
        """Report that the first of these trials are about to start."""
        ...

    def start(self, planned: PlannedTrial) -> None:
        """Report that a trial starts, for the first time or again."""
        ...

    def advance(self, planned: PlannedTrial, round_number: int, accuracy: float) -> None:
        """Report that a trial finished a round."""
        ...

    def stumble(self, planned: PlannedTrial, reason: str) -> None:
        """Report that a trial was lost to a passing cause and is started again from its last round."""
        ...

    def end(self, planned: PlannedTrial, error: str | None) -> None:
        """Report that a trial ended; `error` is why it failed, or None."""
        ...


def shorten(text: str) -> str:
    """Shorten a text to one line of limited length."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."


def memory_use(error: BaseException | str | None) -> str | None:
    """Ray's own figures of a kill by its memory monitor; None for any other death."""
    found = re.search(r"([0-9.]+)GB used / ([0-9.]+)GB limit", str(error))
    return f"{found[1]} of {found[2]} GB were in use" if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that Ray's process is given."""

    todo: Sequence[PlannedTrial]
    output: OutputFolder
    run: RunSettings
    address: str
    folder: Path
    """Folder for Ray's files."""
    compute: Compute | None
    """Function used instead of `compute_trial`, if given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A call of a listener's method; a trial is given by its number in the job."""

    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """The cluster has at least one live node; sent every few seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The last message of a process: all trials ended (without an error), or an error that would only come again."""

    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The last message of a process that cannot go on, though a new one may."""

    reason: str


class Channel:
    """The child's end of the socket pair. Any thread may send."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: Any) -> None:
        """Send a message; a supervisor that is gone is noticed by the thread that waits for it, and by nobody else."""
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:
                return

    def stop_when_closed(self, sweep: Callable[[], None]) -> None:
        """Start to wait: when the supervisor closes its end, or dies, end this process as Ctrl-C would.

        If that takes too long, `sweep` and end at once.
        """
        threading.Thread(target=self._wait, args=(sweep,), name="supervisor", daemon=True).start()

    def _wait(self, sweep: Callable[[], None]) -> None:
        with suppress(EOFError, OSError):
            self._connection.recv_bytes()
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(SECONDS_TO_STOP)
        sweep()
        os._exit(1)


class Reporter:
    """A listener that sends each call through the channel."""

    def __init__(self, channel: Channel, todo: Sequence[PlannedTrial]) -> None:
        self._channel = channel
        self._numbers = {planned.fingerprint: number for number, planned in enumerate(todo)}

    def tell(self, line: str) -> None:
        """Report a line for people."""
        self._send("tell", line)

    def warn(self, line: str) -> None:
        """Report a line that matters."""
        self._send("warn", line)

    def begin(self, todo: Sequence[PlannedTrial]) -> None:
        """Report that the first of these trials are about to start."""
        self._send("begin")

    def start(self, planned: PlannedTrial) -> None:
        """Report that a trial starts, for the first time or again."""
        self._send("start", self._numbers[planned.fingerprint])

    def advance(self, planned: PlannedTrial, round_number: int, accuracy: float) -> None:
        """Report that a trial finished a round."""
        self._send("advance", self._numbers[planned.fingerprint], round_number, accuracy)

    def stumble(self, planned: PlannedTrial, reason: str) -> None:
        """Report that a trial was lost and is started again."""
        self._send("stumble", self._numbers[planned.fingerprint], reason)

    def end(self, planned: PlannedTrial, error: str | None) -> None:
        """Report that a trial ended."""
        self._send("end", self._numbers[planned.fingerprint], error)

    def _send(self, method: str, *arguments: Any) -> None:
        self._channel.send(Event(method=method, arguments=arguments))
