"""A headless Chromium, driven over the WebDriver protocol: plain HTTP to chromedriver, no further package."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--disable-dev-shm-usage",
)  # fmt: skip
ENTER, ESCAPE = "\ue007", "\ue00c"
"""Keys, as WebDriver writes them."""


def is_there() -> bool:
    """Whether Chromium and its driver are installed."""
    return shutil.which("chromium") is not None and shutil.which("chromedriver") is not None


class Browser:
    """One page of one browser."""

    def __init__(self, port: int, arguments: list[str]) -> None:
        self._root = f"http://127.0.0.1:{port}"
        options = {"binary": shutil.which("chromium"), "args": arguments}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._session = ""
        created = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{created['sessionId']}"

    def open(self, path: Path) -> None:
        """Load a file."""
        self._send("POST", "/url", {"url": path.as_uri()})

    def run(self, script: str) -> Any:
        """What a function with this body returns."""
        return self._send("POST", "/execute/sync", {"script": script, "args": []})

    def click(self, selector: str) -> None:
        """A real click on the first element that fits, after scrolling to it."""
        self._send("POST", f"/element/{self._find(selector)}/click", {})

    def press(self, selector: str, keys: str) -> None:
        """Keys, typed while the element has the focus."""
        self._send("POST", f"/element/{self._find(selector)}/value", {"text": keys})

    def console(self) -> list[str]:
        """What the page wrote to the console since the last call, errors of loading among it."""
        return [entry["message"] for entry in self._send("POST", "/se/log", {"type": "browser"})]

    def emulate(self, *, dark: bool = False, print_: bool = False) -> None:
        """Which media the style sheet sees."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        parameters = {"media": "print" if print_ else "screen", "features": features}
        self._send("POST", "/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": parameters})

    def resize(self, width: int | None, height: int = 1000) -> None:
        """The window as wide as a small screen; None: as it was."""
        if width is None:
            self._send("POST", "/goog/cdp/execute", {"cmd": "Emulation.clearDeviceMetricsOverride", "params": {}})
            return
        parameters = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
        self._send("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": parameters})

    def screenshot(self, path: Path) -> None:
        """The window as a PNG."""
        path.write_bytes(base64.b64decode(self._send("GET", "/screenshot")))

    def close(self) -> None:
        """End the browser."""
        self._send("DELETE", "")

    def _find(self, selector: str) -> str:
        found = self._send("POST", "/element", {"using": "css selector", "value": selector})
        return str(next(iter(found.values())))

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"{self._root}{self._session}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(error.read().decode()[:2000]) from None


@contextmanager
def browser(folder: Path, *, width: int = 1300, height: int = 1000) -> Iterator[Browser]:
    """A browser with an empty profile in `folder`; it ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    driver = subprocess.Popen(
        ["chromedriver", f"--port={port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HOME": str(folder)},
    )
    try:
        _wait(port)
        opened = Browser(port, [*FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"])
        try:
            yield opened
        finally:
            opened.close()
    finally:
        driver.terminate()
        driver.wait(timeout=30)


def _wait(port: int) -> None:
    """Until the driver listens."""
    for _ in range(300):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("chromedriver does not listen")
