"""The Ray cluster that an address means, and how this process connects to it. Importing this needs no Ray.

Ray decides by itself whether connections carry a token, by its version, by whether a token file exists, and by how
a cluster was found; the same command then works on one machine and hangs on the next. Here it is decided once, before
Ray is imported: a cluster of our own wants a token and listens on 127.0.0.1 only; another one is asked.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from data.console import to_stderr
from data.files import user_path

AUTH_MODE, AUTH_TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
TOKEN = "~/.ray/auth_token"
"""File in which Ray looks for a token by default."""
ONLY_THIS_MACHINE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's switch for machines whose firewall asks at every open port: with 0 its processes listen on 127.0.0.1 only."""

ADDRESS_TIMEOUT = 3.0
"""Seconds for a cluster's head to accept a connection."""
LONGEST_NOTE = 1000
"""Longest part of a note about a running cluster that is read, in characters."""
PROBE_TIMEOUT = 90.0
"""Seconds for a cluster to answer whether it wants a token; a busy machine needs several to import Ray."""
PROBE = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1]).check_alive([], timeout=30)
except AuthenticationError:
    print("closed")
else:
    print("open")
"""


def connect(cluster: str, address: str, **options: Any) -> None:
    """Connect this process to what `choose_cluster` made of `address`; `options` are further ones of `ray.init`.

    Raises ValueError if no cluster answers there.
    """
    import ray

    try:
        ray.init(address=cluster, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError) as error:
        raise ValueError(f"--address {address}: no Ray cluster answers there ({error})") from None


def choose_cluster(address: str, *, tell: Callable[[str], None] = to_stderr) -> str:
    """Address for `ray.init` from an `--address`: host:port of a running cluster, or `local` for one of our own.

    `auto` is the cluster of `$RAY_ADDRESS`, else the one that `ray start` started on this machine, else our own. Sets
    the environment variables by which this process authenticates, unless the user set `$RAY_AUTH_MODE`; to be called
    before Ray is imported. `tell` gets a line for people if a note about a running cluster is not trusted. Raises
    ValueError if no cluster answers, or if a token is missing.
    """
    found = running_cluster(address, tell=tell)
    if found is None:
        if "ray" not in sys.modules:  # read once, when Ray is imported; half of it would be worse than nothing
            os.environ.setdefault(ONLY_THIS_MACHINE, "0")
        if os.environ.setdefault(AUTH_MODE, "token") == "token" and not _has_token():
            # Ray would write one to the home folder, readable by all, which changes how later clusters start.
            os.environ[AUTH_TOKEN] = secrets.token_hex(32)
        return "local"
    if AUTH_MODE not in os.environ:
        os.environ[AUTH_MODE] = _auth_mode(found, said=address)
    return found


def running_cluster(address: str, *, tell: Callable[[str], None] = to_stderr) -> str | None:
    """Address host:port of the cluster meant; None if a new one is meant."""
    if "://" in address:
        raise ValueError(
            f"--address {address}: Ray Client connections end with the terminal; run the command on the head node "
            "(ray exec), with --address auto"
        )
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or "auto"
    if address == "local":
        return None
    if address == "auto":
        started = _started_here(tell)
        return started if started is not None and _accepts(started) else None
    if not _accepts(address):
        raise ValueError(
            f"--address {address}: no Ray cluster answers there; expected auto, local, or host:port of a head node"
        )
    return address


def _started_here(tell: Callable[[str], None]) -> str | None:
    """Address that `ray start` noted on this machine; the cluster may be gone.

    A cluster runs whatever its owner likes with the rights of those who connect, and anybody may write a note into a
    shared /tmp: it counts only if this user or root wrote it.
    """
    note = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    try:
        with os.fdopen(os.open(note, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf-8") as file:
            owner = os.fstat(file.fileno()).st_uid
            if owner in (os.getuid(), 0):
                return file.read(LONGEST_NOTE).strip() or None
    except (OSError, UnicodeDecodeError):
        return None
    tell(
        f"{note} names a running Ray cluster, but user {owner} wrote it, not you or root: it is not used; "
        "to use that cluster, give its --address"
    )
    return None


def _accepts(address: str) -> bool:
    """Whether anything listens at host:port."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        return False
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ADDRESS_TIMEOUT).close()
    except OSError:
        return False
    return True


def _has_token() -> bool:
    """Whether Ray will find a token: in the environment, in the file named there, or in its default file."""
    if os.environ.get(AUTH_TOKEN):
        return True
    path = os.environ.get(TOKEN_PATH)
    if path:
        os.environ[TOKEN_PATH] = path = str(user_path(path))  # Ray itself knows no ~
    try:
        return bool(user_path(path or TOKEN).read_text().strip())
    except (OSError, ValueError):  # no such file, no home folder, or a file that is not text
        return False


def _auth_mode(address: str, *, said: str) -> Literal["token", "disabled"]:
    """Whether connections to the cluster at `address` carry a token.

    Raises ValueError if it wants one and there is none, or if it is not a Ray cluster.
    """
    probe = subprocess.run(
        [sys.executable, "-c", PROBE, address],
        env=os.environ | {AUTH_MODE: "disabled"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PROBE_TIMEOUT,
        check=False,
    )
    answer = probe.stdout.strip()
    if answer == "open":
        return "disabled"
    if answer != "closed":
        reason = probe.stderr.strip().rpartition("\n")[2]
        raise ValueError(f"--address {said}: {address} is not a Ray cluster, or runs another Ray version ({reason})")
    if not _has_token():
        raise ValueError(
            f"--address {said}: the Ray cluster at {address} wants a token; copy ~/.ray/auth_token from its head node "
            "to this machine"
        )
    return "token"
