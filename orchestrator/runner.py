"""Runs the unfinished trials of a grid under Ray Tune, against shared scoring actors and one ledger writer.

Tune schedules and retries; the ledger is the truth. To continue, the same command is given again.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from orchestrator.grid import RunSettings
from orchestrator.output import OutputFolder
from orchestrator.plan import PlannedTrial


class Listener(Protocol):
    """Whom a running grid reports to, in the driver."""

    def tell(self, line: str) -> None:
        """A line for people."""
        ...

    def begin(self, todo: Sequence[PlannedTrial]) -> None:
        """The first of these trials are about to start."""
        ...

    def advance(self, planned: PlannedTrial, round_number: int, accuracy: float) -> None:
        """A trial finished a round."""
        ...

    def end(self, planned: PlannedTrial, error: str | None) -> None:
        """A trial ended; why it failed, or None."""
        ...


QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^A worker died or was killed",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "300",
}
"""Ray through its environment: no telemetry, no log files of Tune's own, Ctrl-C is ours, snapshots are rare.

A worker that dies is replaced; what came of it is told by the line of its trial, or of the scoring service.
"""

AUTOSCALER_CONFIG = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` puts the cluster's description on the head node."""
CONNECT_TIMEOUT = 120.0
"""Seconds to wait for a scoring actor to be placed before the missing resource is named."""
RESTARTS_TO_GET_READY = 3
"""How often a scoring actor may die before it has answered for the first time."""
METRICS_TIMEOUT = 5.0
"""Seconds to wait, when all trials have ended, for the scoring actors' account."""


def run_grid(
    todo: Sequence[PlannedTrial], output: OutputFolder, run: RunSettings, *, address: str, listener: Listener
) -> None:
    """Run the trials to their ends, and report to the listener.

    Returns when every trial has ended. KeyboardInterrupt passes through after Ray is shut down; what was running
    is dropped, and every finished round is in the ledger. Raises ValueError for an address where no cluster answers
    and for resources that the cluster does not have.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with _ray(address, listener):
        _check_resources(run, scorers=run.scorers if any(p.trial.uses_purity for p in todo) else 0)
        writer = _start_writer(output)
        scorers = _start_scorers(todo, run, listener)
        listener.begin(todo)
        _tune(todo, output, run, writer, scorers, listener)
        if scorers:
            listener.tell(_service_line(scorers))


@contextmanager
def _ray(address: str, listener: Listener) -> Iterator[None]:
    """A connection to a running Ray cluster, or a local one for the time being."""
    import ray

    started = time.perf_counter()
    try:
        ray.init(
            address=None if address == "auto" else address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError) as error:
        raise ValueError(f"--address {address}: no Ray cluster answers there ({error})") from None
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    listener.tell(
        f"Ray: {len(_nodes())} node(s), {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs "
        f"({time.perf_counter() - started:.0f} s to start)"
    )
    try:
        yield
    finally:
        ray.shutdown()


def _nodes() -> list[dict[str, float]]:
    """The resources of each machine of the cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _check_resources(run: RunSettings, *, scorers: int) -> None:
    """Raises ValueError where the scorers and a single trial could never be placed on the cluster as it is.

    A cluster that scales by itself starts small, so nothing is refused where an autoscaler runs.
    """
    if os.environ.get("RAY_AUTOSCALER_CONFIG") or AUTOSCALER_CONFIG.expanduser().exists():
        return
    nodes = _nodes()
    for option, resource, amount in (
        ("--cpus-per-trial", "CPU", run.cpus_per_trial),
        ("--gpus-per-trial", "GPU", run.gpus_per_trial),
        ("--gpus-per-scorer", "GPU", run.gpus_per_scorer),
    ):
        most = max(node.get(resource, 0) for node in nodes)
        if amount > most:
            raise ValueError(
                f"{option} is {amount:g}, but no machine of the cluster has more than {most:g} {resource}s"
            )
    wanted, there = scorers * run.gpus_per_scorer + run.gpus_per_trial, sum(node.get("GPU", 0) for node in nodes)
    if wanted > there:
        raise ValueError(
            f"{scorers} scorer(s) with {run.gpus_per_scorer:g} GPU and a trial with {run.gpus_per_trial:g} GPU need "
            f"{wanted:g} GPUs together, but the cluster has {there:g}; lower --gpus-per-scorer or --gpus-per-trial"
        )


def _start_writer(output: OutputFolder) -> Any:
    """The ledger writer, on this machine: its files are here."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from orchestrator.writer import LedgerWriter

    here = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=False)
    return (
        ray.remote(LedgerWriter)
        .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
        .remote(str(output.ledger.folder))
    )


def _start_scorers(todo: Sequence[PlannedTrial], run: RunSettings, listener: Listener) -> list[Any]:
    """The scoring actors, ready to answer; none where no trial uses purity."""
    import ray

    from orchestrator.actors import ScoringActor

    one_each = {(p.data_fingerprint, p.trial.clipn): p.trial for p in todo if p.trial.uses_purity}
    if not one_each:
        return []
    options = {
        "num_cpus": 0 if run.gpus_per_scorer == 0 else 1,
        "num_gpus": run.gpus_per_scorer,
        "max_restarts": -1,
        "max_task_retries": 0,  # a trial repeats what a dead actor owes it, at another actor if there is one
    }
    trials = [trial.model_dump_json() for trial in one_each.values()]
    # Without a GPU the actor shares the CPUs with the trials that wait for it, one thread as they have.
    actors = [
        ray.remote(ScoringActor)
        .options(name=f"scorer-{number}", **options)
        .remote(trials, 1, run.gpus_per_scorer, deterministic=run.deterministic)
        for number in range(run.scorers)
    ]
    _wait_until_ready(actors, listener)
    return actors


def _wait_until_ready(actors: Sequence[Any], listener: Listener) -> None:
    """Returns when all scoring actors are ready; meanwhile tells what the first is doing, whenever that changes.

    Raises ValueError where they cannot be placed or die again and again, and an actor's own error as it is.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

    started = time.perf_counter()
    try:
        pending = [actor.prepare.options(max_task_retries=RESTARTS_TO_GET_READY).remote() for actor in actors]
        _placed(actors)
        said = ""
        while pending:
            done, pending = ray.wait(pending, num_returns=len(pending), timeout=1.0)
            ray.get(done)
            doing = _doing(actors[0], otherwise=said) if pending else said
            if doing != said:
                listener.tell(f"scoring service: {doing}")
                said = doing
    except RayTaskError as error:  # wrapped with a remote traceback; bad weights are the user's to mend
        raise error.cause from None
    except GetTimeoutError:
        raise ValueError(
            f"the scoring actors were not placed within {CONNECT_TIMEOUT:.0f} s: the cluster lacks the CPUs or GPUs "
            "for them; lower --scorers or --gpus-per-scorer"
        ) from None
    except RayActorError as error:
        raise ValueError(
            f"a scoring actor died {RESTARTS_TO_GET_READY + 1} times before it was ready ({type(error).__name__}); "
            "most likely the machine lacks memory for images and features: lower --scorers, or take a larger machine"
        ) from None
    listener.tell(f"scoring service: {len(actors)} actor(s) ready ({time.perf_counter() - started:.0f} s)")


def _placed(actors: Sequence[Any]) -> None:
    """Returns when every actor has answered something. Raises GetTimeoutError after `CONNECT_TIMEOUT`."""
    import ray

    first_words = [actor.load.options(max_task_retries=RESTARTS_TO_GET_READY).remote() for actor in actors]
    ray.get(first_words, timeout=CONNECT_TIMEOUT)


def _doing(actor: Any, *, otherwise: str) -> str:
    """What an actor says it is doing; `otherwise` where it is just being restarted."""
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError

    try:
        doing: str = ray.get(actor.load.remote(), timeout=1.0).doing
    except (RayActorError, GetTimeoutError):
        return otherwise
    return doing


def _service_line(scorers: Sequence[Any]) -> str:
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


def _tune(
    todo: Sequence[PlannedTrial],
    output: OutputFolder,
    run: RunSettings,
    writer: Any,
    scorers: Sequence[Any],
    listener: Listener,
) -> None:
    from ray import tune

    from orchestrator.classifier_store import forget_first
    from orchestrator.tune_trial import EndCallback, run_one

    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    trainable = tune.with_parameters(
        run_one, writer=writer, scorers=list(scorers), run=run, classifiers=str(output.classifiers)
    )
    scratch = output.path / "tune"
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": run.cpus_per_trial, "gpu": run.gpus_per_trial}),
        param_space={"spec": tune.grid_search([_spec(number, planned) for number, planned in enumerate(todo)])},
        tune_config=tune.TuneConfig(
            reuse_actors=True,
            max_concurrent_trials=run.max_concurrent,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=time.strftime("%Y%m%d-%H%M%S"),
            storage_path=str(scratch),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=run.max_failures),
            callbacks=[EndCallback(todo, writer, listener)],
        ),
    )
    try:
        tuner.fit()
        forget_first(output.classifiers)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)  # Tune's own notes, of which we use nothing


def _spec(number: int, planned: PlannedTrial) -> dict[str, Any]:
    """What a worker needs to know of one trial, as Tune carries it."""
    return {
        "number": number,
        "trial": planned.trial.model_dump_json(),
        "fingerprint": planned.fingerprint,
        "data_fingerprint": planned.data_fingerprint,
    }
