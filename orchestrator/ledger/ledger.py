"""The ledger: the records of all trials of an output folder, on disk; the truth.

One JSON file per trajectory, named by fingerprint, replaced as a whole at each round, so that it always holds the
finished rounds and nothing else. One process writes; any may read. A writer that outlives its run for a moment does
no harm to the next one: each change is made under a lock, from what the file holds then.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from data.console import RunStopped
from data.files import NoLocks, content_hash, file_lock, write_text_atomically
from data.sealed import VERSION, Damaged, Newer, seal, unseal
from orchestrator.ledger.records import RoundRecord

FORMAT = 1
"""Version of the file format; an output folder of another version is refused."""


CHECKSUM = "checksum"
"""Field of a record in the file, in addition to those of `RoundRecord`; files older than seals lack it."""


class LedgerUnwritable(RunStopped):
    """The ledger's disk takes no more records; what it holds is whole. The message names the place and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryState:
    """State of one trial in the ledger."""

    fingerprint: str
    trial: dict[str, Any]
    """The trial's settings, as they were when its first record came."""
    records: tuple[RoundRecord, ...] = ()
    error: str | None = None
    """Reason why the last attempt failed for good; None if it did not."""

    @property
    def is_finished(self) -> bool:
        """Whether it has as many rounds as its settings ask for."""
        rounds = self.trial.get("rounds")
        return isinstance(rounds, int) and len(self.records) >= rounds


class DamagedFile(ValueError):
    """A file of the ledger is not what was written."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Reads and writes the state files of one folder."""

    folder: Path
    mend: Callable[[Ledger, Path], None] | None = field(default=None, kw_only=True)
    """What a run does with a damaged file (`orchestrator.ledger.repair.mending`); readers do nothing."""

    def state(self, fingerprint: str) -> TrajectoryState | None:
        """The state of one trial, or None if it has none.

        Every checksum is compared. Raises DamagedFile, with the path, for a file that is damaged, is no state file, or
        is another trial's, unless it is mended; ValueError if another version wrote it.
        """
        try:
            return self._state(fingerprint)
        except DamagedFile:
            if self.mend is None:
                raise
        with self.locked():
            return self._mended(fingerprint)

    def _mended(self, fingerprint: str) -> TrajectoryState | None:
        """The state, after the file is mended if it is damaged and this ledger mends; the caller holds the lock."""
        try:
            return self._state(fingerprint)  # another process may have been faster
        except DamagedFile:
            if self.mend is None:
                raise
        self.mend(self, self._path(fingerprint))
        return self._state(fingerprint)

    def _state(self, fingerprint: str) -> TrajectoryState | None:
        path = self._path(fingerprint)
        try:
            return _read(path.read_bytes(), fingerprint)
        except FileNotFoundError:
            return None
        except Newer as error:
            raise ValueError(
                f"{path} cannot be read as a ledger file ({error}); use that version, or choose another --output-dir"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedFile(
                f"{path} cannot be read as a ledger file ({error}); keep its whole rounds with "
                f"python -m orchestrator.ledger {shlex.quote(str(self.folder.parent))} --repair"
            ) from None

    def version(self, fingerprint: str) -> int | None:
        """Number that changes whenever a trial's state does, without reading it; None without a state."""
        try:
            stat = self._path(fingerprint).stat()
        except FileNotFoundError:
            return None
        # The inode too: a replaced file may keep size and time stamp.
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

        Raises ValueError for a gap in the rounds, or for a round that is kept with other numbers, and LedgerUnwritable.
        """
        with self.locked():
            state = self._mended(fingerprint) or TrajectoryState(fingerprint=fingerprint, trial=trial)
            known = len(state.records)
            if record.round < known:
                # A resent record is normal after a lost answer; other numbers mean that two runs do not agree.
                if state.records[record.round].numbers() != record.numbers():
                    raise ValueError(f"round {record.round} of {fingerprint} is in the ledger with other numbers")
                return
            if record.round > known:
                raise ValueError(f"round {record.round} of {fingerprint} came after only {known} rounds")
            self._write(fingerprint, state.trial, (*state.records, record), None)

    def put(self, state: TrajectoryState) -> None:
        """Replace the state of a trial, for repairs; the caller keeps other writers away."""
        self._write(state.fingerprint, state.trial, state.records, state.error)

    def fail(self, fingerprint: str, trial: dict[str, Any], error: str) -> None:
        """Note why a trial failed for good; its records stay. Raises LedgerUnwritable."""
        with self.locked():
            state = self._mended(fingerprint)
            self._write(fingerprint, trial, state.records if state else (), error)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the files against other writers. Raises LedgerUnwritable for a disk that is full, gone or lockless."""
        try:
            # A writer that outlives its run for a moment must not take back a record of the next one.
            with file_lock(self.folder.with_name(f".{self.folder.name}.lock")):
                yield
        except NoLocks as error:
            # Not the trial's error, as it once passed for: each of them was tried four times, for minutes.
            raise LedgerUnwritable(f"{error}; every round recorded so far is kept") from error
        except OSError as error:
            raise LedgerUnwritable(
                f"{self.folder} cannot be written ({error.strerror or error}): free space or mend the disk; every "
                "round recorded so far is kept, and the same command goes on from there"
            ) from error

    def _write(
        self, fingerprint: str, trial: dict[str, Any], records: Sequence[RoundRecord], error: str | None
    ) -> None:
        # Sealed apart from the records: of a torn file the header and the whole rounds can still be trusted.
        header = seal({"format": FORMAT, "fingerprint": fingerprint, "trial": trial, "error": error}, fingerprint)
        content = {**header, "records": [_with_checksum(record, fingerprint) for record in records]}
        write_text_atomically(self._path(fingerprint), json.dumps(content, allow_nan=False) + "\n")

    def _path(self, fingerprint: str) -> Path:
        return self.folder / f"{fingerprint}.json"


def _with_checksum(record: RoundRecord, fingerprint: str) -> dict[str, Any]:
    # Not asdict, which copies every queried index: a fifth of the time of writing.
    values = {name: getattr(record, name) for name in RoundRecord.__slots__}
    return {**values, CHECKSUM: record_checksum(values, fingerprint)}


def record_checksum(values: Mapping[str, Any], fingerprint: str) -> str:
    """Value of the field CHECKSUM of a record; the trial enters it, so that no record passes for another trial's."""
    return content_hash({"trial": fingerprint, "record": values})


def check_version(content: Mapping[str, Any], fingerprint: str) -> NoReturn:
    """Raise the error for a file of another format: Newer, or Damaged if one digit of ours was changed to that."""
    found = content.get("seal")
    if isinstance(found, dict) and found.get("version") == VERSION:
        unseal({name: content[name] for name in content if name != "records"}, fingerprint)
    raise Newer(
        f"it was written by another version of this software (format {content.get('format')!r}, ours is {FORMAT})"
    )


def _read(raw: bytes, fingerprint: str) -> TrajectoryState:
    """Read the state in a file. Raises ValueError, KeyError, TypeError or AttributeError for any other content."""
    content = json.loads(raw)
    if content["format"] != FORMAT:
        check_version(content, fingerprint)
    if content["fingerprint"] != fingerprint:
        raise ValueError("it belongs to another trial than the one in its name")
    records = content.pop("records")
    header, is_sealed = unseal(content, fingerprint)
    check_fields(header.keys() - {"format", *TrajectoryState.__slots__}, is_sealed=is_sealed)
    trial = header["trial"]
    read: list[RoundRecord] = []
    for values in records:
        read.append(_read_record(values, fingerprint, trial, read, is_sealed=is_sealed))
    return TrajectoryState(fingerprint=fingerprint, trial=trial, error=header["error"], records=tuple(read))


def _read_record(
    values: dict[str, Any],
    fingerprint: str,
    trial: Mapping[str, Any],
    before: Sequence[RoundRecord],
    *,
    is_sealed: bool,
) -> RoundRecord:
    """Read a record of a file, after those `before`; in a file with a seal each has a checksum."""
    checksum = values.pop(CHECKSUM, None)
    if (is_sealed or checksum is not None) and checksum != record_checksum(values, fingerprint):
        raise Damaged(f"the checksum of round {values.get('round')} is not that of its content")
    check_fields(values.keys() - RoundRecord.__slots__, is_sealed=checksum is not None)
    if checksum is not None:
        return RoundRecord(**values)
    from orchestrator.ledger.plausible import Implausible, check_plausible, typed  # pydantic, which the writer lacks

    try:
        record = typed(values)
        check_plausible(record, before, trial, has_checksum=False)
    except Implausible as error:
        raise Damaged(f"record {len(before)} {error}") from None
    return record


def check_fields(unknown: Set[str], *, is_sealed: bool) -> None:
    """Raise Newer for unknown fields that a checksum covers, Damaged for others."""
    if unknown and is_sealed:
        raise Newer(f"a newer version of this software wrote it: it has the fields {', '.join(sorted(unknown))}")
    if unknown:
        raise Damaged("it has other fields than a ledger entry")
