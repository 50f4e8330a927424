"""Tracking URIs: where MLflow's store is, whether it answers, and its form without secrets for people."""

from __future__ import annotations

import base64
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

URI_VARIABLE = "MLFLOW_TRACKING_URI"
"""MLflow's own variable; a password in it does not appear in a list of processes."""
SERVER_TIMEOUT = 5
"""Seconds a tracking server has to answer."""
_SECRET_IN_QUERY = re.compile(r"(?<![^?&;])([^=&;]*(?:password|passwd|token|secret)[^=&;]*=)[^&;]*", re.IGNORECASE)


class NotReachable(Exception):
    """The tracking server does not answer."""


def default_tracking_uri(output: Path) -> str:
    """Value of `$MLFLOW_TRACKING_URI`, else the SQLite store in an output folder."""
    return os.environ.get(URI_VARIABLE) or f"sqlite:///{output / 'mlflow.db'}"


def is_server(uri: str) -> bool:
    """Whether an MLflow server answers at `uri`; else it is a database that this process opens itself."""
    return uri.startswith(("http://", "https://"))


def masked(uri: str) -> str:
    """A tracking URI without password or token, for people."""
    parts = urlsplit(uri)
    netloc, query = parts.netloc, parts.query
    if "@" in netloc:
        login, _, host = netloc.rpartition("@")
        user, colon, _ = login.partition(":")
        if colon:
            netloc = f"{user}:***@{host}"
        elif is_server(uri):  # a server takes a token in the user's place
            netloc = f"***@{host}"
    if query:
        query = _SECRET_IN_QUERY.sub(r"\1***", query)
    if (netloc, query) == (parts.netloc, parts.query):
        return uri  # unchanged: joining the parts again would lose slashes of sqlite:////
    return urlunsplit(parts._replace(netloc=netloc, query=query))


def without_secrets(text: str, uri: str) -> str:
    """A text, such as a library's error, without the secrets of `uri`, however they are written in it."""
    text = text.replace(uri, masked(uri))
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets(uri: str) -> set[str]:
    """Password or token of `uri`, as written there and decoded."""
    parts = urlsplit(uri)
    login = parts.netloc.rpartition("@")[0]
    user, colon, password = login.partition(":")
    found = {password} if colon else {user} if is_server(uri) else set()
    found |= {match[0].partition("=")[2] for match in _SECRET_IN_QUERY.finditer(parts.query)}
    return {form for secret in found for form in (secret, unquote(secret)) if form}


def check_reachable(uri: str) -> None:
    """Raise NotReachable if `uri` is a server's and the server does not answer within seconds."""
    if not is_server(uri):
        return
    parts = urlsplit(uri)
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(
        urlunsplit(parts._replace(netloc=host, path=f"{parts.path.rstrip('/')}/health", query="", fragment=""))
    )
    if login:
        request.add_header("Authorization", "Basic " + base64.b64encode(unquote(login).encode()).decode())
    try:
        urllib.request.urlopen(request, timeout=SERVER_TIMEOUT).close()
    except (urllib.error.URLError, OSError) as error:
        raise NotReachable(f"no answer: {error}") from None
