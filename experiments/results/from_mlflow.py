"""Reads the trials of an experiment from an MLflow tracking server alone: tags, params and metrics, no file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from experiments.results.from_ledgers import FoundTrials, in_order
from orchestrator.ledger.records import RECALL, RoundRecord
from orchestrator.plan import PlannedTrial
from orchestrator.settings.reading import read_trial
from orchestrator.settings.trial import TrialConfig
from orchestrator.tracking.content import trial_checksum
from orchestrator.tracking.mirror import CHECKSUM, SETTINGS
from orchestrator.tracking.sqlite_store import check_database, damaged, sqlite_file
from orchestrator.tracking.uri import NotReachable, check_reachable, masked
from strategies.purity.contract import recorded

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PAGE = 1000
"""Runs per request."""
NUM_REQUESTS = 8
"""Number of runs whose metric histories are requested at a time."""
PHASES = ("query", "train", "evaluate")
DIAGNOSTICS = ("logit_scale", RECALL)
"""Diagnostics that reports show."""
METRICS = ("accuracy", "precision", "num_id", "num_ood", *DIAGNOSTICS, *(f"seconds/{phase}" for phase in PHASES))


def trials_of_experiment(uri: str, experiment: str) -> FoundTrials:
    """Read the trials of an experiment.

    Of several runs of one trial (by fingerprint) and row the one with most rounds counts. Queries, machines and
    versions are not read: the server's metrics do not have them. Raises ValueError for a server that does not answer,
    for an experiment that does not exist or has no trial, for a run whose settings do not fit this version or whose
    figures are not those that were sent, and for a damaged SQLite file.
    """
    try:
        return _read_experiment(_connect(uri), uri, experiment)
    except Exception as error:  # damaged cells make MLflow and SQLAlchemy raise almost anything
        file = sqlite_file(uri)
        if file is None or (isinstance(error, ValueError) and not isinstance(error, UnicodeError)):
            raise  # ours, and for a person already
        raise damaged(file, error) from error


def _read_experiment(client: MlflowClient, uri: str, experiment: str) -> FoundTrials:
    found = client.get_experiment_by_name(experiment)
    if found is None:
        known = ", ".join(sorted(each.name for each in client.search_experiments())) or "none"
        raise ValueError(f"no experiment '{experiment}' at {masked(uri)}; known experiments: {known}")
    runs = [run for run in _runs(client, found.experiment_id) if "fingerprint" in run.data.tags]
    if not runs:
        raise ValueError(f"experiment '{experiment}' at {masked(uri)} has no trial yet")
    chosen: dict[tuple[str, str], PlannedTrial] = {}
    by_command: dict[str, set[tuple[str, str]]] = {}
    with ThreadPoolExecutor(NUM_REQUESTS) as pool:
        for run, planned in zip(runs, pool.map(lambda run: _as_planned(client, run), runs), strict=True):
            key = (planned.fingerprint, planned.row)
            if len(planned.records) > len(chosen.setdefault(key, planned).records):
                chosen[key] = planned
            if "table" in run.data.tags:
                by_command.setdefault(run.data.tags["table"], set()).add(key)
    line = f"Read from MLflow, experiment {experiment}; machines and versions are not among its metrics."
    return FoundTrials(
        planned=in_order(list(chosen.values())),
        lines=[line],
        by_command={command: frozenset(trials) for command, trials in by_command.items()},
    )


def _connect(uri: str) -> MlflowClient:
    import logging

    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    file = sqlite_file(uri)
    if file is not None:
        if not file.is_file():  # MLflow would make an empty database there
            raise ValueError(f"MLflow at {masked(uri)}: no such file: {file}")
        check_database(file)
    try:
        check_reachable(uri)
    except NotReachable as error:
        raise ValueError(f"MLflow at {masked(uri)}: {error}") from None
    logging.getLogger("alembic").setLevel(logging.ERROR)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _runs(client: MlflowClient, experiment_id: str) -> Iterator[Run]:
    """All runs of an experiment, page by page."""
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], max_results=PAGE, order_by=["attributes.start_time ASC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _as_planned(client: MlflowClient, run: Run) -> PlannedTrial:
    tags = run.data.tags
    trial, records = _trial(run), tuple(_records(client, run))
    _check(run, trial, records)
    return PlannedTrial(
        trial=trial,
        fingerprint=tags["fingerprint"],
        data_fingerprint="",
        records=records,
        error=tags.get("error"),
        arm=tags.get("arm", ""),
    )


def _check(run: Run, trial: TrialConfig, records: tuple[RoundRecord, ...]) -> None:
    """Raise ValueError for figures other than those that were sent; runs of earlier versions have no checksum."""
    # With the number of rounds that it is of: a trial may have been given more since.
    num_rounds, _, sent = run.data.tags.get(CHECKSUM, "").partition(" ")
    if not sent:
        return
    own = records[: int(num_rounds)] if num_rounds.isdigit() else ()
    if sent != trial_checksum(trial, run.data.tags["fingerprint"], own):
        raise ValueError(
            f"MLflow run {run.info.run_id} ({run.info.run_name}): its axes or metrics are not those that were sent; "
            "somebody changed them, or the store is damaged: make the report from the output folder (report.py DIR)"
        )


def _trial(run: Run) -> TrialConfig:
    """The trial of a run, from its params (dotted names, values as JSON) and its tag `rounds`."""
    # A tag, since a trial may be given more rounds later and a param cannot change.
    settings: dict[str, Any] = {"rounds": int(run.data.tags["rounds"])} if "rounds" in run.data.tags else {}
    for name, text in run.data.params.items():
        *path, last = name.split(".")
        section = settings
        for part in path:
            section = section.setdefault(part, {})
        section[last] = _value(text)
    try:
        return read_trial(**recorded(_known(settings, TrialConfig.model_fields)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"MLflow run {run.info.run_id}: its settings do not fit this version ({error})") from None


def _known(settings: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The params that are settings; others may have been added by hand."""
    return {name: value for name, value in settings.items() if name in fields}


def _value(text: str) -> Any:
    """The value of a param's text (`orchestrator.tracking.content.as_text`): JSON, or else the text itself."""
    try:
        # JSON: read as Python, true, false and null would become texts, as they once did.
        return json.loads(text)
    except ValueError:
        return text


def _records(client: MlflowClient, run: Run) -> Iterator[RoundRecord]:
    """The rounds as far as metrics hold them; steps without an accuracy are skipped."""
    histories = {
        name: {metric.step: metric for metric in client.get_metric_history(run.info.run_id, name)}
        for name in METRICS
        if name in run.data.metrics
    }

    def value(name: str, step: int) -> float | None:
        metric = histories.get(name, {}).get(step)
        return None if metric is None else float(metric.value)

    for step, metric in sorted(histories.get("accuracy", {}).items()):
        yield RoundRecord(
            round=step,
            accuracy=float(metric.value),
            precision=value("precision", step),
            num_id=int(value("num_id", step) or 0),
            num_ood=int(value("num_ood", step) or 0),
            queried_idx=[],
            diagnostics={name: found for name in DIAGNOSTICS if (found := value(name, step)) is not None},
            pool_checksum="",
            seconds={phase: value(f"seconds/{phase}", step) or 0.0 for phase in PHASES},
            peak_memory_mib=0,
            environment={},
            time_ms=int(metric.timestamp),
        )
