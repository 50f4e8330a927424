"""Starts the scoring actors of a grid, follows them until they are ready, and reports what they did."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.cluster.placement import Place
from orchestrator.plan import PlannedTrial
from orchestrator.settings.grid import RunSettings

Tell = Callable[[str], None]

CONNECT_TIMEOUT = 120.0
"""Seconds to wait for the scoring actors to be placed before the missing resource is named."""
AUTOSCALER_TIMEOUT = 1800.0
"""The same where an autoscaler has to start a machine for them: cloud machines with GPUs take many minutes."""
RESTARTS_TO_GET_READY = 3
"""How often a scoring actor may die before it has answered for the first time."""
HEAD_START = 64
"""Trials among which those that need no scorer go first."""
METRICS_TIMEOUT = 5.0
"""Seconds to wait, when all trials have ended, for the scoring actors' account."""


class ScoringService:
    """Scoring actors that get ready in the background, while trials that do not need them run already.

    A trial that asks before they are ready waits for its answer.
    """

    def __init__(self, actors: Sequence[Any], *, timeout: float, tell: Tell) -> None:
        """`actors` have been asked for; `timeout` is the time to place them, in seconds."""
        self.actors = tuple(actors)
        self.error: BaseException | None = None
        """Why they will never be ready: bad weights, no room for them, or deaths again and again."""
        self._timeout, self._tell = timeout, tell
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._get_ready, name="scorers", daemon=True)
        if self.actors:
            self._thread.start()

    def stop(self) -> None:
        """Stop waiting for them."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def _get_ready(self) -> None:
        try:
            _wait_until_ready(self.actors, timeout=self._timeout, tell=self._tell, is_stopped=self._stop.is_set)
        except BaseException as error:  # whatever it is, the run ends with it
            if not self._stop.is_set():  # else Ray was shut down under it
                self.error = error


def start_scorers(
    todo: Sequence[PlannedTrial], run: RunSettings, place: Place, *, autoscaled: bool, tell: Tell
) -> ScoringService:
    """The scoring service of these trials; without actors if no trial uses purity."""
    import ray

    from orchestrator.cluster.scorer_actor import ScoringActor

    timeout = AUTOSCALER_TIMEOUT if autoscaled else CONNECT_TIMEOUT
    one_each = {(p.data_fingerprint, p.trial.clipn): p.trial for p in todo if p.trial.uses_purity}
    if not one_each:
        return ScoringService([], timeout=timeout, tell=tell)
    options = {
        "num_cpus": 0 if run.gpus_per_scorer == 0 else 1,
        "num_gpus": run.gpus_per_scorer,
        "resources": dict(place.resources),
        "label_selector": dict(place.labels),
        "max_restarts": -1,
        "max_task_retries": 0,  # a trial repeats what a dead actor owes it, at another actor if there is one
    }
    trials = [trial.model_dump_json() for trial in one_each.values()]
    # Without a GPU the actor shares the CPUs with the trials that wait for it, one thread as they have.
    actors = [
        ray.remote(ScoringActor)
        .options(name=f"scorer-{number}", **options)
        .remote(
            trials,
            1,
            run.gpus_per_scorer,
            folder=str(Path.cwd()),
            fetch_data=run.fetch_data,
            deterministic=run.deterministic,
        )
        for number in range(run.scorers)
    ]
    return ScoringService(actors, timeout=timeout, tell=tell)


def patient_first(todo: Sequence[PlannedTrial]) -> list[PlannedTrial]:
    """The trials in an order in which those at the head need no scorer, as long as there are such.

    Of the first `HEAD_START` only: a long grid is to fill cell by cell, not strategy by strategy.
    """
    head = sorted(todo[:HEAD_START], key=lambda p: p.trial.uses_purity)
    return [*head, *todo[HEAD_START:]]


def _wait_until_ready(actors: Sequence[Any], *, timeout: float, tell: Tell, is_stopped: Callable[[], bool]) -> None:
    """Returns when all scoring actors are ready; meanwhile tells what the first is doing, whenever that changes.

    Raises ValueError if they cannot be placed or die again and again, and an actor's own error as it is.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

    started = time.perf_counter()
    try:
        pending = [actor.prepare.options(max_task_retries=RESTARTS_TO_GET_READY).remote() for actor in actors]
        _wait_until_placed(actors, timeout=timeout, tell=tell)
        said = ""
        while pending and not is_stopped():
            done, pending = ray.wait(pending, num_returns=len(pending), timeout=1.0)
            ray.get(done)
            doing = _doing(actors[0], otherwise=said) if pending else said
            if doing != said:
                tell(f"scoring service: {doing}")
                said = doing
    except RayTaskError as error:  # wrapped with a remote traceback; bad weights are the user's to mend
        raise error.cause from None
    except GetTimeoutError:
        raise ValueError(
            f"the scoring actors were not placed within {timeout:.0f} s: the cluster lacks the CPUs or GPUs "
            "for them, or other runs hold these; lower --scorers or --gpus-per-scorer, or wait for the other runs"
        ) from None
    except RayActorError as error:
        raise ValueError(
            f"a scoring actor died {RESTARTS_TO_GET_READY + 1} times before it was ready ({type(error).__name__}); "
            "most likely the machine lacks memory for images and features: lower --scorers, or take a larger machine"
        ) from None
    if not pending:
        tell(f"scoring service: {len(actors)} actor(s) ready ({time.perf_counter() - started:.0f} s)")


def _wait_until_placed(actors: Sequence[Any], *, timeout: float, tell: Tell) -> None:
    """Returns when every actor has answered something. Raises GetTimeoutError after `timeout` seconds."""
    import ray

    patience = min(20.0, timeout)
    first_words = [actor.load.options(max_task_retries=RESTARTS_TO_GET_READY).remote() for actor in actors]
    answered, _ = ray.wait(first_words, num_returns=len(first_words), timeout=patience)
    if len(answered) < len(actors):
        tell(f"scoring service: waiting for room for {len(actors) - len(answered)} actor(s), at most {timeout:.0f} s")
    ray.get(first_words, timeout=timeout - patience)


def _doing(actor: Any, *, otherwise: str) -> str:
    """What an actor says it is doing; `otherwise` where it is just being restarted."""
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError

    try:
        doing: str = ray.get(actor.load.remote(), timeout=1.0).doing
    except (RayActorError, GetTimeoutError):
        return otherwise
    return doing


def service_line(scorers: Sequence[Any]) -> str:
    """What the scoring actors did, in a line for people."""
    import ray
    from ray.exceptions import RayError

    replies = [scorer.metrics.remote() for scorer in scorers]
    answered, _ = ray.wait(replies, num_returns=len(replies), timeout=METRICS_TIMEOUT)
    known = []
    for reply in answered:
        try:
            known.append(ray.get(reply))
        except RayError:
            continue  # the actor is dead; the line says that its numbers are missing
    requests = sum(metrics.requests for metrics in known)
    seconds = sum(metrics.seconds for metrics in known) / max(1, requests)
    longest = max((metrics.longest_queue for metrics in known), default=0)
    lost = len(scorers) - sum(not metrics.restarted for metrics in known)
    return f"scoring service: {requests} request(s), {seconds:.3f} s each, longest queue {longest}" + (
        f" (not counted: what {lost} actor(s) did before their processes died)" if lost else ""
    )
