"""Where things are, as a user writes it: folders, a Ray cluster, a tracking store. Wrong ones are refused at once."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.tracking.uri import masked

SERVERS, DATABASES = ("http", "https"), ("sqlite", "postgresql", "mysql", "mssql")
"""Schemes of tracking URIs; a database's may name its driver, as in postgresql+psycopg."""


def folder_path(text: str) -> Path:
    """An argparse type for a folder: `~` stands for the home folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a folder, not an empty text")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"there is no home folder for '{Path(text).parts[0]}'") from None


def ray_address(text: str) -> str:
    """An argparse type for a Ray cluster: auto, local, or host:port."""
    if text in ("auto", "local"):
        return text
    match = re.fullmatch(r"(ray://)?(\[[0-9a-fA-F:.]+\]|[\w.-]+):(\d{1,5})", text)
    if match is None or not 0 < int(match[3]) < 2**16:
        raise argparse.ArgumentTypeError(
            f"expected auto, local, or the address of a cluster's head such as 10.0.0.5:6379, not '{text}'"
        )
    if match[1]:
        raise argparse.ArgumentTypeError("a grid needs more than Ray's client; give this command on the head node")
    return text


def experiment_name(text: str) -> str:
    """An argparse type for an experiment of MLflow."""
    name = text.strip()
    if not name or not name.isprintable():
        raise argparse.ArgumentTypeError("expected a name, not an empty text or one that cannot be printed")
    return name


def check_tracking_uri(uri: str, *, option: str) -> None:
    """Raises ValueError, without the password, for what can be no tracking store of MLflow."""
    try:
        parts = urlsplit(uri)
        _ = parts.port  # read when it is asked for
        shown = masked(uri)
    except ValueError as error:
        raise ValueError(f"{option}: no valid URI ({error})") from None
    scheme = parts.scheme.partition("+")[0]
    if scheme not in (*SERVERS, *DATABASES, "databricks"):
        raise ValueError(
            f"{option} is '{shown}'; expected an MLflow server (http://...) or a database "
            f"({', '.join(f'{name}:' for name in DATABASES)} ...), such as sqlite:///mlflow.db"
        )
    if scheme in SERVERS and not parts.hostname:
        raise ValueError(f"{option} is '{shown}': it names no server")
    if scheme == "sqlite" and (parts.netloc or not parts.path.strip("/")):
        raise ValueError(f"{option} is '{shown}'; expected sqlite:/// and the path of a file")
