"""Watch, from a thread of Ray's process, whether Ray still lives: its own processes, its nodes, the ledger writer."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import ray
from ray.exceptions import RayError

from orchestrator.cluster.channel import Alive, Channel, Lost
from orchestrator.cluster.leftovers import find_process, processes

LOOK_EVERY = 1.0
ALIVE_EVERY = 5.0
"""Seconds between two queries of the cluster's nodes."""
VITAL = {"raylet": "the raylet, its node manager", "gcs_server": "the GCS, its control service"}
"""Names of the processes of a local Ray without which nothing goes on, and what they are."""


class Watch:
    """Runs from `start` to `stop`. It ends the process when Ray cannot go on: without this the driver waits for
    minutes (452 s, measured, for a dead raylet)."""

    def __init__(self, channel: Channel, look: Callable[[], None]) -> None:
        """Watch the processes of this Ray, which must be running; `look` is called every second."""
        self._channel = channel
        self._look = look
        self._stop = threading.Event()
        self._vital = [each for each in processes() if each.parent == os.getpid() and each.name in VITAL]
        # Two threads: a question to a cluster whose GCS is dead may block for minutes.
        self._threads = [
            threading.Thread(target=run, name="ray-watch", daemon=True)
            for run in (self._watch_processes, self._watch_cluster)
        ]

    def start(self) -> None:
        """Start watching."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop watching; to be called before Ray is shut down."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * LOOK_EVERY)

    def _watch_processes(self) -> None:
        while not self._stop.wait(LOOK_EVERY):
            for vital in self._vital:
                now = find_process(vital.pid)
                if (now is None or now.is_dead) and not self._stop.is_set():
                    self._channel.send(Lost(reason=f"{VITAL[vital.name]}, died"))
                    os._exit(1)

    def _watch_cluster(self) -> None:
        told = float("-inf")
        while not self._stop.wait(LOOK_EVERY):
            try:
                if time.monotonic() - told >= ALIVE_EVERY and _has_live_node():
                    self._channel.send(Alive())
                    told = time.monotonic()
                self._look()
            except RayError:  # a cluster in trouble does not answer; the supervisor counts the seconds
                continue


def _has_live_node() -> bool:
    return any(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
