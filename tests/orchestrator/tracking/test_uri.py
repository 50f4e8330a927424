"""Tracking URIs: no secret is shown, servers are asked whether they are there."""

from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.tracking.uri import (
    NotReachable,
    check_reachable,
    default_tracking_uri,
    masked,
    without_secrets,
)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql+psycopg2://al:p%40ss@host:5432/db", "postgresql+psycopg2://al:***@host:5432/db"),
        ("postgresql://al@host/db?sslmode=require", "postgresql://al@host/db?sslmode=require"),
        ("postgresql://h/db?user=al&password=x1&port=3", "postgresql://h/db?user=al&password=***&port=3"),
        ("postgresql://h/db?sslPassword=x1", "postgresql://h/db?sslPassword=***"),
        ("https://token@host/x", "https://***@host/x"),
        ("https://host/x?access_token=t", "https://host/x?access_token=***"),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
        ("sqlite:////tmp/a@b.db", "sqlite:////tmp/a@b.db"),
        ("http://:pw@host", "http://:***@host"),
    ],
)
def test_secrets_are_masked(uri: str, shown: str) -> None:
    assert masked(uri) == shown


@pytest.mark.parametrize(
    ("text", "uri", "shown"),
    [
        ("no answer from postgresql://al:pw1@h/d", "postgresql://al:pw1@h/d", "no answer from postgresql://al:***@h/d"),
        ("connect(user=al, password=p@ss)", "postgresql://al:p%40ss@h/d", "connect(user=al, password=***)"),
        ("postgresql+psycopg://al:p%40ss@h", "postgresql://al:p%40ss@h/d", "postgresql+psycopg://al:***@h"),
        ("token tok17 is refused", "https://tok17@h", "token *** is refused"),
        ("key x1 in the query", "postgresql://h/db?password=x1", "key *** in the query"),
        ("user al is unknown", "postgresql://al@h/d", "user al is unknown"),
    ],
)
def test_a_librarys_words_lose_the_secrets(text: str, uri: str, shown: str) -> None:
    assert without_secrets(text, uri) == shown


def test_the_default_is_the_environments_or_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_tracking_uri(Path("/out")) == "sqlite:////out/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert default_tracking_uri(Path("/out")) == "http://127.0.0.1:5000"


class _Healthy(http.server.BaseHTTPRequestHandler):
    """Answers /health as MLflow does, and keeps the login it was given."""

    logins: list[str | None] = []  # noqa: RUF012 (the server makes a handler a request)

    def do_GET(self) -> None:
        self.logins.append(self.headers.get("Authorization"))
        self.send_response(200 if self.path in ("/health", "/below/health") else 404)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet."""


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_reachable_servers_and_others(port: int) -> None:
    check_reachable("sqlite:///anything")
    check_reachable(f"http://127.0.0.1:{port}/")
    check_reachable(f"http://127.0.0.1:{port}/below")
    with pytest.raises(NotReachable, match="404"):
        check_reachable(f"http://127.0.0.1:{port}/elsewhere")
    with pytest.raises(NotReachable):
        check_reachable("http://127.0.0.1:9")


def test_a_login_is_sent_as_a_login(port: int) -> None:
    _Healthy.logins.clear()
    check_reachable(f"http://al:p%40ss@127.0.0.1:{port}")
    assert _Healthy.logins == ["Basic " + base64.b64encode(b"al:p@ss").decode()]
