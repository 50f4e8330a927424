"""Starts the scoring actors of a grid, follows them until they are ready, and reports what they did."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.console import RunStopped, duration
from orchestrator.cluster.channel import memory_use
from orchestrator.cluster.placement import Place
from orchestrator.plan import PlannedTrial
from orchestrator.settings.grid import RunSettings

if TYPE_CHECKING:
    from orchestrator.cluster.scorer_actor import Load

Tell = Callable[[str], None]

CONNECT_TIMEOUT = 120.0
"""Seconds to wait for the scoring actors to be placed before the missing resource is named."""
AUTOSCALER_TIMEOUT = 1800.0
"""Seconds to wait if an autoscaler has to start a machine for them: cloud machines with GPUs take many minutes."""
RESTARTS_TO_GET_READY = 3
"""How often in a row a scoring actor may die, before it is ready, without having encoded anything."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before an actor that died goes on to get ready; doubled each time it died without progress."""
HEAD_START = 64
"""Trials among which those that need no scorer go first."""
METRICS_TIMEOUT = 5.0
"""Seconds to wait, when all trials have ended, for the counts of the scoring actors."""


class ScoringService:
    """Scoring actors that get ready in the background, while trials that do not need them run already.

    A trial that asks before they are ready waits for its answer.
    """

    def __init__(self, actors: Sequence[Any], *, timeout: float, tell: Tell) -> None:
        """Follow `actors`, which were requested from Ray; `timeout` is the time to place them, in seconds."""
        self.actors = tuple(actors)
        self.error: BaseException | None = None
        """Reason why they will never be ready: bad weights, no room for them, or deaths again and again."""
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
    """Start the scoring service of these trials; without actors if no trial uses a scorer."""
    import ray

    from orchestrator.cluster.scorer_actor import ScoringActor

    timeout = AUTOSCALER_TIMEOUT if autoscaled else CONNECT_TIMEOUT
    one_each = {(p.data_fingerprint, p.trial.clipn): p.trial for p in todo if p.trial.uses_scorer}
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
    """Order the trials so that those at the head need no scorer, as long as there are any.

    Only the first `HEAD_START` are reordered: a long grid is to fill cell by cell, not strategy by strategy.
    """
    head = sorted(todo[:HEAD_START], key=lambda p: p.trial.uses_scorer)
    return [*head, *todo[HEAD_START:]]


def _wait_until_ready(actors: Sequence[Any], *, timeout: float, tell: Tell, is_stopped: Callable[[], bool]) -> None:
    """Return when all scoring actors are ready; meanwhile print what the first is doing, whenever that changes.

    Raises ValueError if they cannot be placed, RunStopped if they die again and again, an actor's own error as it is.
    """
    import ray

    started = time.perf_counter()
    starting = [_Starting(actor, tell) for actor in actors]
    _wait_until_placed(starting, timeout=timeout, tell=tell)
    for each in starting:
        each.begin()
    said = ""
    while pending := [each for each in starting if not each.is_ready]:
        if is_stopped():
            return
        ray.wait([each.reply for each in pending], num_returns=len(pending), timeout=1.0)
        for each in pending:
            each.look()
        doing = starting[0].doing or said
        if doing != said and not starting[0].is_ready:
            tell(f"scoring service: {doing}")
            said = doing
    tell(f"scoring service: {len(actors)} actor(s) ready ({time.perf_counter() - started:.0f} s)")


def _wait_until_placed(starting: Sequence[_Starting], *, timeout: float, tell: Tell) -> None:
    """Return when every actor has answered something. Raises ValueError after `timeout` seconds."""
    begun, patience = time.monotonic(), min(20.0, timeout)
    said = False
    while waiting := [each for each in starting if not each.answers()]:
        seconds = time.monotonic() - begun
        if seconds > timeout:
            raise ValueError(
                f"the scoring actors were not placed within {timeout:.0f} s: the cluster lacks the CPUs or GPUs "
                "for them, or other runs hold these; lower --scorers or --gpus-per-scorer, or wait for the other runs"
            )
        if seconds > patience and not said:
            tell(f"scoring service: waiting for room for {len(waiting)} actor(s), at most {timeout:.0f} s")
            said = True


class _Starting:
    """A scoring actor that is getting ready, through the deaths of its process.

    Shards of features that were encoded stay, so an actor that dies again and again may still get there: it is given up
    only when a few processes in a row died without leaving less to do.
    """

    def __init__(self, actor: Any, tell: Tell) -> None:
        self._actor = actor
        self._tell = tell
        self._life = ""
        self._num_missing: int | None = None
        self._missing_before: int | None = None
        self._num_in_vain = self._num_deaths = 0
        self.doing = ""
        """Last reported work."""
        self.is_ready = False
        self.reply: Any = None
        """The pending answer to the wish to get ready."""

    def begin(self) -> None:
        """Ask it to get ready."""
        self.reply = self._actor.prepare.remote()

    def answers(self, timeout: float = 1.0) -> bool:
        """Whether its process lives and says how it does; that is remembered."""
        import ray
        from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError

        try:
            load: Load = ray.get(self._actor.load.remote(), timeout=timeout)
        except GetTimeoutError:
            return False
        except (RayActorError, OutOfMemoryError):
            time.sleep(0.2)  # it is being restarted, and says so at once
            return False
        self._life, self.doing = load.life, load.doing
        if load.num_missing is not None:
            self._num_missing = load.num_missing
        return True

    def look(self) -> None:
        """See whether it is ready or died. Raises its own error unchanged, and RunStopped when it is given up."""
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

        if not ray.wait([self.reply], timeout=0)[0]:
            self.answers()
            return
        try:
            ray.get(self.reply)
            self.is_ready = True
        except RayTaskError as error:  # wrapped with a remote traceback; bad weights are the user's to mend
            raise error.cause from None
        except (RayActorError, OutOfMemoryError) as error:
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        life = self._life
        deadline = time.monotonic() + CONNECT_TIMEOUT
        while not self.answers():
            if time.monotonic() > deadline:
                raise error
        if self._life != life:  # else only the connection was lost
            self._note_death(memory_use(error))
        self.begin()

    def _note_death(self, memory: str | None) -> None:
        before, self._missing_before, self._num_missing = self._missing_before, self._num_missing, None
        got_on = before is not None and self._missing_before is not None and self._missing_before < before
        self._num_deaths += 1
        self._num_in_vain = 1 if got_on else self._num_in_vain + 1
        how = "died" if memory is None else f"was killed by Ray's memory monitor ({memory})"
        if self._num_in_vain > RESTARTS_TO_GET_READY:
            raise RunStopped(
                f"a scoring actor died {self._num_deaths} time(s) before it was ready, the last {self._num_in_vain} "
                f"without progress; its process {how}; most likely the machine lacks memory for images and features: "
                "lower --scorers, or take a larger machine"
            )
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self._num_in_vain - 1))
        self._tell(
            f"scoring service: an actor's process {how} before it was ready (death {self._num_deaths}); what it "
            f"encoded is kept, and it goes on in {duration(pause)}"
        )
        time.sleep(pause)


def service_line(scorers: Sequence[Any]) -> str:
    """Summary of the scoring actors' work, in a line for people."""
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
