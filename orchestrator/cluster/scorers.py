"""Starts the scoring actors of a grid, waits until they are ready, and tells what they did."""

from __future__ import annotations

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
METRICS_TIMEOUT = 5.0
"""Seconds to wait, when all trials have ended, for the scoring actors' account."""


def start_scorers(
    todo: Sequence[PlannedTrial], run: RunSettings, place: Place, *, autoscaled: bool, tell: Tell
) -> list[Any]:
    """The scoring actors, ready to answer; none where no trial uses purity.

    Raises ValueError where they cannot be placed or die again and again, and an actor's own error as it is.
    """
    import ray

    from orchestrator.cluster.scorer_actor import ScoringActor

    one_each = {(p.data_fingerprint, p.trial.clipn): p.trial for p in todo if p.trial.uses_scorer}
    if not one_each:
        return []
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
    _wait_until_ready(actors, timeout=AUTOSCALER_TIMEOUT if autoscaled else CONNECT_TIMEOUT, tell=tell)
    return actors


def _wait_until_ready(actors: Sequence[Any], *, timeout: float, tell: Tell) -> None:
    """Returns when all scoring actors are ready; meanwhile tells what the first is doing, whenever that changes."""
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

    started = time.perf_counter()
    try:
        pending = [actor.prepare.options(max_task_retries=RESTARTS_TO_GET_READY).remote() for actor in actors]
        _wait_until_placed(actors, timeout=timeout, tell=tell)
        said = ""
        while pending:
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
