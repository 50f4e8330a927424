"""What runs in Ray actors, and how trials talk to them. The classes are plain; the runner makes actors of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from orchestrator.config import TrialConfig
from orchestrator.ledger import Ledger
from orchestrator.local import local_scorer
from orchestrator.records import RoundRecord
from orchestrator.scoring import LocalPurityScorer
from strategies.scorer import PurityRequest, PurityScores

REQUEST_TIMEOUT = 600.0
"""Seconds a trial waits for one answer of a scoring actor before it asks the next one."""
ATTEMPTS = 10
"""Requests a trial sends before it gives up and fails."""


class LedgerWriter:
    """The one writer of a grid's ledger; lives on the driver's machine, so that trials need no shared file system."""

    def __init__(self, folder: str) -> None:
        self._ledger = Ledger(Path(folder))

    def history(self, fingerprint: str) -> list[RoundRecord]:
        """The finished rounds of a trial."""
        return self._ledger.history(fingerprint)

    def append(self, fingerprint: str, trial: dict[str, Any], record: RoundRecord) -> None:
        """Keep a record, durably; harmless when repeated."""
        self._ledger.append(fingerprint, trial, record)

    def fail(self, fingerprint: str, trial: dict[str, Any], error: str) -> None:
        """Note that a trial failed for good."""
        self._ledger.fail(fingerprint, trial, error)


class ScoringActor:
    """Holds CLIPN's features and answers purity requests.

    Stateless behind the feature store: whatever it holds is opened at the first request and again after a restart.
    """

    def __init__(self, trials: Sequence[str], cpus: int, gpus: float) -> None:
        self._trials = [TrialConfig.model_validate_json(trial) for trial in trials]
        self._cpus, self._gpus = cpus, gpus
        self._scorer: LocalPurityScorer | None = None
        self._opening = threading.Lock()
        self._doing = "starting"

    def doing(self) -> str:
        """What the actor is busy with, for people; answered while `prepare` works."""
        return self._doing

    def prepare(self) -> None:
        """Open, or train and compute, everything that requests will need."""
        self._ready_scorer()

    def score(self, request: PurityRequest) -> PurityScores:
        """The answer to one request."""
        return self._ready_scorer().score(request)

    def _ready_scorer(self) -> LocalPurityScorer:
        with self._opening:  # `prepare` and a first request may come at the same time
            if self._scorer is None:
                self._scorer = local_scorer(self._trials, cpus=self._cpus, gpus=self._gpus, progress=self._tell)
            assert self._scorer is not None, "a scoring actor was started for trials that use no purity"
            return self._scorer

    def _tell(self, line: str) -> None:
        self._doing = line


class RemotePurityScorer:
    """A PurityScorer that asks scoring actors; one that is dead, restarting or slow is passed over for the next."""

    def __init__(self, actors: Sequence[Any], *, first: int) -> None:
        self._actors = actors
        self._first = first

    def score(self, request: PurityRequest) -> PurityScores:
        """The answer of the first actor that gives one. Raises the last actor's error after `ATTEMPTS` requests."""

        def ask(attempt: int) -> PurityScores:
            actor = self._actors[(self._first + attempt) % len(self._actors)]
            answer: PurityScores = ray.get(actor.score.remote(request), timeout=REQUEST_TIMEOUT)
            return answer

        try:
            return with_retries(ask)
        except RayTaskError as error:  # the scorer's own error, wrapped with a remote traceback
            raise error.cause from None


def with_retries(ask: Callable[[int], PurityScores]) -> PurityScores:
    """`ask(0)`, or after an actor's death or a time-out `ask(1)` and so on, with pauses that grow to 10 seconds."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return ask(attempt)
        except (RayActorError, GetTimeoutError):
            time.sleep(min(10.0, 0.5 * 2**attempt))
    return ask(ATTEMPTS - 1)
