"""Ray's part of a grid: it runs unfinished trials under Ray Tune, against shared scoring actors and one ledger writer.

`python -m orchestrator.cluster.ray_part FD` is started by `run_grid`, with a socket to it as file descriptor FD. Tune
schedules and retries; the ledger is the truth. Whatever goes wrong here, `run_grid` starts it again.
"""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.console import RunStopped
from data.stopping import INTERRUPTED
from orchestrator.cluster.channel import Channel, Ended, Job, Listener, Lost, Reporter, memory_use, shorten
from orchestrator.cluster.placement import Node, Place, check_resources, choose_placement, nodes_to_come
from orchestrator.cluster.scorers import ScoringService, patient_first, service_line, start_scorers
from orchestrator.cluster.session import choose_cluster, connect
from orchestrator.ledger.ledger import LedgerUnwritable
from orchestrator.plan import PlannedTrial
from orchestrator.settings.grid import RunSettings

if TYPE_CHECKING:
    from orchestrator.cluster.writer_client import RemoteWriter

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
"""Ray's settings, by its environment: no telemetry, no log files of Tune's own, Ctrl-C is ours, snapshots are rare.

A worker that dies is replaced; the line of its trial, or of the scoring service, reports it.
"""


class RayLost(Exception):
    """Ray failed in a way that need not happen again."""


def run_trials(job: Job, channel: Channel) -> None:
    """Run the trials of a job to their ends, and report to the channel.

    Returns when every trial has ended. KeyboardInterrupt passes through after Ray is shut down; what was running
    is dropped, and every finished round is in the ledger. Raises ValueError for an address where no cluster answers
    and for resources that the cluster does not have, LedgerUnwritable if the disk of the ledger is full, and RayLost.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    listener = Reporter(channel, job.todo)
    num_scorers = job.run.scorers if any(p.trial.uses_scorer for p in job.todo) else 0
    with _ray(job, listener):
        from orchestrator.cluster.watch import Watch
        from orchestrator.cluster.writer_client import WriterKeeper

        to_come = nodes_to_come()
        nodes = [*_nodes(), *(to_come or [])]
        placement = choose_placement(job.run, nodes)
        if to_come != []:  # an autoscaler that does not report what it starts may start anything
            check_resources(job.run, placement, nodes, scorers=num_scorers)
        keeper = WriterKeeper(str(job.output.ledger.folder))
        watch = Watch(channel, keeper.look)
        watch.start()
        try:
            job = replace(job, todo=patient_first(job.todo))
            service = start_scorers(
                job.todo, job.run, placement.scorers, autoscaled=to_come is not None, tell=listener.tell
            )
            listener.begin(job.todo)
            try:
                _tune(job, placement.trials, keeper.writer, service, listener)
            finally:
                service.stop()
            if service.error is not None:
                raise service.error
            if service.actors:
                listener.tell(service_line(service.actors))
        finally:
            watch.stop()


@contextmanager
def _ray(job: Job, listener: Listener) -> Iterator[None]:
    """Connect to a running Ray cluster, or to a local one started for this run. Raises ValueError and RayLost."""
    started = time.perf_counter()
    cluster = choose_cluster(job.address, tell=listener.tell)
    import ray

    try:
        # A short folder, so that the paths of its sockets fit, and closed to other users of the machine.
        connect(cluster, job.address, _temp_dir=str(job.folder) if cluster == "local" else None)
    except ValueError:
        raise
    except Exception as error:  # Ray has no class of its own for a local node that does not come up
        raise RayLost(f"Ray did not start: {error}") from error
    # A batch system sends SIGTERM to all processes; it is meant for the supervisor, and Ray's handler aborts (C++).
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
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


def _tune(job: Job, place: Place, writer: RemoteWriter, service: ScoringService, listener: Listener) -> None:
    """Let Tune run the trials. Raises LedgerUnwritable if the writer cannot go on, and RayLost if Tune ends."""
    from ray import tune

    from orchestrator.cluster.memory import let_tune_outlive_memory_kills
    from orchestrator.cluster.trial_worker import Follower, TrialServices, run_one
    from orchestrator.ledger.classifiers import forget_first

    todo, output, run = job.todo, job.output, job.run
    # Tune would print the remote traceback of each process that dies; the listener gets one line.
    for name in ("ray.tune", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    let_tune_outlive_memory_kills()
    follower = Follower(
        todo, writer, listener, max_failures=run.max_failures, is_hopeless=lambda: service.error is not None
    )
    services = TrialServices(
        writer=writer,
        scorers=service.actors,
        run=run,
        folder=str(Path.cwd()),
        output=str(output.path),
        grid_id=output.grid_id or "",
        compute=job.compute,
    )
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
            storage_path=str(job.folder / "tune"),  # Tune's own notes, of which we use nothing
            verbose=0,
            stop=follower.stopper,
            failure_config=tune.FailureConfig(max_failures=run.max_failures),
            callbacks=[follower],
        ),
    )
    try:
        tuner.fit()
    except Exception as error:  # of any class: mistakes of a user are found before the trials start
        raise RayLost(f"Ray Tune ended: {type(error).__name__}: {error}") from error
    if follower.fatal is not None:
        raise LedgerUnwritable(follower.fatal)
    forget_first(output.classifiers)


def _resources(run: RunSettings, place: Place) -> Any:
    """Resources that Tune reserves for a trial, and their place."""
    from ray import tune

    bundle = {"CPU": float(run.cpus_per_trial), "GPU": float(run.gpus_per_trial), **place.resources}
    return tune.PlacementGroupFactory([bundle], bundle_label_selector=[dict(place.labels)] if place.labels else None)


def _spec(number: int, planned: PlannedTrial) -> dict[str, Any]:
    """Description of one trial for a worker, in the form that Tune carries."""
    return {
        "number": number,
        "trial": planned.trial.model_dump_json(),
        "fingerprint": planned.fingerprint,
        "data_fingerprint": planned.data_fingerprint,
    }


def main(argv: Sequence[str]) -> int:
    """Run the job that comes through the file descriptor named in `argv`; return the exit code."""
    connection = Connection(int(argv[1]))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in what a shell starts in the background
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    job: Job = connection.recv()
    channel = Channel(connection)

    def sweep() -> None:
        shutil.rmtree(job.folder, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)

    channel.stop_when_closed(sweep)
    try:
        run_trials(job, channel)
    except KeyboardInterrupt:
        shutil.rmtree(job.folder, ignore_errors=True)  # the supervisor may have been killed
        return INTERRUPTED
    except Exception as error:
        if _would_come_again(error):
            channel.send(Ended(error=_plain(error)))
            return 1
        reason = error if isinstance(error, RayLost) else f"{type(error).__name__}: {error}"
        memory = memory_use(error)
        if memory is not None:
            reason = f"its memory monitor killed processes: {memory}"
        channel.send(Lost(reason=shorten(str(reason))))
        raise
    channel.send(Ended())
    return 0


def _would_come_again(error: Exception) -> bool:
    """Whether a new start would end the same way, as for a mistake of the user or a full disk."""
    if isinstance(error, OSError):
        return error.filename is not None  # without a file it is a connection of Ray's
    return isinstance(error, (ValueError, ArithmeticError, MemoryError, RunStopped))


def _plain(error: Exception) -> Exception:
    """The error without what cannot travel: one of the same class if its words alone make one, else a RunStopped."""
    try:
        copy: Exception = pickle.loads(pickle.dumps(error))
    except Exception:  # a foreign class may fail in any way when pickled
        return RunStopped(f"{type(error).__name__}: {error}")
    return copy


if __name__ == "__main__":
    sys.exit(main(sys.argv))
