"""The MLflow mirror: everything once, in order, after any outage, for grids that grow; no password on the screen."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from experiments.results.from_mlflow import trials_of_experiment
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.output import OutputFolder, open_output
from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial, look_up
from orchestrator.settings.reading import make_trial
from orchestrator.tracking.content import GridCard
from orchestrator.tracking.mirror import Mirror
from orchestrator.tracking.tracker import Tracker

MakeRecord = Callable[..., RoundRecord]


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Iterator[OutputFolder]:
    monkeypatch.chdir(tmp_path)
    with open_output(tmp_path / "out").locked() as folder:
        shutil.copy(empty_store, folder.path / "mlflow.db")
        yield folder


def uri_of(output: OutputFolder) -> str:
    return f"sqlite:///{output.path / 'mlflow.db'}"


def planned(seed: int, *, rounds: int = 3, arm: str = "") -> PlannedTrial:
    trial = make_trial(
        dataset="digits", mismatch_ratio=0.2, ood_ratio=0.6, strategy="conf", seed=seed, rounds=rounds, budget=20
    )
    return PlannedTrial(trial=trial, fingerprint=f"{seed:064d}", data_fingerprint="d", arm=arm)


PLAN = [planned(0), planned(1)]


def mirror(output: OutputFolder, plan: Sequence[PlannedTrial] = PLAN, *, table: str = "") -> Mirror:
    """A new mirror, as a new launch makes one: the plan knows what the ledger has."""
    plan = [look_up(output.ledger, p.trial, p.fingerprint, p.data_fingerprint) for p in plan] if plan is PLAN else plan
    return Mirror(plan, output, uri=uri_of(output), experiment="e", card=GridCard(title="t", table=table))


def tracker(output: OutputFolder, said: list[str], *, uri: str | None = None) -> Tracker:
    card = GridCard(title="t")
    return Tracker(PLAN, output, uri=uri or uri_of(output), experiment="e", card=card, tell=said.append)


def append(output: OutputFolder, seed: int, *records: RoundRecord) -> None:
    for record in records:
        output.ledger.append(planned(seed).fingerprint, {"seed": seed}, record)


def all_runs(output: OutputFolder) -> list[Run]:
    client = MlflowClient(uri_of(output))
    return list(client.search_runs([client.get_experiment_by_name("e").experiment_id]))


def runs(output: OutputFolder) -> tuple[Run, dict[str, Run]]:
    """The parent, and the children by fingerprint; each child once."""
    found = all_runs(output)
    (parent,) = (run for run in found if "vlpure.grid" in run.data.tags)
    children = [run for run in found if "fingerprint" in run.data.tags]
    summaries = {run.info.run_id: run for run in found if "vlpure.cell" in run.data.tags}
    assert len(found) == 1 + len(children) + len(summaries)
    assert all(run.data.tags["vlpure.trial_of"] == parent.info.run_id for run in children)
    assert all(run.data.tags["mlflow.parentRunId"] in summaries for run in children)
    by_fingerprint = {run.data.tags["fingerprint"]: run for run in children}
    assert len(by_fingerprint) == len(children)
    return parent, by_fingerprint


def history(output: OutputFolder, run: Run, name: str) -> list[tuple[int, float, int]]:
    found = MlflowClient(uri_of(output)).get_metric_history(run.info.run_id, name)
    return [(metric.step, metric.value, metric.timestamp) for metric in found]


def test_rounds_arrive_once_however_often_they_are_sent(output: OutputFolder, make_record: MakeRecord) -> None:
    records = [make_record(number) for number in range(3)]
    append(output, 0, records[0])
    first = mirror(output)
    first.catch_up(final=False)
    append(output, 0, records[1])
    mirror(output).catch_up(final=False)  # another launch sends all again
    append(output, 0, records[2])
    first.catch_up(final=False)
    first.disconnect()
    first.catch_up(final=False)
    _, children = runs(output)
    (run,) = children.values()
    assert history(output, run, "accuracy") == [(r.round, r.accuracy, r.time_ms) for r in records]
    assert [step for step, _, _ in history(output, run, "precision")] == [1, 2]
    assert [step for step, _, _ in history(output, run, "aubc")] == [2]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["aubc"] == pytest.approx(0.6)
    assert run.data.metrics["aubc_paper"] == pytest.approx(0.4)
    assert run.data.params["budget"] == "20"
    assert (run.data.tags["strategy"], run.data.tags["arm"], run.data.tags["rounds"]) == ("conf", "conf", "3")


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
    grid.catch_up(final=True)
    parent, children = runs(output)
    assert (parent.info.status, children[planned(0).fingerprint].info.status) == ("FAILED", "KILLED")
    assert (parent.data.tags["grid.finished"], parent.data.tags["grid.failed"]) == ("0", "1")

    append(output, 1, make_record(1))
    again = mirror(output)
    again.catch_up(final=False)
    parent, children = runs(output)
    assert {run.info.status for run in (parent, *children.values())} == {"RUNNING"}
    assert "error" not in children[planned(1).fingerprint].data.tags
    append(output, 1, make_record(2))
    append(output, 0, make_record(1), make_record(2))
    again.catch_up(final=True)
    parent, children = runs(output)
    assert {run.info.status for run in (parent, *children.values())} == {"FINISHED"}
    assert (parent.data.tags["grid.finished"], parent.data.tags["grid.failed"]) == ("2", "0")


def test_a_grid_that_is_not_complete_is_marked(output: OutputFolder, make_record: MakeRecord) -> None:
    append(output, 0, make_record(0))
    mirror(output).catch_up(final=True)
    assert runs(output)[0].info.status == "KILLED"


def test_more_rounds_of_finished_trials_go_on_in_the_same_runs(output: OutputFolder, make_record: MakeRecord) -> None:
    append(output, 0, *(make_record(number) for number in range(3)))
    mirror(output).catch_up(final=True)
    append(output, 0, make_record(3))
    longer = mirror(output, [planned(0, rounds=5)])
    longer.catch_up(final=False)
    run = runs(output)[1][planned(0).fingerprint]
    assert (run.info.status, run.data.tags["rounds"]) == ("RUNNING", "5")
    append(output, 0, make_record(4))
    longer.catch_up(final=True)
    run = runs(output)[1][planned(0).fingerprint]
    assert [step for step, _, _ in history(output, run, "accuracy")] == [0, 1, 2, 3, 4]
    assert [step for step, _, _ in history(output, run, "aubc")] == [2, 4]
    assert run.info.status == "FINISHED"


def test_what_is_there_is_neither_read_nor_sent_again(
    output: OutputFolder, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (0, 1):
        append(output, seed, *(make_record(number) for number in range(3)))
    mirror(output).catch_up(final=True)
    again = mirror(output)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("not again")

    sent: list[str] = []

    def note(_: MlflowClient, run_id: str, folder: str) -> None:
        sent.extend(path.name for path in Path(folder).iterdir())

    monkeypatch.setattr(Ledger, "state", refuse)
    monkeypatch.setattr(MlflowClient, "log_artifacts", note)
    monkeypatch.setattr(MlflowClient, "create_run", refuse)
    again.catch_up(final=True)
    assert sent == ["grid.json"]  # which a further launch may have changed


def test_a_round_is_sent_alone(output: OutputFolder, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    append(output, 0, make_record(0))
    grid = mirror(output)
    grid.catch_up(final=False)
    sent: list[tuple[str, int]] = []
    monkeypatch.setattr(
        MlflowClient, "log_batch", lambda *_, metrics, **__: sent.extend((m.key, m.step) for m in metrics)
    )
    append(output, 0, make_record(1))
    grid.catch_up(final=False)
    grid.catch_up(final=False)
    assert {step for _, step in sent} == {1}
    assert len(sent) == len(set(sent)) > 5


def test_a_ghost_run_of_a_retried_request_is_removed(output: OutputFolder, make_record: MakeRecord) -> None:
    append(output, 0, make_record(0))
    mirror(output).catch_up(final=False)
    parent, children = runs(output)
    (run,) = children.values()
    client = MlflowClient(uri_of(output))
    for there in (run, parent):
        client.create_run(there.info.experiment_id, tags=there.data.tags, start_time=there.info.start_time + 1)
    mirror(output).catch_up(final=False)
    parent_now, children = runs(output)
    assert parent_now.info.run_id == parent.info.run_id
    assert children[planned(0).fingerprint].info.run_id == run.info.run_id


def test_an_outage_in_the_middle_of_a_trial_leaves_nothing_out(
    output: OutputFolder, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(output, 0, *(make_record(number) for number in range(3)))
    calls = ["log_artifacts", "log_batch", "set_terminated"]
    said: list[str] = []
    grid = tracker(output, said)
    grid.start()
    for name in calls:  # the first attempt of each fails, after the ones before it went through

        def fail(*_: Any, **__: Any) -> None:
            raise ConnectionError("gone")

        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, name, fail)
            assert grid._tried(lambda: grid._mirror.catch_up(final=False)) is False
    assert grid.finish() is True
    (run,) = runs(output)[1].values()
    assert [step for step, _, _ in history(output, run, "accuracy")] == [0, 1, 2]
    assert (run.info.status, run.data.params["budget"]) == ("FINISHED", "20")
    assert len(said) == 2
    assert "does not take the results (gone)" in said[0]
    assert said[1].endswith("takes the results again; nothing is missing there")


def test_artefacts_stay_in_the_output_folder(output: OutputFolder, make_record: MakeRecord, tmp_path: Path) -> None:
    append(output, 0, *(make_record(number) for number in range(3)))
    mirror(output).catch_up(final=False)
    folder = output.path / "mlflow-artifacts"
    assert sorted(path.name for path in folder.rglob("*.*")) == [
        "config.json", "grid.json", "queried_idx.csv", "records.json",
    ]  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_a_launch_that_is_killed_while_it_sends_files_leaves_none_for_good(
    output: OutputFolder, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for number in range(3):
        append(output, 0, make_record(number))
    left = output.path / ".mlflow-files"
    left.mkdir()
    (left / "half.json").write_text("{")

    def nowhere(*given: object, **named: object) -> str:
        raise AssertionError("a temporary folder, which nobody would remove")

    monkeypatch.setattr("tempfile.mkdtemp", nowhere)
    (tmp_path / "table4.csv").write_text("a,b\n1,2\n")
    sender = mirror(output, table="table4")
    sender.catch_up(final=True)
    sender.publish([tmp_path / "table4.csv"])
    assert not left.exists()
    assert not list(output.path.rglob("half.json"))
    assert list(output.path.rglob("table4.json"))


def test_a_trial_of_two_arms_and_of_two_tables_has_a_run_in_each(output: OutputFolder, make_record: MakeRecord) -> None:
    append(output, 0, *(make_record(number) for number in range(3)))
    arms = [planned(0), planned(0, arm="other name")]
    for table in ("table4", "table5"):
        for _ in range(2):
            mirror(output, arms, table=table).catch_up(final=True)
    found = all_runs(output)
    parents = {run.info.run_id: run.data.tags["table"] for run in found if "vlpure.grid" in run.data.tags}
    assert sorted(parents.values()) == ["table4", "table5"]
    children = [run.data.tags for run in found if "fingerprint" in run.data.tags]
    assert sorted((parents[tags["vlpure.trial_of"]], tags["table"], tags["arm"]) for tags in children) == [
        ("table4", "table4", "conf"),
        ("table4", "table4", "other name"),
        ("table5", "table5", "conf"),
        ("table5", "table5", "other name"),
    ]


def test_report_files_are_attached_to_the_grids_run(output: OutputFolder, make_record: MakeRecord) -> None:
    append(output, 0, make_record(0))
    table = output.path / "table4.md"
    said: list[str] = []
    for text in ("old", "new"):
        table.write_text(text)
        grid = tracker(output, said)
        grid.start()
        grid.finish()
        assert grid.publish([table]) is True
    client = MlflowClient(uri_of(output))
    parent = runs(output)[0]
    assert [file.path for file in client.list_artifacts(parent.info.run_id, "report")] == ["report/table4.md"]
    assert next((output.path / "mlflow-artifacts").rglob("table4.md")).read_text() == "new"
    assert said == []


def test_a_server_that_is_away_is_said_once_and_caught_up_with(
    output: OutputFolder, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.tracking.tracker.EVERY", 0.05)
    said: list[str] = []
    append(output, 0, *(make_record(number) for number in range(3)))
    away = tracker(output, said, uri="http://someone:secret@127.0.0.1:9")
    away.start()
    assert away.finish() is False
    assert away.publish([]) is False
    assert len(said) == 1
    assert said[0].startswith("warning: MLflow at http://someone:***@127.0.0.1:9 does not take the results")
    assert "secret" not in said[0]

    back = tracker(output, said)
    back.start()
    assert back.finish() is True
    assert len(said) == 1
    assert len(history(output, runs(output)[1][planned(0).fingerprint], "accuracy")) == 3


def test_mlflow_is_told_to_be_quick_to_give_up(output: OutputFolder, make_record: MakeRecord) -> None:
    append(output, 0, make_record(0))
    mirror(output).catch_up(final=False)
    assert int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) <= 1


def test_a_summary_of_the_seeds_stands_above_their_trials(output: OutputFolder, make_record: MakeRecord) -> None:
    for seed in (0, 1):
        append(output, seed, *(make_record(number, accuracy=0.5 + 0.1 * number + 0.2 * seed) for number in range(3)))
    mirror(output).catch_up(final=True)
    (summary,) = (run for run in all_runs(output) if "vlpure.cell" in run.data.tags)
    assert summary.info.run_name == "conf · digits mismatch 0.2 ood 0.6"
    assert (summary.info.status, summary.data.tags["seeds"]) == ("FINISHED", "2 of 2")
    assert [(step, pytest.approx(value)) for step, value, _ in history(output, summary, "mean/accuracy")] == [
        (0, 0.6), (1, 0.7), (2, 0.8),
    ]  # fmt: skip
    assert [(step, pytest.approx(value)) for step, value, _ in history(output, summary, "mean/aubc")] == [
        (0, 0.6), (1, 0.65), (2, 0.7),
    ]  # fmt: skip
    assert [step for step, _, _ in history(output, summary, "mean/precision")] == [1, 2]
    # Two values 0.2 apart: the half width is t(1) * 0.2 / sqrt(2) / sqrt(2), and t(1) at 0.975 is 12.706.
    assert summary.data.metrics["t_interval/accuracy_high"] == pytest.approx(0.8 + 1.2706, abs=1e-4)
    assert summary.data.metrics["t_interval/accuracy_low"] == pytest.approx(0.8 - 1.2706, abs=1e-4)
    (data,) = summary.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("digits", "d")

    # Another seed: the mean is another one, so the run gives way to a new one, with all trials below it.
    more = planned(2)
    output.ledger.append(more.fingerprint, {"seed": 2}, make_record(0, accuracy=0.9))
    plan = [look_up(output.ledger, p.trial, p.fingerprint, p.data_fingerprint) for p in (*PLAN, more)]
    mirror(output, plan).catch_up(final=True)
    (same,) = (run for run in all_runs(output) if "vlpure.cell" in run.data.tags)
    assert same.info.run_id == summary.info.run_id  # seed 2 is not finished
    for number in (1, 2):
        output.ledger.append(more.fingerprint, {"seed": 2}, make_record(number, accuracy=0.9))
    mirror(output, plan).catch_up(final=True)
    (summary,) = (run for run in all_runs(output) if "vlpure.cell" in run.data.tags)
    assert [pytest.approx(value) for _, value, _ in history(output, summary, "mean/accuracy")] == [
        0.7,
        2.3 / 3,
        2.5 / 3,
    ]
    assert len(runs(output)[1]) == 3


def test_trials_of_an_earlier_version_move_below_their_summary(output: OutputFolder, make_record: MakeRecord) -> None:
    append(output, 0, make_record(0))
    mirror(output).catch_up(final=True)
    parent, children = runs(output)
    (run,) = children.values()
    client = MlflowClient(uri_of(output))
    client.set_tag(run.info.run_id, "mlflow.parentRunId", parent.info.run_id)  # as it was
    client.delete_tag(run.info.run_id, "vlpure.trial_of")
    client.delete_experiment_tag(run.info.experiment_id, "mlflow.experimentKind")
    append(output, 0, make_record(1))
    mirror(output).catch_up(final=False)
    assert {each.info.run_id for each in runs(output)[1].values()} == {run.info.run_id}
    tags = client.get_experiment_by_name("e").tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_the_table_is_shown_once_however_often_it_is_published(
    output: OutputFolder, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(output, 0, make_record(0))
    file = output.path / "table4.csv"
    file.write_text("strategy,mean\nconf,0.5\n")
    for _ in range(2):
        grid = mirror(output, table="table4")
        grid.catch_up(final=True)
        grid.publish([file])
    parent, _ = runs(output)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri_of(output))  # MLflow reads the table there, whatever the client's
    table = MlflowClient().load_table(parent.info.experiment_id, "table4.json", [parent.info.run_id])
    assert table.to_dict("list") == {"strategy": ["conf"], "mean": [0.5]}


def test_a_changed_number_in_the_store_is_told_to_whoever_reads_it(
    output: OutputFolder, make_record: MakeRecord
) -> None:
    for p in PLAN:
        for number in range(3):
            output.ledger.append(p.fingerprint, p.trial.model_dump(mode="json"), make_record(number))
    mirror(output).catch_up(final=True)
    longer = [planned(0, rounds=5), planned(1)]
    output.ledger.append(PLAN[0].fingerprint, {}, make_record(3))
    mirror(output, longer).catch_up(final=True)  # given more rounds, and stopped on the way
    records = [each.records for each in trials_of_experiment(uri_of(output), "e").planned]
    assert [len(each) for each in records] == [4, 3]
    for change in (
        "UPDATE metrics SET value = value + 0.01 WHERE key = 'accuracy' AND step = 1",
        "UPDATE metrics SET value = value + 1 WHERE key = 'num_ood' AND step = 2",
        "UPDATE params SET value = '3' WHERE key = 'seed'",
    ):
        shutil.copy(output.path / "mlflow.db", "changed.db")
        with closing(sqlite3.connect("changed.db")) as database:
            database.execute(change)
            database.commit()
        with pytest.raises(ValueError, match=r"its axes or metrics are not those that were sent"):
            trials_of_experiment("sqlite:///changed.db", "e")


def test_a_damaged_store_is_named_and_its_cure(output: OutputFolder) -> None:
    (output.path / "mlflow.db").write_text("text " * 1000)
    lines: list[str] = []
    tracker = Tracker(PLAN, output, uri=uri_of(output), experiment="e", card=GridCard(title="t"), tell=lines.append)
    tracker.start()
    assert not tracker.finish()
    (line,) = lines
    assert "file is not a database" in line
    assert line.endswith(f"once {output.path / 'mlflow.db'}, which is damaged, is moved away")
