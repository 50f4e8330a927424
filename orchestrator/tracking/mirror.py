"""Mirror of the ledger in MLflow: a run per grid, a summary per condition and arm, below it a run per trial.

Metrics have step = round.

Every write can be repeated: runs are found again by their tags, metrics carry the time stamps of the records, and a
trial that was sent completely is marked, so that it is neither read nor sent again.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.ledger.output import OutputFolder
from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial
from orchestrator.tracking.content import (
    GridCard,
    grid_settings,
    grid_tags,
    trial_axes,
    trial_checksum,
    trial_files,
    trial_metrics,
    trial_name,
    trial_params,
)
from orchestrator.tracking.sqlite_store import make_store
from orchestrator.tracking.summaries import SUMMARY_OF, Summaries, cell_of, data_input
from orchestrator.tracking.uri import check_reachable, is_server

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
"""MLflow's settings, through its environment: by default it retries an unreachable server for four minutes."""

GRID, TRIAL_OF, PARENT = "vlpure.grid", "vlpure.trial_of", "mlflow.parentRunId"
FINGERPRINT, ARM, MARK, CHECKSUM = "fingerprint", "arm", "vlpure.mirrored", "vlpure.checksum"
"""Tags by which runs are found again, the one that marks a trial as completely sent, and its checksum."""
EXPERIMENT_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""MLflow opens an experiment of this kind at its training runs; of an unknown kind it asks first."""
DESCRIPTION = (
    "Open-set active learning. One row per condition and strategy, its trials below it: accuracy, precision of the "
    "queries and AUBC by round, `mean/...` over the seeds and `t_interval/...` (95 %). The grid's run has the report "
    "and the table."
)
MOST_METRICS, MOST_PARAMS = 800, 100
"""Largest numbers per request; MLflow accepts 1,000 items in all."""

Key = tuple[str, str]
"""A trial of a grid: fingerprint and arm. Two arms may have a trial in common; each then has a run of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Child:
    """State of one trial in MLflow."""

    run_id: str
    status: str = "RUNNING"
    params: frozenset[str] = frozenset()
    has_error: bool = False
    parent: str = ""
    """Run below which it is listed; in earlier versions the grid's."""
    mark: str = ""
    """Mark of the records that were sent completely (`_mark`); empty for an unfinished trial."""
    num_sent: int = 0
    """Rounds that this process has sent; those of an earlier launch are sent again, which changes nothing."""

    def holds(self, records: Sequence[RoundRecord]) -> bool:
        """Whether these records of a finished trial were sent completely."""
        return self.status == "FINISHED" and self.mark == _mark(records)


class Mirror:
    """Follows one grid's ledger into MLflow."""

    def __init__(
        self, planned: Sequence[PlannedTrial], output: OutputFolder, *, uri: str, experiment: str, card: GridCard
    ) -> None:
        for name, value in SETTINGS.items():  # at once: MLflow reads them when it is first imported
            os.environ.setdefault(name, value)
        self._planned = {_key(p): p for p in planned}
        self._output = output
        self._files = output.path / ".mlflow-files"
        """Folder of what is being sent."""
        self._uri = uri
        self._experiment = experiment
        self._card = card
        self._client: MlflowClient | None = None
        self.experiment_id = ""
        """MLflow's, once it has answered."""
        self._parent_id = ""
        self._children: dict[Key, _Child] = {}
        self._versions: dict[Key, int] = {}
        self._counts: tuple[int, int] | None = None
        self._summaries: Summaries | None = None
        self._cells: dict[str, list[PlannedTrial]] = {}
        for each in planned:
            self._cells.setdefault(cell_of(each), []).append(each)
        self._summarised: set[str] = set()

    def catch_up(self, *, final: bool) -> None:
        """Send what is new since the last call. Raises any error of MLflow; the next call sends it again."""
        client = self._connected()
        for key, planned in self._planned.items():
            version = self._output.ledger.version(planned.fingerprint)
            if version is not None and version != self._versions.get(key):
                self._update(client, key, planned)
                self._versions[key] = version
        self._summarise(client, final=final)
        finished = self._count(client)
        if final:
            self._close(client, is_complete=finished == len(self._planned))

    def publish(self, files: Sequence[Path]) -> None:
        """Attach files, such as a report's, to the grid's run; those of the same names are replaced."""
        client = self._connected()
        for file in files:
            client.log_artifact(self._parent_id, str(file), artifact_path="report")
            if file.name == f"{self._card.table}.csv":
                self._log_table(client, file)

    def _log_table(self, client: MlflowClient, file: Path) -> None:
        """Let MLflow show a CSV file as the grid's table, `<name>.json`.

        Unlike MLflow's own `log_table`, which appends rows: publishing again would show every row twice.
        """
        rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines()))
        name = f"{file.stem}.json"
        self._log_files(client, self._parent_id, {name: json.dumps({"columns": rows[0], "data": rows[1:]})})
        client.set_tag(self._parent_id, "mlflow.loggedArtifacts", json.dumps([{"path": name, "type": "table"}]))

    def _log_files(self, client: MlflowClient, run_id: str, files: dict[str, str]) -> None:
        """Attach texts as files of these names; those that are there are replaced."""
        # Not in a temporary folder, nor by `log_text`, which makes one: a killed process would leave it for good. What
        # is left here goes at the next launch, which sends grid.json first.
        self._forget_files()
        self._files.mkdir()
        try:
            for name, text in files.items():
                (self._files / name).write_text(text, encoding="utf-8")
            client.log_artifacts(run_id, str(self._files))
        finally:
            self._forget_files()

    def _forget_files(self) -> None:
        shutil.rmtree(self._files, ignore_errors=True)

    def disconnect(self) -> None:
        """Forget what is known of MLflow, so that the next call connects and reads its content again."""
        self._client = None
        self._versions.clear()
        self._summarised.clear()
        self._counts = None

    def _connected(self) -> MlflowClient:
        """Client of MLflow; the first call looks up the experiment, the parent run and all known children."""
        if self._client is not None:
            return self._client
        check_reachable(self._uri)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        from mlflow import MlflowClient

        make_store(self._uri)
        client = MlflowClient(tracking_uri=self._uri)
        self.experiment_id = self._ensure_experiment(client)
        self._parent_id = self._ensure_parent(client)
        self._summaries = Summaries(
            client,
            experiment_id=self.experiment_id,
            parent_id=self._parent_id,
            found=self._search(client, f"tags.`{SUMMARY_OF}` = '{self._parent_id}'"),
        )
        self._children = self._known_children(client)
        self._client = client
        return client

    def _ensure_experiment(self, client: MlflowClient) -> str:
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(self._experiment)
        if found is None:
            # A database would put artefacts below the current directory.
            folder = None if is_server(self._uri) else (self._output.path / "mlflow-artifacts").as_uri()
            try:
                tags = EXPERIMENT_KIND | {"mlflow.note.content": DESCRIPTION}
                return str(client.create_experiment(self._experiment, artifact_location=folder, tags=tags))
            except MlflowException:  # another grid was first
                found = client.get_experiment_by_name(self._experiment)
                if found is None:
                    raise
        for name, text in (EXPERIMENT_KIND | {"mlflow.note.content": DESCRIPTION}).items():
            if name not in found.tags:  # what somebody wrote stays
                client.set_experiment_tag(found.experiment_id, name, text)
        return str(found.experiment_id)

    def _ensure_parent(self, client: MlflowClient) -> str:
        from mlflow.entities import RunTag

        grid_id = self._output.grid_id
        assert grid_id is not None, "a grid is mirrored from a folder that was made"
        identity = self._card.identity(grid_id)
        tags = {GRID: identity, "output_dir": str(self._output.path)}
        tags |= grid_tags(self._card, list(self._planned.values()))
        found = list(self._search(client, f"tags.`{GRID}` = '{identity}'"))
        if found:
            run_id = str(found[0].info.run_id)
            for ghost in found[1:]:
                client.delete_run(ghost.info.run_id)
            client.log_batch(run_id, tags=[RunTag(name, value[:5000]) for name, value in tags.items()])
            client.update_run(run_id, status="RUNNING")
        else:
            run = client.create_run(self.experiment_id, tags=tags, run_name=self._card.title)
            run_id = str(run.info.run_id)
        self._log_files(client, run_id, {"grid.json": grid_settings(list(self._planned.values()))})
        return run_id

    def _known_children(self, client: MlflowClient) -> dict[Key, _Child]:
        """Trials that MLflow has; of several runs of one trial (a retried request can leave two) the oldest counts."""
        known: dict[Key, _Child] = {}
        earlier = self._search(client, f"tags.`{PARENT}` = '{self._parent_id}'")
        for run in (*earlier, *self._search(client, f"tags.`{TRIAL_OF}` = '{self._parent_id}'")):
            tags = run.data.tags
            key = (tags.get(FINGERPRINT, ""), tags.get(ARM, tags.get("strategy", "")))
            if key in known:
                client.delete_run(run.info.run_id)
                continue
            known[key] = _Child(
                run_id=str(run.info.run_id),
                status=str(run.info.status),
                params=frozenset(run.data.params),
                has_error="error" in tags,
                parent=tags.get(PARENT, ""),
                mark=tags.get(MARK, ""),
            )
            if key in self._planned:
                known[key] = self._placed(client, known[key], self._planned[key])
        return known

    def _placed(self, client: MlflowClient, child: _Child, planned: PlannedTrial) -> _Child:
        """Move a trial's run below its summary."""
        assert self._summaries is not None, "connected before"
        parent = self._summaries.run_for(planned)
        if child.parent != parent:
            client.set_tag(child.run_id, TRIAL_OF, self._parent_id)
            client.set_tag(child.run_id, PARENT, parent)
        return replace(child, parent=parent)

    def _search(self, client: MlflowClient, condition: str) -> Iterator[Run]:
        """Runs of the experiment with a tag, oldest first, of all pages."""
        token = None
        while True:
            page = client.search_runs(
                [self.experiment_id], condition, order_by=["attributes.start_time ASC"], page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _update(self, client: MlflowClient, key: Key, planned: PlannedTrial) -> None:
        """Bring one trial in MLflow up to the ledger."""
        child = self._children.get(key)
        if child is not None and planned.is_finished and child.holds(planned.records):
            return  # unchanged since it was planned
        state = self._output.ledger.state(planned.fingerprint)
        assert state is not None, "a state file went away"
        records = state.records[: planned.trial.rounds]
        is_finished = len(records) >= planned.trial.rounds
        if child is not None and is_finished and child.holds(records):
            return
        if child is None:
            child = self._create_child(client, planned, records)
        # Kept step by step, so that after an error only what is missing is sent.
        self._children[key] = child = self._send_records(client, child, planned, records)
        error = None if is_finished else state.error
        self._children[key] = _end(client, child, records, error=error, is_finished=is_finished)

    def _create_child(self, client: MlflowClient, planned: PlannedTrial, records: Sequence[RoundRecord]) -> _Child:
        assert self._summaries is not None, "connected before"
        parent = self._summaries.run_for(planned)
        tags = trial_axes(planned) | {PARENT: parent, TRIAL_OF: self._parent_id, FINGERPRINT: planned.fingerprint}
        if self._card.table:
            tags["table"] = self._card.table
        run = client.create_run(
            self.experiment_id,
            start_time=records[0].time_ms if records else None,
            tags=tags,
            run_name=trial_name(planned),
        )
        client.log_inputs(run.info.run_id, [data_input(planned)])
        return _Child(run_id=str(run.info.run_id), parent=parent)

    def _send_records(
        self, client: MlflowClient, child: _Child, planned: PlannedTrial, records: Sequence[RoundRecord]
    ) -> _Child:
        """Send the new rounds and the missing params, after the files if the trial is finished."""
        from mlflow.entities import Metric, Param, RunTag

        rounds = planned.trial.rounds
        missing = {name: text for name, text in trial_params(planned.trial).items() if name not in child.params}
        metrics = [Metric(*values) for values in trial_metrics(records, start=child.num_sent, rounds=rounds)]
        params = [Param(name, text) for name, text in missing.items()]
        tags = [RunTag("rounds", str(rounds))] if child.num_sent == 0 else []
        mark = ""
        if len(records) >= rounds:
            self._log_files(client, child.run_id, trial_files(planned.trial, records))
            mark = _mark(records)
        while len(metrics) > MOST_METRICS or len(params) > MOST_PARAMS:
            client.log_batch(child.run_id, metrics=metrics[:MOST_METRICS], params=params[:MOST_PARAMS])
            metrics, params = metrics[MOST_METRICS:], params[MOST_PARAMS:]
        if mark:
            checksum = trial_checksum(planned.trial, planned.fingerprint, records[:rounds])
            # In the last batch: MLflow writes tags after metrics.
            tags += [RunTag(CHECKSUM, f"{rounds} {checksum}"), RunTag(MARK, mark)]
        if metrics or params or tags:
            client.log_batch(child.run_id, metrics=metrics, params=params, tags=tags)
        return replace(child, num_sent=len(records), params=child.params | missing.keys(), mark=mark)

    def _summarise(self, client: MlflowClient, *, final: bool) -> None:
        """Write the summaries whose seeds are all finished; at the end also those with some finished seeds."""
        assert self._summaries is not None, "connected before"
        for cell, planned in self._cells.items():
            children = [self._children.get(_key(p)) for p in planned]
            is_whole = all(child is not None and child.status == "FINISHED" for child in children)
            if cell in self._summarised or not (is_whole or final):
                continue
            self._summarised.add(cell)
            histories = [
                list(p.records if p.is_finished else self._output.ledger.history(p.fingerprint))[: p.trial.rounds]
                for p, child in zip(planned, children, strict=True)
                if child is not None and child.status == "FINISHED"
            ]
            if histories and not self._summaries.holds(planned[0], histories):
                status = "FINISHED" if is_whole else "KILLED"
                if self._summaries.write(planned, histories, status=status):
                    for p in planned:
                        if _key(p) in self._children:
                            self._children[_key(p)] = self._placed(client, self._children[_key(p)], p)
            self._summaries.close(planned[0], status="FINISHED" if is_whole else "KILLED")

    def _count(self, client: MlflowClient) -> int:
        """Note how many trials are finished and failed, if that changed; return the number of finished ones."""
        states = [child.status for key, child in self._children.items() if key in self._planned]
        counts = states.count("FINISHED"), states.count("FAILED")
        if counts != self._counts:
            # Tags, not metrics: as metrics they were the first two charts on the page.
            client.set_tag(self._parent_id, "grid.finished", str(counts[0]))
            client.set_tag(self._parent_id, "grid.failed", str(counts[1]))
            self._counts = counts
        return counts[0]

    def _close(self, client: MlflowClient, *, is_complete: bool) -> None:
        """Mark the grid's run, and the runs of trials that are not running any more, as ended."""
        for key, child in self._children.items():
            if child.status == "RUNNING" and key in self._planned:
                client.set_terminated(child.run_id, "KILLED")
                self._children[key] = replace(child, status="KILLED")
        assert self._counts is not None, "counted before"
        status = "FINISHED" if is_complete else "FAILED" if self._counts[1] else "KILLED"
        client.set_terminated(self._parent_id, status)


def _key(planned: PlannedTrial) -> Key:
    return planned.fingerprint, planned.row


def _end(
    client: MlflowClient, child: _Child, records: Sequence[RoundRecord], *, error: str | None, is_finished: bool
) -> _Child:
    """Set the status of a trial, after its records were sent."""
    if error is not None:
        client.set_tag(child.run_id, "error", error[:5000])
    elif child.has_error:
        client.delete_tag(child.run_id, "error")
    status = "FINISHED" if is_finished else "RUNNING" if error is None else "FAILED"
    if status == "FINISHED":
        client.set_terminated(child.run_id, status, end_time=records[-1].time_ms)
    elif status != child.status:
        client.update_run(child.run_id, status=status)
    return replace(child, status=status, has_error=error is not None)


def _mark(records: Sequence[RoundRecord]) -> str:
    """Identifies the records of a finished trial: how many there are, and when the last one was made."""
    return f"{len(records)} rounds, {records[-1].time_ms}"
