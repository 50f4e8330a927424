"""The ledger: the records of all trials of an output folder, on disk; the truth.

One JSON file a trajectory, named by fingerprint, replaced as a whole at each round, so that it always holds the rounds
that were finished and nothing else. One process writes; any may read. A writer that outlives its run for a moment does
no harm to the next one: each change is made under a lock, from what the file holds then.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.console import RunStopped
from data.files import file_lock, write_text_atomically
from orchestrator.ledger.records import RoundRecord

FORMAT = 1
"""Version of the files; an output folder of another version is refused."""


class LedgerUnwritable(RunStopped):
    """The ledger's disk takes no more records; what it holds is whole. The message says where and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryState:
    """What the ledger holds of one trial."""

    fingerprint: str
    trial: dict[str, Any]
    """The trial's settings, as they were when its first record came."""
    records: tuple[RoundRecord, ...] = ()
    error: str | None = None
    """Why the last attempt failed for good; None if it did not."""

    @property
    def is_finished(self) -> bool:
        """Whether it has as many rounds as its settings ask for."""
        rounds = self.trial.get("rounds")
        return isinstance(rounds, int) and len(self.records) >= rounds


class Ledger:
    """Reads and writes the state files of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def state(self, fingerprint: str) -> TrajectoryState | None:
        """The state of one trial, or None. Raises ValueError for a file that is no state file, with its path."""
        path = self._path(fingerprint)
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text())
            if content.pop("format") != FORMAT:
                raise ValueError("it was written by another version")
            content["records"] = tuple(RoundRecord(**record) for record in content["records"])
            return TrajectoryState(**content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} is no readable ledger file ({error}); keep what is whole of it with "
                f"python -m orchestrator.ledger {shlex.quote(str(self.folder.parent))} --repair"
            ) from None

    def version(self, fingerprint: str) -> int | None:
        """A number that changes whenever a trial's state does, without reading it; None without one."""
        try:
            stat = self._path(fingerprint).stat()
        except FileNotFoundError:
            return None
        return hash((stat.st_ino, stat.st_mtime_ns, stat.st_size))

    def states(self) -> list[TrajectoryState]:
        """The states of all trials, by fingerprint."""
        found = (self.state(path.stem) for path in sorted(self.folder.glob("*.json")))
        return [state for state in found if state is not None]

    def history(self, fingerprint: str) -> list[RoundRecord]:
        """The finished rounds of one trial, in order."""
        state = self.state(fingerprint)
        return list(state.records) if state else []

    def append(self, fingerprint: str, trial: dict[str, Any], record: RoundRecord) -> None:
        """Keep a record, durably. The same record again is accepted and changes nothing.

        Raises ValueError for a gap in the rounds, or for a round that is there with other numbers; LedgerUnwritable.
        """
        with self._changing():
            state = self.state(fingerprint) or TrajectoryState(fingerprint=fingerprint, trial=trial)
            known = len(state.records)
            if record.round < known:
                if state.records[record.round].numbers() != record.numbers():
                    raise ValueError(f"round {record.round} of {fingerprint} is in the ledger with other numbers")
                return
            if record.round > known:
                raise ValueError(f"round {record.round} of {fingerprint} came after only {known} rounds")
            self._write(fingerprint, state.trial, (*state.records, record), None)

    def replace(self, state: TrajectoryState) -> None:
        """Let a state take the place of what is there: for repairs. Raises LedgerUnwritable."""
        with self._changing():
            self._write(state.fingerprint, state.trial, state.records, state.error)

    def fail(self, fingerprint: str, trial: dict[str, Any], error: str) -> None:
        """Note why a trial failed for good; its records stay. Raises LedgerUnwritable."""
        with self._changing():
            self._write(fingerprint, trial, self.history(fingerprint), error)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Alone with the files. Raises LedgerUnwritable where the disk is full, read-only or gone."""
        try:
            with file_lock(self.folder.with_name(f".{self.folder.name}.lock")):
                yield
        except OSError as error:
            raise LedgerUnwritable(
                f"{self.folder} cannot be written ({error.strerror or error}): free space or mend the disk; every "
                "round recorded so far is kept, and the same command goes on from there"
            ) from error

    def _write(
        self, fingerprint: str, trial: dict[str, Any], records: Sequence[RoundRecord], error: str | None
    ) -> None:
        state = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "trial": trial,
            "error": error,
            "records": [asdict(record) for record in records],
        }
        write_text_atomically(self._path(fingerprint), json.dumps(state, allow_nan=False) + "\n")

    def _path(self, fingerprint: str) -> Path:
        return self.folder / f"{fingerprint}.json"
