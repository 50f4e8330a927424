"""The SQLite file of an MLflow store, made whole or not at all."""

from __future__ import annotations

from pathlib import Path

from data.files import file_lock, sync_folder

SCHEME = "sqlite:///"


def make_store(uri: str) -> None:
    """Make the file of an SQLite store with all of MLflow's tables, where there is none; other stores are left alone.

    MLflow makes some fifty tables one after the other: a process that is killed meanwhile, or two that do it at once,
    leave a file that no later one can use. So it is made beside its place, by one process at a time, and moved there.
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
        MlflowClient(tracking_uri=f"{SCHEME}{unfinished}").search_experiments(max_results=1)
        unfinished.replace(path)
        sync_folder(path.parent)
