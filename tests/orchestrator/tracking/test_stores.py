"""The mirror against real stores that go away in the middle and come back: an MLflow server, PostgreSQL, SQLite."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.ledger.output import OutputFolder, open_output
from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial
from orchestrator.settings.reading import make_trial
from orchestrator.tracking.content import GridCard
from orchestrator.tracking.tracker import Tracker

MakeRecord = Callable[..., RoundRecord]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[3]
PASSWORD = "p@ss w0rd/17"
QUOTED = "p%40ss%20w0rd%2F17"
TRIALS, ROUNDS = 5, 3


def plan() -> list[PlannedTrial]:
    axes = {"dataset": "digits", "mismatch_ratio": 0.2, "ood_ratio": 0.6, "strategy": "conf", "rounds": ROUNDS}
    return [
        PlannedTrial(trial=make_trial(**axes, seed=seed), fingerprint=f"{seed:064d}", data_fingerprint="d")
        for seed in range(TRIALS)
    ]


def wait_until(is_so: Callable[[], bool], *, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def check_mirrored_once(uri: str, output: OutputFolder, plan: Sequence[PlannedTrial]) -> None:
    """MLflow has the grid once, each trial once, each round once, in order, with the times of the records."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("e")
    (parent,) = client.search_runs([experiment.experiment_id], f"tags.`vlpure.grid` = '{output.grid_id}'")
    children = client.search_runs([experiment.experiment_id], f"tags.`vlpure.trial_of` = '{parent.info.run_id}'")
    assert sorted(run.data.tags["fingerprint"] for run in children) == [p.fingerprint for p in plan]
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    for run in children:
        records = output.ledger.history(run.data.tags["fingerprint"])
        found = client.get_metric_history(run.info.run_id, "accuracy")
        assert [(m.step, m.value, m.timestamp) for m in found] == [(r.round, r.accuracy, r.time_ms) for r in records]
        assert {"aubc", "aubc_paper", "last_accuracy", "mean_precision"} <= set(run.data.metrics)
        assert run.data.params["recipe.steps"] == "20000"
        names = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert names == {"config.json", "queried_idx.csv", "records.json"}
    for run in (parent, *children):
        assert not [text for text in run.data.tags.values() if PASSWORD in text or QUOTED in text]


def go_through_an_outage(
    uri: str,
    folder: Path,
    make_record: MakeRecord,
    monkeypatch: pytest.MonkeyPatch,
    *,
    stop: Callable[[], None],
    start: Callable[[], None],
) -> None:
    """Trials finish while the store is there, while it is away, and while it is there again."""
    monkeypatch.setattr("orchestrator.tracking.tracker.EVERY", 0.2)
    monkeypatch.chdir(folder)
    said: list[str] = []
    planned = plan()
    with open_output(folder / "out").locked() as output:

        def finish(number: int, *, rounds: int = ROUNDS) -> None:
            for record in (make_record(n) for n in range(rounds)):
                output.ledger.append(planned[number].fingerprint, {}, record)

        tracker = Tracker(planned, output, uri=uri, experiment="e", card=GridCard(title="t"), tell=said.append)
        tracker.start()
        finish(0)
        finish(1, rounds=2)
        client = MlflowClient(uri)

        def is_there() -> bool:
            experiment = client.get_experiment_by_name("e")
            if experiment is None:
                return False
            runs = client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'")
            return len(runs) == 1

        wait_until(is_there)
        stop()
        finish(1)
        finish(2)
        wait_until(lambda: len(said) == 1)
        start()
        wait_until(lambda: len(said) == 2)
        finish(3)
        finish(4)
        assert tracker.finish() is True
        assert tracker.publish([output.path / "vlpure.json"]) is True
        assert "does not take the results" in said[0]
        assert "takes the results again" in said[1]
        assert len(said) == 2
        for secret in (PASSWORD, QUOTED):
            assert secret not in "".join(said)
        check_mirrored_once(uri, output, planned)
    assert {path.name for path in folder.iterdir()} <= {"out", "store"}


class _Server:
    """An MLflow server on SQLite that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        folder = self._folder
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port),
                    "--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
                    "--artifacts-destination", str(folder / "artifacts"),
                ],
                cwd=folder, env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_until(self._answers)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def test_a_server_that_is_killed_and_comes_back(
    tmp_path: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = _Server(tmp_path / "store")
    try:
        server.start()
        go_through_an_outage(server.uri, tmp_path, make_record, monkeypatch, stop=server.kill, start=server.start)
    finally:
        server.kill()


def _postgres_programs() -> Path | None:
    """The folder of Debian's PostgreSQL programs, which are not on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


class _Postgres:
    """A PostgreSQL of its own in a temporary folder, on localhost, with a password."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._port = free_port()
        # PostgreSQL refuses to run as root.
        self._user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._user:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        self.uri = f"postgresql+psycopg://al:{QUOTED}@127.0.0.1:{self._port}/postgres"

    def make(self) -> None:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run("initdb", "--username=al", f"--pwfile={password}", "--auth=scram-sha-256", "--no-sync")

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self._port} -c unix_socket_directories={self._folder}"
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder / 'log'}", f"--options={options}")

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--mode=immediate", "--wait")

    def _run(self, program: str, *words: str) -> None:
        command = [*self._user, str(self._programs / program), f"--pgdata={self._folder / 'data'}", *words]
        subprocess.run(
            command, cwd=self._folder, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=120
        )


@pytest.fixture
def postgres() -> Iterator[_Postgres]:
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL's programs are not installed (apt-get install postgresql)")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed (pip install 'psycopg[binary]')")
    folder = Path(tempfile.mkdtemp())  # the user postgres may not look into pytest's folders
    server = _Postgres(programs, folder)
    try:
        server.make()
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_postgresql_that_is_stopped_and_comes_back(
    postgres: _Postgres, tmp_path: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_through_an_outage(postgres.uri, tmp_path, make_record, monkeypatch, stop=postgres.stop, start=postgres.start)
    assert list((tmp_path / "out" / "mlflow-artifacts").rglob("records.json"))


MIRROR_A_GRID = """
import sys
from pathlib import Path
from orchestrator.tracking.content import GridCard
from orchestrator.ledger.output import open_output
from orchestrator.tracking.tracker import Tracker
from tests.orchestrator.tracking.test_stores import plan
folder, uri = Path(sys.argv[1]), sys.argv[2]
with open_output(folder).locked() as output:
    tracker = Tracker(plan(), output, uri=uri, experiment="e", card=GridCard(title=folder.name), tell=print)
    tracker.start()
    sys.exit(not any(tracker.finish() for _ in range(5)))
"""


@contextmanager
def grids(folder: Path, make_record: MakeRecord, *, number: int) -> Iterator[list[OutputFolder]]:
    """Output folders with complete ledgers."""
    outputs = []
    for name in range(number):
        with open_output(folder / f"grid{name}").locked() as output:
            for p in plan():
                for record in (make_record(n) for n in range(ROUNDS)):
                    output.ledger.append(p.fingerprint, {}, record)
            outputs.append(output)
    yield outputs


def mirror_at_the_same_time(uri: str, outputs: Sequence[OutputFolder]) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MIRROR_A_GRID, str(output.path), uri],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )
        for output in outputs
    ]  # fmt: skip
    for process in processes:
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
    for output in outputs:
        check_mirrored_once(uri, output, plan())


def test_two_grids_make_and_fill_one_sqlite_store(tmp_path: Path, make_record: MakeRecord) -> None:
    with grids(tmp_path, make_record, number=2) as outputs:
        mirror_at_the_same_time(f"sqlite:///{tmp_path / 'shared.db'}", outputs)


def test_two_grids_make_and_fill_one_postgresql_store(
    postgres: _Postgres, tmp_path: Path, make_record: MakeRecord
) -> None:
    with grids(tmp_path, make_record, number=2) as outputs:
        mirror_at_the_same_time(postgres.uri, outputs)
