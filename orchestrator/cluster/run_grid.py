"""Run the unfinished trials of a grid, whatever fails: the supervisor of Ray's part, without Ray itself.

Ray's part runs in a process and a session of its own and reports through a socket. Whatever ends it (its raylet, its
GCS, a kill, an error out of Tune), what is left of it is removed and it starts again from the ledger. What has to
survive that is here: the terminal, the mirror to MLflow, the report.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from data.console import RunStopped, duration
from data.files import write_text_atomically
from orchestrator.cluster.channel import (
    SECONDS_TO_STOP,
    Alive,
    Compute,
    Ended,
    Event,
    Job,
    Listener,
    Lost,
    shorten,
)
from orchestrator.cluster.leftovers import end_session, private_folder
from orchestrator.cluster.session import running_cluster
from orchestrator.ledger.output import OutputFolder
from orchestrator.ledger.repair import mending
from orchestrator.plan import PlannedTrial, look_up
from orchestrator.settings.grid import RunSettings

SILENCE = 60.0
"""Seconds without a live node and without progress after which Ray's part counts as lost."""
SILENCE_AT_START = 300.0
"""Seconds of silence allowed until Ray runs: a loaded machine needs a minute, and a token is asked for first."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before Ray's part starts again; doubled each time without a finished round in between."""
PART = ["-m", "orchestrator.cluster.ray_part"]
"""Arguments of Python that start Ray's part."""
LOG = "ray.log"
"""File in the output folder with the end of the output of Ray's part, once it was given up."""
LOG_BYTES = 50_000


class RayGivenUp(RunStopped):
    """Ray ended again and again without a finished round in between. The message states the reason and what to do."""


def run_grid(
    todo: Sequence[PlannedTrial],
    output: OutputFolder,
    run: RunSettings,
    *,
    address: str,
    listener: Listener,
    compute: Compute | None = None,
) -> None:
    """Run the trials to their ends, and report to the listener; `compute` in place of `compute_trial` for each.

    `compute` is a function of a module, which Ray's processes import. Returns when every trial has ended.
    KeyboardInterrupt passes through after Ray is shut down; what was running is dropped, and every finished round is in
    the ledger. Raises ValueError for an address where no cluster answers and for resources that the cluster does not
    have, LedgerUnwritable if the disk of the ledger is full, and RayGivenUp.
    """
    # Once: were a running cluster lost, `auto` would mean one of our own on this machine the next time.
    cluster = running_cluster(address, tell=listener.warn) or "local"
    supervisor = _Supervisor(todo, output, listener)
    num_lost = 0
    while True:
        rounds = supervisor.num_rounds
        with private_folder() as folder:
            job = Job(todo=supervisor.left, output=output, run=run, address=cluster, folder=folder, compute=compute)
            reason = supervisor.attempt(job)
            if reason is None:
                return
            supervisor.catch_up()
            if not supervisor.left:
                return
            num_lost = 1 if supervisor.num_rounds > rounds else num_lost + 1
            if num_lost > run.max_failures:
                raise RayGivenUp(
                    f"Ray ended {num_lost} time(s) without a finished round in between; the last: {reason}. Every "
                    f"finished round is saved, and the same command goes on from there{_kept_log(folder, output)}"
                )
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (num_lost - 1))
        time.sleep(pause)
        listener.warn(
            f"Ray ended ({reason}); every finished round is saved, and it starts again from there "
            f"(try {num_lost} of {run.max_failures} without a finished round in between)"
        )


class _Supervisor:
    """Follows the trials of a grid over all attempts to run them."""

    def __init__(self, todo: Sequence[PlannedTrial], output: OutputFolder, listener: Listener) -> None:
        self._todo = todo
        self._output = output
        self._listener = listener
        self._has_begun = False
        self._rounds = {p.fingerprint: len(p.records) for p in todo}
        """Finished rounds of each trial that the listener knows of."""
        self._ended: set[str] = set()

    @property
    def num_rounds(self) -> int:
        """Finished rounds of all trials, as far as is known."""
        return sum(self._rounds.values())

    @property
    def left(self) -> list[PlannedTrial]:
        """The trials that have not ended."""
        return [p for p in self._todo if p.fingerprint not in self._ended]

    def attempt(self, job: Job) -> str | None:
        """Run the job in a separate process; None when all trials have ended, else why the process was lost.

        Raises errors that would only happen again.
        """
        had_begun = self._has_begun
        with _process(job) as (process, connection):
            last = self._follow(job, connection)
            if last is None:
                return _ending(process)
        if isinstance(last, Lost):
            return last.reason
        if isinstance(last.error, ValueError) and had_begun:
            return shorten(str(last.error))  # it was right before: the cluster has changed, or went away
        if last.error is not None:
            raise last.error
        return None

    def catch_up(self) -> None:
        """Report to the listener what the ledger has and a process that died did not report."""
        ledger = mending(self._output.ledger, self._listener.warn)
        for p in self.left:
            now = look_up(ledger, p.trial, p.fingerprint, p.data_fingerprint, arm=p.arm)
            for record in now.records[self._rounds[p.fingerprint] :]:
                self._advance(p, record.round, record.accuracy)
            if now.is_finished:
                self._end(p, None)

    def _follow(self, job: Job, connection: Connection) -> Ended | Lost | None:
        """The process's last message, after passing on all others; None if it ended without one."""
        heard, patience = time.monotonic(), SILENCE_AT_START
        while True:
            if not connection.poll(1.0):
                silent = time.monotonic() - heard
                if silent > patience:
                    return Lost(reason=f"no live node and no progress for {duration(silent)}")
                continue
            try:
                message = connection.recv()
            except (EOFError, OSError):
                return None
            heard = time.monotonic()
            if isinstance(message, (Ended, Lost)):
                return message
            if isinstance(message, Alive):
                patience = SILENCE
            else:
                self._pass_on(message, job)

    def _pass_on(self, event: Event, job: Job) -> None:
        method, arguments = event.method, event.arguments
        if method in ("tell", "warn"):
            getattr(self._listener, method)(*arguments)
        elif method == "begin":
            if not self._has_begun:
                self._has_begun = True
                self._listener.begin(job.todo)
        else:
            planned = job.todo[arguments[0]]
            handlers: dict[str, Any] = {
                "start": self._listener.start,
                "stumble": self._listener.stumble,
                "advance": self._advance,
                "end": self._end,
            }
            handlers[method](planned, *arguments[1:])

    def _advance(self, planned: PlannedTrial, round_number: int, accuracy: float) -> None:
        self._rounds[planned.fingerprint] = max(self._rounds[planned.fingerprint], round_number + 1)
        self._listener.advance(planned, round_number, accuracy)

    def _end(self, planned: PlannedTrial, error: str | None) -> None:
        self._ended.add(planned.fingerprint)
        self._listener.end(planned, error)


@contextmanager
def _process(job: Job) -> Iterator[tuple[subprocess.Popen[bytes], Connection]]:
    """Ray's part as a process in a session of its own, which is gone afterwards with all that it started."""
    ours, theirs = Pipe()
    with (job.folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *PART, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            pass_fds=[theirs.fileno()],
            # A session for all that Ray starts, workers included, so that it can be killed as a whole.
            start_new_session=True,
        )
    theirs.close()
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # it ended at once, which is reported below
            ours.send(job)
        yield process, ours
    finally:
        ours.close()  # asks the process to end
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_STOP)
        end_session(process.pid)
        process.kill()
        process.wait()


def _ending(process: subprocess.Popen[bytes]) -> str:
    """Describe how a process without a last message ended."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
    code = process.poll()
    if code is None:
        return "its process fell silent"
    return f"its process was ended by signal {-code}" if code < 0 else f"its process ended with exit code {code}"


def _kept_log(folder: Path, output: OutputFolder) -> str:
    """Keep the end of the output of Ray's part; return words that name its file."""
    end = (folder / LOG).read_bytes()[-LOG_BYTES:].decode(errors="replace")
    path = output.path / LOG
    write_text_atomically(path, end)
    return f"; what Ray said is in {path}"
