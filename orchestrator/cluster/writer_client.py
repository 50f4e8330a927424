"""How the driver keeps a ledger writer alive, and how it and the trials talk to the one that lives now.

Ray's memory monitor kills actors that Ray may restart before all others, the newest first, and goes on until enough
memory is free (policy "by time", Ray 2.56 and later). Our writer, of 60 MB, would die with each scoring actor of 600.
So Ray may not restart it and it is the oldest actor, which makes it the last to be killed; the driver replaces it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster.writer import LedgerWriter

NAME = "ledger-writer-{}"
"""Name of the actors in their grid's namespace. Numbered, since a dead actor keeps its name while anyone holds it."""
WRITER_TIMEOUT = 300.0
"""Seconds to wait for an answer of the writer; one that died is replaced within seconds."""
PAUSE = 0.2
"""Seconds between two looks for the writer that takes the place of a dead one."""


class RemoteWriter:
    """Client of the ledger writer that lives now."""

    def __init__(self, actor: Any, number: int) -> None:
        self._actor = actor
        self._number = number

    def ask(self, method: str, *arguments: Any) -> Any:
        """Answer of the writer; a call lost to its death is repeated, which is harmless for all of them.

        Raises the writer's own errors as they are, and RayActorError or GetTimeoutError when none answers.
        """
        deadline = time.monotonic() + WRITER_TIMEOUT
        while True:
            try:
                left = max(1.0, deadline - time.monotonic())
                return ray.get(getattr(self._actor, method).remote(*arguments), timeout=left)
            except RayTaskError as error:  # wrapped with a remote traceback
                raise error.cause from None
            except (RayActorError, OutOfMemoryError):
                if time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE)
            with suppress(ValueError):  # the next one is not there yet, or this one was only away for a moment
                self._actor = ray.get_actor(NAME.format(self._number + 1))
                self._number += 1

    def tell(self, method: str, *arguments: Any) -> None:
        """Let the writer know something, without waiting for it."""
        getattr(self._actor, method).remote(*arguments)


class WriterKeeper:
    """Starts the writer of a ledger, on this machine, where its files are, and replaces it when it dies."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._number = 0
        self._actor = self._start()
        self._ping: Any = None

    @property
    def writer(self) -> RemoteWriter:
        """Client for processes that have something to write."""
        return RemoteWriter(self._actor, self._number)

    def look(self) -> None:
        """Replace the writer if it died; to be called every now and then."""
        if self._ping is None:
            self._ping = self._actor.ping.remote()
        if not ray.wait([self._ping], timeout=0)[0]:
            return  # busy, or frozen
        ping, self._ping = self._ping, None
        try:
            ray.get(ping)
        except (ActorDiedError, OutOfMemoryError):  # killed by the memory monitor, it gives the second for ever
            self._number += 1
            self._actor = self._start()
        except RayActorError:
            return  # away for a moment

    def _start(self) -> Any:
        here = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=False)
        return (
            ray.remote(LedgerWriter)
            .options(name=NAME.format(self._number), num_cpus=0, max_restarts=0, scheduling_strategy=here)
            .remote(self._folder)
        )
