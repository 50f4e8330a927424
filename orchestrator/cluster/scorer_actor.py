"""The code that runs in the scoring actors.

The class is plain; the runner makes actors of it, and `scoring_client` is how trials talk to them. Importing this needs
no torch, which the driver does without.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from numpy.typing import NDArray

from orchestrator.cluster.node import enter_folder, fetch_missing
from orchestrator.plan import missing_features
from orchestrator.settings.trial import TrialConfig
from strategies.purity.contract import IndexArray, PurityRequest, PurityScores

if TYPE_CHECKING:
    from orchestrator.trial.purity_scorer import LocalPurityScorer

MAX_QUEUE = 8
"""Requests a scoring actor takes at a time, the one at work included; further callers must ask again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A scoring actor's reply to a request."""

    scores: PurityScores | None
    """None: features were asked for, or the actor's queue is full, and this one is to be sent again later."""
    queue: int
    """Requests that were ahead of this one."""
    features_ND: NDArray[np.float32] | None = None
    """Result of `ScoringActor.features`."""

    @property
    def is_given(self) -> bool:
        """Whether the request was answered."""
        return self.scores is not None or self.features_ND is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Load of a scoring actor."""

    queue: int
    """Requests it has taken and not answered."""
    progress: int
    """Grows with each answer and each step of long work; stands still in an actor that is stuck."""
    doing: str
    """Current work, for people."""
    life: str = ""
    """Tells one process of the actor from the one that takes its place."""
    num_missing: int | None = None
    """Images without features when the process began to get ready; None before that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerMetrics:
    """Counts of a scoring actor since its process started."""

    requests: int
    seconds: float
    """Seconds spent computing the answers, without the waiting in the queue."""
    queue: int
    longest_queue: int
    restarted: bool
    """Whether the process took the place of one that died, whose numbers are lost."""


class ScoringActor:
    """Holds CLIPN's features and answers purity requests, one at a time, in the order they came.

    Stateless behind the feature store: whatever it holds is opened at the first request and again after a restart.
    The methods are coroutines, so that it reports its load while its one thread computes.
    """

    def __init__(
        self,
        trials: Sequence[str],
        cpus: int,
        gpus: float,
        *,
        folder: str | None = None,
        fetch_data: bool = False,
        deterministic: bool = False,
        max_queue: int = MAX_QUEUE,
    ) -> None:
        if folder is not None:
            enter_folder(folder)
        self._trials = [TrialConfig.model_validate_json(trial) for trial in trials]
        self._cpus, self._gpus = cpus, gpus
        self._fetch_data, self._deterministic = fetch_data, deterministic
        self._max_queue = max_queue
        self._restarted = ray.is_initialized() and ray.get_runtime_context().was_current_actor_reconstructed
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scorer")
        self._scorer: LocalPurityScorer | None = None
        self._doing = "starting"
        self._life = uuid.uuid4().hex
        self._num_missing: int | None = None
        self._progress = 0
        self._queue = self._longest_queue = 0
        self._requests = 0
        self._seconds = 0.0

    async def load(self) -> Load:
        """Current load; answered at once."""
        return Load(
            queue=self._queue,
            progress=self._progress,
            doing=self._doing,
            life=self._life,
            num_missing=self._num_missing,
        )

    async def metrics(self) -> ScorerMetrics:
        """Counts so far; answered at once."""
        return ScorerMetrics(
            requests=self._requests,
            seconds=self._seconds,
            queue=self._queue,
            longest_queue=self._longest_queue,
            restarted=self._restarted,
        )

    async def prepare(self) -> None:
        """Open, or train and compute, everything that requests will need."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._ready_scorer)

    async def score(self, request: PurityRequest) -> Answer:
        """Answer a request, in its turn; without scores if the queue is full."""
        return await self._in_turn(lambda scorer: {"scores": scorer.score(request)})

    async def features(self, data_fingerprint: str, idx: IndexArray) -> Answer:
        """Unit features of some training images, in their turn; without them if the queue is full."""
        return await self._in_turn(
            lambda scorer: {"scores": None, "features_ND": scorer.features(data_fingerprint, idx)}
        )

    async def _in_turn(self, work: Callable[[LocalPurityScorer], dict[str, Any]]) -> Answer:
        ahead = self._queue
        if ahead >= self._max_queue:
            return Answer(scores=None, queue=ahead)
        self._queue += 1
        self._longest_queue = max(self._longest_queue, self._queue)
        try:
            given = await asyncio.get_running_loop().run_in_executor(self._thread, self._compute, work)
        finally:
            self._queue -= 1
        return Answer(queue=ahead, **given)

    def _compute(self, work: Callable[[LocalPurityScorer], dict[str, Any]]) -> dict[str, Any]:
        scorer = self._ready_scorer()
        started = time.perf_counter()
        try:
            return work(scorer)
        finally:
            self._seconds += time.perf_counter() - started
            self._requests += 1
            self._progress += 1

    def _ready_scorer(self) -> LocalPurityScorer:
        if self._scorer is None:  # only ever asked in the one thread
            from orchestrator.trial.compute import local_scorer

            if self._fetch_data:
                fetch_missing(self._trials, progress=self._tell)
            self._num_missing = missing_features(self._trials)
            self._scorer = local_scorer(
                self._trials,
                cpus=self._cpus,
                gpus=self._gpus,
                progress=self._tell,
                deterministic=self._deterministic,
            )
            assert self._scorer is not None, "a scoring actor was started for trials that ask none"
            self._doing = "answering requests"
        return self._scorer

    def _tell(self, line: str) -> None:
        self._doing = line
        self._progress += 1
