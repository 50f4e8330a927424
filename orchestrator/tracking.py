"""Mirrors the ledger to MLflow: one parent run a grid, one child a trial, metrics with step = round.

The mirror only ever reads the ledger, in the driver, beside the trials: a tracking server that is slow or away delays
nothing and loses nothing. Every write can be repeated: runs are found by their fingerprint tag, and metrics carry
the time stamps of the records.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from orchestrator.ledger import TrajectoryState
from orchestrator.metrics import cumulative_precision, summarise
from orchestrator.output import OutputFolder
from orchestrator.plan import PlannedTrial
from orchestrator.records import RoundRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient

Tell = Callable[[str], None]

EVERY = 3.0
"""Seconds between two looks at the ledger."""
SERVER_TIMEOUT = 5
"""Seconds a tracking server has to answer."""

SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(SERVER_TIMEOUT),
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
"""MLflow through its environment: by default a server that is away is tried for four minutes."""


class NotReachable(Exception):
    """The tracking server does not answer."""


def default_tracking_uri(output: Path) -> str:
    """The SQLite store in an output folder."""
    return f"sqlite:///{output / 'mlflow.db'}"


def masked(uri: str) -> str:
    """A tracking URI without its password, for people."""
    parts = urlsplit(uri)
    if not parts.password:
        return uri
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))


class Tracker:
    """Follows a ledger from a thread of its own, between `start` and `finish`."""

    def __init__(
        self,
        planned: Sequence[PlannedTrial],
        output: OutputFolder,
        *,
        uri: str,
        experiment: str,
        title: str,
        tell: Tell,
    ) -> None:
        self._mirror = Mirror(planned, output, uri=uri, experiment=experiment, title=title)
        self._uri = uri
        self._tell = tell
        self._warned = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mlflow-mirror", daemon=True)

    def start(self) -> None:
        """Begin to follow the ledger."""
        self._thread.start()

    def finish(self) -> bool:
        """Mirror what is left and stop; whether MLflow now holds all that the ledger holds."""
        self._stop.set()
        self._thread.join()
        return self._catch_up(final=True)

    def _follow(self) -> None:
        while not self._stop.wait(EVERY):
            self._catch_up(final=False)

    def _catch_up(self, *, final: bool) -> bool:
        try:
            self._mirror.catch_up(final=final)
        except Exception as error:  # whatever MLflow raises, the trials go on and the ledger keeps all
            if not self._warned:
                reason = " ".join(str(error).split()).replace(self._uri, masked(self._uri))[:300]
                self._tell(
                    f"warning: MLflow at {masked(self._uri)} does not take the results ({reason}); they are safe in "
                    "the ledger, and running the same command again sends them"
                )
            self._warned = True
            return False
        return True


class Mirror:
    """Makes MLflow hold what the ledger holds."""

    def __init__(
        self, planned: Sequence[PlannedTrial], output: OutputFolder, *, uri: str, experiment: str, title: str
    ) -> None:
        self._planned = {p.fingerprint: p for p in planned}
        self._output = output
        self._uri = uri
        self._experiment = experiment
        self._title = title
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._parent_id = ""
        self._run_ids: dict[str, str] = {}
        self._sent: dict[str, int | None] = {}
        self._finished: dict[str, bool] = {}

    def catch_up(self, *, final: bool) -> None:
        """Send what is new since the last call. Raises what MLflow raises; the next call sends it again."""
        client = self._connect()
        for fingerprint, planned in self._planned.items():
            version = self._output.ledger.version(fingerprint)
            if version == self._sent.get(fingerprint):
                continue
            state = self._output.ledger.state(fingerprint)
            assert state is not None, "a state file went away"
            self._send(client, planned, state)
            self._sent[fingerprint] = version
            self._finished[fingerprint] = state.error is None and len(state.records) >= planned.trial.rounds
        if final:
            finished = sum(self._finished.values())
            status = "FINISHED" if finished == len(self._planned) else "KILLED"
            client.log_metric(self._parent_id, "trials_finished", finished)
            client.set_terminated(self._parent_id, status)

    def _connect(self) -> MlflowClient:
        """The client, after the first call with the experiment, the parent run and all known children looked up."""
        if self._client is not None:
            return self._client
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        check_reachable(self._uri)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self._uri)
        self._experiment_id = self._ensure_experiment(client)
        self._parent_id = self._ensure_parent(client)
        self._run_ids = self._known_children(client)
        self._client = client
        return client

    def _ensure_experiment(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        # A local store would put artefacts below the current directory.
        is_local = self._uri.startswith("sqlite:")
        folder = (self._output.path / "mlflow-artifacts").as_uri() if is_local else None
        return str(client.create_experiment(self._experiment, artifact_location=folder))

    def _ensure_parent(self, client: MlflowClient) -> str:
        grid_id = self._output.grid_id
        assert grid_id is not None, "a grid is mirrored from a folder that was made"
        found = client.search_runs([self._experiment_id], f"tags.`vlpure.grid` = '{grid_id}'", max_results=1)
        if found:
            run_id = str(found[0].info.run_id)
            client.update_run(run_id, status="RUNNING")
            return run_id
        tags = {"vlpure.grid": grid_id, "output_dir": str(self._output.path)}
        return str(client.create_run(self._experiment_id, tags=tags, run_name=self._title).info.run_id)

    def _known_children(self, client: MlflowClient) -> dict[str, str]:
        """Run ids by fingerprint; of several runs of one trial (a retried request can leave two) the oldest counts."""
        known: dict[str, str] = {}
        token = None
        while True:
            page = client.search_runs(
                [self._experiment_id],
                f"tags.`mlflow.parentRunId` = '{self._parent_id}'",
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            for run in page:
                fingerprint = run.data.tags["fingerprint"]
                if known.setdefault(fingerprint, run.info.run_id) != run.info.run_id:
                    client.delete_run(run.info.run_id)
            token = page.token
            if not token:
                return known

    def _send(self, client: MlflowClient, planned: PlannedTrial, state: TrajectoryState) -> None:
        """The whole of one trial, as far as the ledger has it; what is there already stays as it is."""
        from mlflow.entities import Metric

        run_id = self._run_ids.get(planned.fingerprint) or self._create_child(client, planned, state)
        metrics = [
            Metric(name, float(value), record.time_ms, record.round)
            for record in state.records
            for name, value in round_metrics(state.records[0], record).items()
        ]
        finished = len(state.records) >= planned.trial.rounds
        end = state.records[-1].time_ms if state.records else None
        if finished and end is not None:
            summary = summarise(state.records[: planned.trial.rounds])
            values = {name: getattr(summary, name) for name in summary.__slots__}
            metrics += [
                Metric(name, value, end, planned.trial.rounds - 1)
                for name, value in values.items()
                if value is not None
            ]
        for start in range(0, len(metrics), 1000):
            client.log_batch(run_id, metrics=metrics[start : start + 1000])
        if state.error is not None:
            client.set_tag(run_id, "error", state.error[:5000])
            client.set_terminated(run_id, "FAILED")
        elif finished:
            client.log_text(run_id, records_text(state), "records.json")
            client.set_terminated(run_id, "FINISHED", end_time=end)

    def _create_child(self, client: MlflowClient, planned: PlannedTrial, state: TrajectoryState) -> str:
        from mlflow.entities import Param

        trial = planned.trial
        axes = {
            "dataset": trial.dataset,
            "mismatch_ratio": f"{trial.mismatch_ratio:g}",
            "ood_ratio": f"{trial.ood_ratio:g}",
            "strategy": trial.strategy,
            "seed": str(trial.seed),
        }
        tags = axes | {"mlflow.parentRunId": self._parent_id, "fingerprint": planned.fingerprint}
        start = state.records[0].time_ms if state.records else None
        run = client.create_run(self._experiment_id, start_time=start, tags=tags, run_name=" ".join([*axes.values()]))
        params = [Param(name, str(value)[:6000]) for name, value in flat(trial.model_dump(mode="json")).items()]
        client.log_batch(run.info.run_id, params=params)
        self._run_ids[planned.fingerprint] = str(run.info.run_id)
        return self._run_ids[planned.fingerprint]


def round_metrics(first: RoundRecord, record: RoundRecord) -> dict[str, float]:
    """What MLflow charts of a round of a trial whose round 0 is `first`.

    Its figures, seconds a phase as `seconds/<phase>`, what the purity request took as `service/<figure>`, and the
    strategy's diagnostics.
    """
    metrics: dict[str, float | int | bool | None] = {
        "accuracy": record.accuracy,
        "precision": record.precision,
        "cumulative_precision": cumulative_precision(first, record),
        "num_id": record.num_id,
        "num_ood": record.num_ood,
        **record.diagnostics,
        **{f"seconds/{phase}": value for phase, value in record.seconds.items()},
        **{f"service/{name}": value for name, value in record.service.items()},
    }
    return {name: float(value) for name, value in metrics.items() if value is not None}


def records_text(state: TrajectoryState) -> str:
    """A trial's records as JSON text, the queried indices among them."""
    return json.dumps([record.numbers() for record in state.records], indent=1)


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level with dotted names."""
    flattened: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flattened |= flat(value, f"{prefix}{name}.")
        else:
            flattened[f"{prefix}{name}"] = value
    return flattened


def check_reachable(uri: str) -> None:
    """Raises NotReachable where `uri` is a server's and the server does not answer within seconds."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=SERVER_TIMEOUT).close()
    except (urllib.error.URLError, OSError) as error:
        raise NotReachable(f"no answer: {error}") from None
