"""The trials' side of the scoring service: the least busy actor is asked, and another if it dies or falls silent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError, RayTaskError

from orchestrator.cluster.scorer_actor import Answer, Load
from strategies.purity.contract import IndexArray, PurityRequest, PurityScores, RequestFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a trial waits for the scoring service before it gives up. Seconds, and numbers of requests."""

    attempts: int = 10
    """Requests that may be lost to dead actors."""
    silent_attempts: int = 2
    """Requests that may be lost to actors that live but get nowhere."""
    first_pause: float = 0.5
    """Seconds of pause after the first lost request; doubled after each further one."""
    longest_pause: float = 30.0
    """Longest pause in seconds; with 10 attempts, an actor has two minutes to come back."""
    full_pause: float = 0.2
    """Seconds before an actor with a full queue is asked again."""
    pulse: float = 10.0
    """Seconds between two checks of whether an actor that owes an answer still makes progress."""
    load_timeout: float = 2.0
    """Seconds for an actor to report its load."""
    silence: float = 900.0
    """Seconds without progress until an actor counts as silent; encoding a shard may take minutes on a CPU."""


class ScorerUnavailable(Exception):
    """No scoring actor answered, for as long as a trial can wait. The message states what to do."""


class ScorerSilent(Exception):
    """A scoring actor lives, and neither answers nor makes progress."""


class RemotePurityScorer:
    """A PurityScorer that asks scoring actors.

    It knows nothing of other trials' requests, so it asks the actors how busy they are; between equals the trial's
    number decides, which spreads trials that ask at the same moment. An actor with a full queue makes it wait.
    """

    def __init__(self, actors: Sequence[Any], *, first: int, patience: Patience | None = None) -> None:
        self._actors = actors
        self._first = first
        self._patience = patience or Patience()
        self._lost = [0] * len(actors)
        """Requests lost at each actor since its last answer."""
        self.last_request: RequestFigures | None = None
        """Figures of the last request that was answered."""

    def score(self, request: PurityRequest) -> PurityScores:
        """The answer of the first actor that gives one. Requests are pure, so a lost one is sent again.

        Raises the scorer's own error unchanged, and ScorerUnavailable if `Patience` runs out.
        """
        scores = self._answer("score", request).scores
        assert scores is not None
        assert self.last_request is not None
        self.last_request = replace(self.last_request, tied_scales=scores.num_tied_scales)
        return scores

    def features(self, data_fingerprint: str, idx: IndexArray) -> NDArray[np.float32]:
        """Unit features (n, D) of some training images, in the order of `idx`. Raises as `score`."""
        features_ND = self._answer("features", data_fingerprint, idx).features_ND
        assert features_ND is not None
        return features_ND

    def _answer(self, method: str, *arguments: Any) -> Answer:
        """The answer of the first actor that gives one to a call of its `method`. Raises as `score`."""
        patience = self._patience
        started = time.monotonic()
        num_lost = num_silent = 0
        while True:
            number = self._least_busy()
            try:
                answer = self._ask(self._actors[number], method, arguments)
                self._lost[number] = 0
                seconds = time.monotonic() - started
                self.last_request = RequestFigures(seconds=seconds, queue=answer.queue, lost=num_lost)
                return answer
            except RayTaskError as error:  # the scorer's own error, wrapped with a remote traceback
                raise error.cause from None
            except (RayError, ScorerSilent) as error:
                num_lost += 1
                num_silent += isinstance(error, ScorerSilent)
                self._lost[number] += 1
                if num_lost >= patience.attempts or num_silent >= patience.silent_attempts:
                    raise _unavailable(num_lost, time.monotonic() - started, len(self._actors), error) from None
            time.sleep(min(patience.longest_pause, patience.first_pause * 2 ** (num_lost - 1)))

    def _least_busy(self) -> int:
        """The number of the actor to ask: with fewest requests lost lately, then with fewest to answer.

        Those that do not say how busy they are come last.
        """
        count = len(self._actors)
        replies = [actor.load.remote() for actor in self._actors]
        answered, _ = ray.wait(replies, num_returns=count, timeout=self._patience.load_timeout)
        queues: dict[int, int] = {}
        for reply in answered:
            try:
                queues[replies.index(reply)] = ray.get(reply).queue
            except RayError:
                continue  # dead or restarting: it has no place in `queues`
        return min(
            range(count),
            key=lambda number: (
                number not in queues,
                self._lost[number],
                queues.get(number, 0),
                (number - self._first) % count,
            ),
        )

    def _ask(self, actor: Any, method: str, arguments: tuple[Any, ...]) -> Answer:
        """Answer to the call, after waiting for a place in the actor's queue and then for its answer.

        Raises RayTaskError for the scorer's error, another RayError if the actor dies, and ScorerSilent.
        """
        watch = _Watch(actor, self._patience)
        while True:
            reply = getattr(actor, method).remote(*arguments)
            while not ray.wait([reply], timeout=self._patience.pulse)[0]:
                watch.look()
            answer: Answer = ray.get(reply)
            if answer.is_given:
                return answer
            watch.look()
            time.sleep(self._patience.full_pause)


class _Watch:
    """Follows whether an actor that is waited for makes progress."""

    def __init__(self, actor: Any, patience: Patience) -> None:
        self._actor = actor
        self._patience = patience
        self._progress = -1
        self._doing = "not saying what it does"
        self._since = time.monotonic()

    def look(self) -> None:
        """Raise ScorerSilent once there was no progress for `Patience.silence` seconds, RayError for a dead actor."""
        reply = self._actor.load.remote()
        if ray.wait([reply], timeout=self._patience.load_timeout)[0]:
            load: Load = ray.get(reply)
            self._doing = load.doing
            if load.progress != self._progress:
                self._progress = load.progress
                self._since = time.monotonic()
        silent = time.monotonic() - self._since
        if silent > self._patience.silence:
            raise ScorerSilent(f"no progress for {silent:.0f} s, while {self._doing}")


def _unavailable(num_lost: int, seconds: float, num_actors: int, error: Exception) -> ScorerUnavailable:
    """Error for people, in one line."""
    reason = str(error) if isinstance(error, ScorerSilent) else type(error).__name__
    return ScorerUnavailable(
        f"none of the {num_actors} scoring actor(s) answered: {num_lost} request(s) lost in {seconds:.0f} s, the last "
        f"to {reason}. If their processes die, they lack memory: lower --max-concurrent, or give them a larger "
        "machine; if they are stuck, look at the disk of the feature store and at the GPU, and stop the run. The same "
        "command goes on from the last finished round"
    )
