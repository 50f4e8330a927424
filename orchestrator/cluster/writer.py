"""The ledger's one writer, as a Ray actor: a module of its own, so that its process needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.records import RoundRecord
from orchestrator.ledger.repair import mending


class LedgerMended(Exception):
    """The trial's file was found damaged and set aside: the trial starts again from its whole rounds. Names the file.

    No ValueError: a trial with one is never retried.
    """


class LedgerWriter:
    """The one writer of a grid's ledger; lives on the driver's machine, so that trials need no shared file system."""

    def __init__(self, folder: str) -> None:
        self._damage: list[str] = []
        """Lines about files that were set aside and that no trial was told of yet."""
        self._ledger = mending(Ledger(Path(folder)), self._damage.append)
        self._pauses: dict[str, float] = {}

    def ping(self) -> None:
        """Answer at once, to show that the writer lives."""

    def history(self, fingerprint: str) -> list[RoundRecord]:
        """The finished rounds of a trial. Raises LedgerMended."""
        records = self._ledger.history(fingerprint)
        self._tell_damage()
        return records

    def append(self, fingerprint: str, trial: dict[str, Any], record: RoundRecord) -> None:
        """Keep a record, durably; harmless when repeated. Raises LedgerMended."""
        try:
            self._ledger.append(fingerprint, trial, record)
        except ValueError:
            self._tell_damage()  # else the gap that the lost rounds leave would count as the trial's own failure
            raise
        self._tell_damage()

    def fail(self, fingerprint: str, trial: dict[str, Any], error: str) -> None:
        """Note that a trial failed for good."""
        self._ledger.fail(fingerprint, trial, error)

    def _tell_damage(self) -> None:
        if self._damage:
            lines, self._damage[:] = "; ".join(self._damage), []
            raise LedgerMended(lines)

    def hold_back(self, fingerprint: str, seconds: float) -> None:
        """Let a trial wait before it starts again."""
        self._pauses[fingerprint] = seconds

    def pause(self, fingerprint: str) -> float:
        """Seconds that a trial is to wait before it begins; 0 for most, and when asked again."""
        return self._pauses.pop(fingerprint, 0.0)
