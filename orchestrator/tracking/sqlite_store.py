"""The SQLite file that MLflow keeps all in: made whole or not at all, and checked before a report is made of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

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
        MlflowClient(tracking_uri=f"{SCHEME}{unfinished}").search_experiments(max_results=1)
        unfinished.replace(path)
        sync_folder(path.parent)


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
