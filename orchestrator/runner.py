"""Runs the unfinished trials of a grid under Ray Tune, against shared scoring actors and one ledger writer.

Tune schedules and retries; the ledger is the truth. To continue, the same command is given again.
"""

from __future__ import annotations

import logging
import os
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

    def advance(self) -> None:
        """Some trial finished a round."""
        ...

    def end(self, planned: PlannedTrial, error: str | None) -> None:
        """A trial ended; why it failed, or None."""
        ...


QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "300",
}
"""Ray through its environment: no telemetry, no log files of Tune's own, Ctrl-C is ours, snapshots are rare."""

AUTOSCALER_CONFIG = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` puts the cluster's description on the head node."""
CONNECT_TIMEOUT = 120.0
"""Seconds to wait for a scoring actor to be placed before the missing resource is named."""


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
        _check_resources(run)
        writer = _start_writer(output)
        scorers = _start_scorers(todo, run, listener)
        listener.begin(todo)
        _tune(todo, output, run, writer, scorers, listener)


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


def _check_resources(run: RunSettings) -> None:
    """Raises ValueError where a single trial or scorer could never be placed on the cluster as it is.

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


def _start_writer(output: OutputFolder) -> Any:
    """The ledger writer, on this machine: its files are here."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from orchestrator.actors import LedgerWriter

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
        "max_task_retries": 3,
        "max_concurrency": 2,  # one to work, one to say what it is doing
    }
    trials = [trial.model_dump_json() for trial in one_each.values()]
    # Without a GPU the actor shares the CPUs with the trials that wait for it, one thread as they have.
    actors = [
        ray.remote(ScoringActor).options(**options).remote(trials, 1, run.gpus_per_scorer) for _ in range(run.scorers)
    ]
    _wait_until_ready(actors, listener)
    return actors


def _wait_until_ready(actors: Sequence[Any], listener: Listener) -> None:
    """Returns when all scoring actors are ready; meanwhile tells what the first is doing, whenever that changes."""
    import ray
    from ray.exceptions import GetTimeoutError, RayTaskError

    started = time.perf_counter()
    pending = [actor.prepare.remote() for actor in actors]
    try:
        ray.get([actor.doing.remote() for actor in actors], timeout=CONNECT_TIMEOUT)
    except GetTimeoutError:
        raise ValueError(
            f"the scoring actors were not placed within {CONNECT_TIMEOUT:.0f} s: the cluster lacks the CPUs or GPUs "
            "for them; lower --scorers or --gpus-per-scorer"
        ) from None
    said = ""
    while pending:
        done, pending = ray.wait(pending, num_returns=len(pending), timeout=1.0)
        try:
            ray.get(done)
        except RayTaskError as error:  # wrapped with a remote traceback; bad weights are the user's to mend
            raise error.cause from None
        doing = ray.get(actors[0].doing.remote()) if pending else said
        if doing != said:
            listener.tell(f"scoring service: {doing}")
            said = doing
    listener.tell(f"scoring service: {len(actors)} actor(s) ready ({time.perf_counter() - started:.0f} s)")


def _tune(
    todo: Sequence[PlannedTrial],
    output: OutputFolder,
    run: RunSettings,
    writer: Any,
    scorers: Sequence[Any],
    listener: Listener,
) -> None:
    from ray import tune

    from orchestrator.tune_trial import EndCallback, run_one

    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    trainable = tune.with_parameters(
        run_one, writer=writer, scorers=list(scorers), run=run, classifiers=str(output.classifiers)
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": run.cpus_per_trial, "gpu": run.gpus_per_trial}),
        param_space={"spec": tune.grid_search([_spec(number, planned) for number, planned in enumerate(todo)])},
        tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=run.max_concurrent),
        run_config=tune.RunConfig(
            name=time.strftime("%Y%m%d-%H%M%S"),
            storage_path=str(output.path / "tune"),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=run.max_failures),
            callbacks=[EndCallback(todo, writer, listener)],
        ),
    )
    tuner.fit()


def _spec(number: int, planned: PlannedTrial) -> dict[str, Any]:
    """What a worker needs to know of one trial, as Tune carries it."""
    return {
        "number": number,
        "trial": planned.trial.model_dump_json(),
        "fingerprint": planned.fingerprint,
        "data_fingerprint": planned.data_fingerprint,
    }
