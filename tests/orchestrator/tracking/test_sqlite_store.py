"""The SQLite store of MLflow is whole or absent."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.tracking.sqlite_store import check_database, make_store


def half_made(path: Path) -> None:
    """What a process leaves that was killed while it made MLflow's tables."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE secrets (secret_id VARCHAR(36))")
    connection.close()


def test_what_a_killed_process_left_is_made_anew(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    path = tmp_path / "mlflow.db"
    half_made(tmp_path / ".mlflow.db.making")
    make_store(f"sqlite:///{path}")
    assert MlflowClient(f"sqlite:///{path}").create_experiment("trials")
    assert sorted(each.name for each in tmp_path.iterdir()) == [".mlflow.db.lock", "mlflow.db"]


def test_a_death_in_the_middle_leaves_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(tracking_uri: str) -> None:
        half_made(Path(tracking_uri.removeprefix("sqlite:///")))
        raise SystemExit

    monkeypatch.setattr("mlflow.MlflowClient", die)
    with pytest.raises(SystemExit):
        make_store(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert not (tmp_path / "mlflow.db").exists()


def test_only_while_the_tables_are_made_nothing_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy import create_engine

    found = []

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            with create_engine(tracking_uri).connect() as connection:
                found.append(connection.exec_driver_sql("PRAGMA synchronous").scalar())

        def search_experiments(self, max_results: int) -> None:
            """Ask nothing."""

    monkeypatch.setattr("mlflow.MlflowClient", Client)
    make_store(f"sqlite:///{tmp_path / 'mlflow.db'}")
    Client(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert found == [0, 2]  # OFF, FULL


@pytest.mark.parametrize("uri", ["sqlite:///:memory:", "http://127.0.0.1:1", "postgresql://nobody@localhost/none"])
def test_other_stores_are_left_alone(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_store(uri)
    assert not list(tmp_path.iterdir())


def test_a_store_that_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"somebody's")
    make_store(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert (tmp_path / "mlflow.db").read_bytes() == b"somebody's"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100] ^= 0xFF  # the kind of the first page
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: None, None),
        (flip, "database disk image is malformed"),
        (lambda path: path.write_bytes(path.read_bytes()[:4096]), "database disk image is malformed"),
        (lambda path: path.write_text("text " * 1000), "file is not a database"),
    ],
    ids=["sound", "flipped", "torn", "text"],
)
def test_a_damaged_file_is_told_and_not_changed(
    damage: Callable[[Path], object], told: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "a?b.db"  # a question mark begins the options of SQLite's own addresses
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE metrics (value FLOAT)")
        database.executemany("INSERT INTO metrics VALUES (?)", [[number / 7] for number in range(2000)])
        database.commit()
    damage(path)
    before = path.read_bytes()
    if told is None:
        check_database(path)
    else:
        with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} is damaged \({told}.*it is only a copy"):
            check_database(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
