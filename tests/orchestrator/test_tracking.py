"""The MLflow mirror: everything once, in order, after any outage; and no password on the screen."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from orchestrator.config import make_trial
from orchestrator.output import OutputFolder, open_output
from orchestrator.plan import PlannedTrial
from orchestrator.records import RoundRecord
from orchestrator.tracking import (
    Mirror,
    NotReachable,
    Tracker,
    check_reachable,
    default_tracking_uri,
    flat,
    masked,
    round_metrics,
)

MakeRecord = Callable[..., RoundRecord]


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OutputFolder]:
    monkeypatch.chdir(tmp_path)
    with open_output(tmp_path / "out").locked() as folder:
        yield folder


def planned(seed: int, *, rounds: int = 3) -> PlannedTrial:
    trial = make_trial(
        dataset="digits", mismatch_ratio=0.2, ood_ratio=0.6, strategy="conf", seed=seed, rounds=rounds, budget=20
    )
    return PlannedTrial(trial=trial, fingerprint=f"{seed:064d}", data_fingerprint="d")


PLAN = [planned(0), planned(1)]


def mirror(output: OutputFolder) -> Mirror:
    """A new mirror, as a new launch makes one."""
    return Mirror(PLAN, output, uri=default_tracking_uri(output.path), experiment="e", title="t")


def append(output: OutputFolder, seed: int, *records: RoundRecord) -> None:
    for record in records:
        output.ledger.append(planned(seed).fingerprint, {"seed": seed}, record)


def runs(output: OutputFolder) -> tuple[Run, dict[str, Run]]:
    """The parent, and the children by fingerprint; each child once."""
    client = MlflowClient(default_tracking_uri(output.path))
    found = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    (parent,) = (run for run in found if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in found if run.info.run_id != parent.info.run_id]
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in children)
    by_fingerprint = {run.data.tags["fingerprint"]: run for run in children}
    assert len(by_fingerprint) == len(children)
    return parent, by_fingerprint


def history(output: OutputFolder, run: Run, name: str) -> list[tuple[int, float, int]]:
    found = MlflowClient(default_tracking_uri(output.path)).get_metric_history(run.info.run_id, name)
    return [(metric.step, metric.value, metric.timestamp) for metric in found]


def test_rounds_arrive_once_however_often_they_are_sent(output: OutputFolder, make_record: MakeRecord) -> None:
    records = [make_record(number) for number in range(3)]
    append(output, 0, records[0])
    first = mirror(output)
    first.catch_up(final=False)
    append(output, 0, *records[1:])
    first.catch_up(final=False)
    mirror(output).catch_up(final=False)  # another launch sends all again
    _, children = runs(output)
    (run,) = children.values()
    assert history(output, run, "accuracy") == [(r.round, r.accuracy, r.time_ms) for r in records]
    assert [step for step, _, _ in history(output, run, "precision")] == [1, 2]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["aubc"] == pytest.approx(0.6)
    assert run.data.metrics["aubc_paper"] == pytest.approx(0.4)
    assert run.data.params["budget"] == "20"
    assert run.data.tags["strategy"] == "conf"


def test_states_of_runs(output: OutputFolder, make_record: MakeRecord) -> None:
    append(output, 0, make_record(0))
    append(output, 1, make_record(0))
    output.ledger.fail(planned(1).fingerprint, {}, "ArithmeticError: diverged")
    grid = mirror(output)
    grid.catch_up(final=False)
    parent, children = runs(output)
    assert (parent.info.status, children[planned(0).fingerprint].info.status) == ("RUNNING", "RUNNING")
    failed = children[planned(1).fingerprint]
    assert (failed.info.status, failed.data.tags["error"]) == ("FAILED", "ArithmeticError: diverged")

    append(output, 1, make_record(1), make_record(2))
    append(output, 0, make_record(1), make_record(2))
    mirror(output).catch_up(final=True)
    parent, children = runs(output)
    assert {run.info.status for run in (parent, *children.values())} == {"FINISHED"}
    assert parent.data.metrics["trials_finished"] == 2


def test_a_grid_that_is_not_complete_is_marked(output: OutputFolder, make_record: MakeRecord) -> None:
    append(output, 0, make_record(0))
    mirror(output).catch_up(final=True)
    assert runs(output)[0].info.status == "KILLED"


def test_a_ghost_run_of_a_retried_request_is_removed(output: OutputFolder, make_record: MakeRecord) -> None:
    append(output, 0, make_record(0))
    mirror(output).catch_up(final=False)
    parent, children = runs(output)
    (run,) = children.values()
    client = MlflowClient(default_tracking_uri(output.path))
    tags = {"mlflow.parentRunId": parent.info.run_id, "fingerprint": planned(0).fingerprint}
    client.create_run(run.info.experiment_id, tags=tags, start_time=run.info.start_time + 1)
    mirror(output).catch_up(final=False)
    assert runs(output)[1][planned(0).fingerprint].info.run_id == run.info.run_id


def test_artefacts_stay_in_the_output_folder(output: OutputFolder, make_record: MakeRecord, tmp_path: Path) -> None:
    append(output, 0, *(make_record(number) for number in range(3)))
    mirror(output).catch_up(final=False)
    assert list((output.path / "mlflow-artifacts").rglob("records.json"))
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_a_server_that_is_away_is_said_once_and_caught_up_with(
    output: OutputFolder, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.tracking.EVERY", 0.05)
    said: list[str] = []
    append(output, 0, *(make_record(number) for number in range(3)))
    away = "http://someone:secret@127.0.0.1:9"
    tracker = Tracker(PLAN, output, uri=away, experiment="e", title="t", tell=said.append)
    tracker.start()
    assert tracker.finish() is False
    assert len(said) == 1
    assert said[0].startswith("warning: MLflow at http://someone:***@127.0.0.1:9 does not take the results")
    assert "secret" not in said[0]

    tracker = Tracker(PLAN, output, uri=default_tracking_uri(output.path), experiment="e", title="t", tell=said.append)
    tracker.start()
    assert tracker.finish() is True
    assert len(said) == 1
    assert len(history(output, runs(output)[1][planned(0).fingerprint], "accuracy")) == 3


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql+psycopg2://al:p%40ss@host:5432/db", "postgresql+psycopg2://al:***@host:5432/db"),
        ("https://token@host/x", "https://token@host/x"),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
        ("http://:pw@host", "http://:***@host"),
    ],
)
def test_passwords_are_masked(uri: str, shown: str) -> None:
    assert masked(uri) == shown


class _Healthy(http.server.BaseHTTPRequestHandler):
    """Answers /health as MLflow does."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet."""


def test_reachable_servers_and_others() -> None:
    check_reachable("sqlite:///anything")
    server = http.server.HTTPServer(("127.0.0.1", 0), _Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    check_reachable(f"http://127.0.0.1:{server.server_port}/")
    server.shutdown()
    server.server_close()
    with pytest.raises(NotReachable):
        check_reachable(f"http://127.0.0.1:{server.server_port}")


def test_metrics_of_a_round(make_record: MakeRecord) -> None:
    assert set(round_metrics(make_record(0), make_record(0))) == {
        "accuracy", "num_id", "num_ood", "seconds/query", "seconds/train", "seconds/evaluate",
    }  # fmt: skip
    metrics = round_metrics(make_record(0), make_record(2))
    assert metrics["logit_scale"] == 3.7
    assert metrics["cumulative_precision"] == 30 / 40


def test_flat_settings() -> None:
    assert flat({"a": 1, "b": {"c": 2, "d": {"e": None}}}) == {"a": 1, "b.c": 2, "b.d.e": None}


def test_mlflow_is_told_to_be_quick_to_give_up(output: OutputFolder, make_record: MakeRecord) -> None:
    append(output, 0, make_record(0))
    mirror(output).catch_up(final=False)
    assert int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) <= 1
