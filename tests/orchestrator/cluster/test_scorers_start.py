"""Scoring actors that die while they get ready: how deaths are counted, and when one is given up. No Ray runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayTaskError

from data.console import RunStopped
from orchestrator.cluster import scorers
from orchestrator.cluster.scorer_actor import Load
from orchestrator.cluster.scorers import _wait_until_ready

KILLED = OutOfMemoryError("Memory on the node was 15.20GB used / 16.00GB limit (0.95)")
READY = "ready"


class Actor:
    """Each of its processes has a number of images left when it begins, and ends as it is scripted."""

    def __init__(self, *lives: tuple[int, Any]) -> None:
        self._lives = list(lives)
        self._number = 0
        self._begun = False
        self.prepare, self.load = Method(self._prepare), Method(self._load)

    def _prepare(self) -> Any:
        self._begun = True
        return Pending(self._end)

    def _load(self) -> Load:
        missing = self._lives[self._number][0] if self._begun else None
        return Load(queue=0, progress=0, doing="encoding", life=str(self._number), num_missing=missing)

    def _end(self) -> Any:
        end = self._lives[self._number][1]
        if end is not READY and not isinstance(end, (ActorUnavailableError, RayTaskError)):
            self._number, self._begun = self._number + 1, False
        elif isinstance(end, ActorUnavailableError):
            self._lives[self._number] = (0, READY)
        return end


class Method:
    """Of a remote actor."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.remote = call


class Pending:
    """The answer to `prepare`, which comes at the second look."""

    def __init__(self, end: Callable[[], Any]) -> None:
        self._end = end
        self.looks = 0

    def get(self) -> Any:
        end = self._end()
        if isinstance(end, Exception):
            raise end
        return end


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pretends Ray; the pauses that were made."""
    made: list[float] = []

    def wait(replies: list[Pending], **how: Any) -> tuple[list[Pending], list[Pending]]:
        for reply in replies:
            reply.looks += how["timeout"] == 0
        return [reply for reply in replies if reply.looks > 1], []

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "get", lambda reply, timeout=None: reply.get() if isinstance(reply, Pending) else reply)
    monkeypatch.setattr(scorers.time, "sleep", made.append)
    return made


def start(*actors: Actor) -> list[str]:
    said: list[str] = []
    _wait_until_ready(actors, timeout=60, tell=said.append, is_stopped=lambda: False)
    return said


def deaths(said: list[str]) -> list[str]:
    return [line for line in said if "before it was ready" in line]


def test_one_death_is_one_death(pauses: list[float]) -> None:
    said = start(Actor((100, ActorDiedError()), (100, READY)))
    assert deaths(said) == [
        "scoring service: an actor's process died before it was ready (death 1); what it encoded is kept, and it goes "
        "on in 1 s"
    ]
    assert said[-1].startswith("scoring service: 1 actor(s) ready (")
    assert pauses == [1.0]


def test_the_memory_monitors_figures_are_quoted() -> None:
    (line,) = deaths(start(Actor((100, KILLED), (100, READY)), Actor((5, READY))))
    assert "was killed by Ray's memory monitor (15.20 of 16.00 GB were in use) before it was ready (death 1)" in line


def test_an_actor_that_gets_on_may_die_as_often_as_it_likes(pauses: list[float]) -> None:
    """Ten processes in a row die, each with ten images fewer left: none of them in vain."""
    lives = [(100 - 10 * number, KILLED) for number in range(10)]
    assert len(deaths(start(Actor(*lives, (0, READY))))) == 10
    assert pauses == [1.0] * 10


def test_an_actor_that_does_not_get_on_is_given_up(pauses: list[float]) -> None:
    lives = [(100, KILLED), (90, KILLED), (90, KILLED), (90, KILLED), (90, KILLED)]
    with pytest.raises(RunStopped) as caught:
        start(Actor(*lives, (90, READY)))
    assert str(caught.value).startswith(
        "a scoring actor died 5 time(s) before it was ready, the last 4 without progress; its process was killed by "
        "Ray's memory monitor (15.20 of 16.00 GB were in use); most likely the machine lacks memory"
    )
    assert pauses == [1.0, 1.0, 2.0, 4.0]


def test_a_lost_connection_is_no_death() -> None:
    assert deaths(start(Actor((100, ActorUnavailableError("away", b"\0" * 16))))) == []


def test_an_actors_own_error_is_raised_as_it_is() -> None:
    wrapped = RayTaskError("prepare", "a trace", ValueError("no such weights"))  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match=r"^no such weights$") as caught:
        start(Actor((100, wrapped)))
    assert type(caught.value) is ValueError
