"""Work on the shards of a table that is too large for one process, here or by Ray Data. Importing this needs no Ray."""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.console import Progress, StepReporter
from orchestrator.cluster.session import choose_cluster, connect

Work = Callable[[Any], Any]
"""Makes one shard, and returns a few numbers about it. Sent to other machines, so it loads weights when called."""
ROOT = Path(__file__).resolve().parents[2]


class ShardRunner:
    """Works on shards, one after the other in this process or side by side on a cluster. Made by `shard_runner`."""

    def __init__(self, progress: Progress, cluster: str | None) -> None:
        """For `shard_runner`."""
        self._progress, self._cluster = progress, cluster

    def __call__(
        self, work: Work, shards: Sequence[Any], *, what: str, sizes: Sequence[int], gpus: float = 0.0
    ) -> list[Any]:
        """What `work` returns for each shard, in their order; `sizes` are their rows, for the progress.

        On a cluster as many workers as there is room for, each with a CPU and `gpus` GPUs. Raises what `work` raises.
        """
        results: list[Any] = [None] * len(shards)
        reporter, done = StepReporter(what, sum(sizes), self._progress), 0
        here = ((number, work(shard)) for number, shard in enumerate(shards))
        for number, result in here if self._cluster is None else _by_ray(work, shards, gpus, self._cluster):
            results[number] = result
            done += sizes[number]
            reporter.done(done)
        return results


@contextmanager
def shard_runner(address: str | None, progress: Progress) -> Iterator[ShardRunner]:
    """A runner on the Ray cluster at an address, or in this process without one.

    Raises ValueError for an address where no cluster answers.
    """
    if address is None:
        yield ShardRunner(progress, None)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cluster = choose_cluster(address, tell=progress)
    import ray
    import ray.data

    connect(cluster, address, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}} if cluster == "local" else None)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ShardRunner(progress, cluster)
    finally:
        ray.shutdown()


class _Refused(Exception):
    """A ValueError on its way from a worker: told in one line, without the worker's traceback."""


class _Worker:
    """An actor of Ray Data: keeps what the work loaded between shards."""

    def __init__(self, work: bytes) -> None:
        self._work: Work = pickle.loads(work)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        number, shard = pickle.loads(batch["shard"][0])
        try:
            result = self._work(shard)
        except ValueError as error:
            result = _Refused(str(error))
        return {"result": [pickle.dumps((number, result))]}


def _by_ray(work: Work, shards: Sequence[Any], gpus: float, cluster: str) -> Iterator[tuple[int, Any]]:
    """The number of each shard and what became of it, as they finish."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    cpus = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
    # A block for each shard: they are few and large, and one that is lost with its machine is made again alone.
    items = [{"shard": pickle.dumps((number, shard))} for number, shard in enumerate(shards)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Ray 2.60's, about `ray_remote_args_fn`
        rows = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Worker,
            fn_constructor_kwargs={"work": pickle.dumps(work)},
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, min(cpus, len(items)))),
            num_cpus=1,
            num_gpus=gpus or None,
            # A worker that dies is replaced, but not on this machine alone, where Ray prints a line about how.
            ray_remote_args_fn=(lambda: {"max_restarts": 0}) if cluster == "local" else None,
        )
    for row in rows.iter_rows():
        number, result = pickle.loads(row["result"])
        if isinstance(result, _Refused):
            raise ValueError(str(result))
        yield number, result
