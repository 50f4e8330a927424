"""The SQLite file that MLflow keeps all in: made whole or not at all, and checked before a report is made of it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from data.files import file_lock, sync_folder

SCHEME = "sqlite:///"


def make_store(uri: str) -> None:
    """Make the file of an SQLite store with all of MLflow's tables, if it is missing; other stores are left alone.

    MLflow makes some fifty tables one after the other: a process that is killed meanwhile, or two that do it at once,
    leave a file that no later one can use. So it is made under another name, by one process at a time, and renamed.
    """
    path = Path(uri.removeprefix(SCHEME))
    if not uri.startswith(SCHEME) or path.exists() or path.name.startswith(":"):
        return
    from mlflow import MlflowClient

    with file_lock(path.with_name(f".{path.name}.lock")):
        if path.exists():
            return
        unfinished = path.with_name(f".{path.name}.making")
        unfinished.unlink(missing_ok=True)
        # Any first question makes MLflow create its tables; a driver killed meanwhile once left a half-made file.
        with _unsynced():
            MlflowClient(tracking_uri=f"{SCHEME}{unfinished}").search_experiments(max_results=1)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
        sync_folder(path.parent)


@contextmanager
def _unsynced() -> Iterator[None]:
    """Let new connections to SQLite leave it to the system when their writes reach the disk."""
    # MLflow's migrations commit some hundred times: each waited for the disk, 6 s of the start of a grid (n = 3, a
    # virtual disk). A file that is renamed when it is whole needs to be on the disk only then.
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def leave_it(connection: Any, record: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", leave_it)
    try:
        yield
    finally:
        event.remove(Engine, "connect", leave_it)


def sqlite_file(uri: str) -> Path | None:
    """File of an SQLite store; None for any other store."""
    return Path(uri.removeprefix(SCHEME)) if uri.startswith(SCHEME) else None


def check_database(file: Path) -> None:
    """Raise ValueError if a database's own structure is damaged; a changed value is found by its run's checksum."""
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            (answer,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        answer = str(error)
    if answer != "ok":
        raise damaged(file, answer)


def damaged(file: Path, reason: object) -> ValueError:
    """Error to raise for a damaged store."""
    return ValueError(
        f"{file} is damaged ({' '.join(str(reason).split())[:200]}); it is only a copy: make the report from the "
        "output folder (report.py DIR), and move the file away to have MLflow filled again by the grid's command"
    )
