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
from typing import TYPE_CHECKING, Any

from data.console import RunStopped
from orchestrator.cluster.placement import Node, Place, check_resources, choose_placement, nodes_to_come
from orchestrator.cluster.scorers import service_line, start_scorers
from orchestrator.cluster.session import choose_cluster
from orchestrator.ledger.ledger import LedgerUnwritable
from orchestrator.ledger.output import OutputFolder
from orchestrator.plan import PlannedTrial
from orchestrator.settings.grid import RunSettings

if TYPE_CHECKING:
    from orchestrator.cluster.trial_worker import Compute, Listener

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": r"^(A worker died or was killed|Task \S+ failed\. There are infinite retries)",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "300",
}
"""Ray through its environment: no telemetry, no log files of Tune's own, Ctrl-C is ours, snapshots are rare.

A worker that dies is replaced; what came of it is told by the line of its trial, or of the scoring service.
"""


def run_grid(
    todo: Sequence[PlannedTrial],
    output: OutputFolder,
    run: RunSettings,
    *,
    address: str,
    listener: Listener,
    compute: Compute | None = None,
) -> None:
    """Run the trials to their ends, and report to the listener; `compute` in place of `compute_trial` for each.

    Returns when every trial has ended. KeyboardInterrupt passes through after Ray is shut down; what was running
    is dropped, and every finished round is in the ledger. Raises ValueError for an address where no cluster answers
    and for resources that the cluster does not have, and LedgerUnwritable where the disk of the ledger is full.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    num_scorers = run.scorers if any(p.trial.uses_scorer for p in todo) else 0
    with _ray(address, listener):
        to_come = nodes_to_come()
        nodes = [*_nodes(), *(to_come or [])]
        placement = choose_placement(run, nodes)
        if to_come != []:  # an autoscaler that does not tell what it starts may start anything
            check_resources(run, placement, nodes, scorers=num_scorers)
        writer = _start_writer(output)
        scorers = start_scorers(todo, run, placement.scorers, autoscaled=to_come is not None, tell=listener.tell)
        listener.begin(todo)
        _tune(todo, output, run, placement.trials, writer, scorers, listener, compute)
        if scorers:
            listener.tell(service_line(scorers))


@contextmanager
def _ray(address: str, listener: Listener) -> Iterator[None]:
    """A connection to a running Ray cluster, or a local one for the time being."""
    started = time.perf_counter()
    cluster = choose_cluster(address)
    import ray

    try:
        ray.init(
            address=cluster,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError) as error:
        raise ValueError(f"--address {address}: no Ray cluster answers there ({error})") from None
    except Exception as error:  # Ray has no class of its own for a local node that does not come up
        ray.shutdown()
        reason = " ".join(str(error).split())
        raise RunStopped(f"Ray did not start ({reason}); the machine may be overloaded: try again") from error
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    listener.tell(
        f"Ray: {len(_nodes())} node(s), {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs "
        f"({time.perf_counter() - started:.0f} s to start)"
    )
    try:
        yield
    finally:
        ray.shutdown()


def _nodes() -> list[Node]:
    """The machines of the cluster."""
    import ray

    return [
        Node(resources=node["Resources"], labels=node.get("Labels") or {})
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]


def _start_writer(output: OutputFolder) -> Any:
    """The ledger writer, on this machine: its files are here."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from orchestrator.cluster.writer import LedgerWriter

    here = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=False)
    return (
        ray.remote(LedgerWriter)
        .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
        .remote(str(output.ledger.folder))
    )


def _tune(
    todo: Sequence[PlannedTrial],
    output: OutputFolder,
    run: RunSettings,
    place: Place,
    writer: Any,
    scorers: Sequence[Any],
    listener: Listener,
    compute: Compute | None,
) -> None:
    """Let Tune run the trials. Raises LedgerUnwritable where the writer cannot go on."""
    from ray import tune

    from orchestrator.cluster.trial_worker import Follower, TrialServices, run_one
    from orchestrator.ledger.classifiers import forget_first

    # Tune would print the remote traceback of each process that dies; the listener is told in a line.
    for name in ("ray.tune", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    follower = Follower(todo, writer, listener, max_failures=run.max_failures)
    services = TrialServices(
        writer=writer,
        scorers=tuple(scorers),
        run=run,
        folder=str(Path.cwd()),
        output=str(output.path),
        grid_id=output.grid_id or "",
        compute=compute,
    )
    scratch = output.path / "tune"
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_one, services=services), _resources(run, place)),
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
            stop=follower.stopper,
            failure_config=tune.FailureConfig(max_failures=run.max_failures),
            callbacks=[follower],
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)  # Tune's own notes, of which we use nothing
    if follower.fatal is not None:
        raise LedgerUnwritable(follower.fatal)
    forget_first(output.classifiers)


def _resources(run: RunSettings, place: Place) -> Any:
    """What Tune reserves for a trial, and where."""
    from ray import tune

    bundle = {"CPU": float(run.cpus_per_trial), "GPU": float(run.gpus_per_trial), **place.resources}
    return tune.PlacementGroupFactory([bundle], bundle_label_selector=[dict(place.labels)] if place.labels else None)


def _spec(number: int, planned: PlannedTrial) -> dict[str, Any]:
    """What a worker needs to know of one trial, as Tune carries it."""
    return {
        "number": number,
        "trial": planned.trial.model_dump_json(),
        "fingerprint": planned.fingerprint,
        "data_fingerprint": planned.data_fingerprint,
    }
