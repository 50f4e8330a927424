"""A writer that dies is replaced, whatever Ray calls its death, and those who ask it find the next one. No Ray runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayTaskError

from orchestrator.cluster import writer_client
from orchestrator.cluster.writer_client import RemoteWriter, WriterKeeper

DEATHS = [ActorDiedError(), OutOfMemoryError("15.20GB used / 16.00GB limit")]


class Actor:
    """Answers with its name, or raises what it is to."""

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name, self.error = name, error

    def __getattr__(self, method: str) -> Any:
        return Method(lambda *arguments: self)


class Method:
    """Of a remote actor."""

    def __init__(self, call: Callable[..., Actor]) -> None:
        self.remote = call


class PretendRay:
    """Actors by name; answers come at once."""

    def __init__(self, **actors: Actor) -> None:
        self.actors = actors

    def wait(self, replies: list[Actor], **how: Any) -> tuple[list[Actor], list[Actor]]:
        return replies, []

    def get(self, reply: Actor, **how: Any) -> str:
        if reply.error is not None:
            raise reply.error
        return reply.name

    def get_actor(self, name: str) -> Actor:
        if name not in self.actors:
            raise ValueError("nobody")
        return self.actors[name]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_client, "PAUSE", 0.0)


@pytest.mark.parametrize("death", DEATHS)
def test_the_keeper_replaces_a_dead_writer(monkeypatch: pytest.MonkeyPatch, death: Exception) -> None:
    monkeypatch.setattr(writer_client, "ray", PretendRay())
    made: list[Actor] = []

    def start(keeper: WriterKeeper) -> Actor:
        made.append(Actor(f"writer {keeper._number}"))
        return made[-1]

    monkeypatch.setattr(WriterKeeper, "_start", start)
    keeper = WriterKeeper("folder")
    keeper.look()
    assert len(made) == 1
    made[0].error = ActorUnavailableError("away", b"\0" * 16)
    keeper.look()
    assert len(made) == 1
    made[0].error = death
    keeper.look()
    keeper.look()
    assert [each.name for each in made] == ["writer 0", "writer 1"]
    assert keeper.writer.ask("ping") == "writer 1"


@pytest.mark.parametrize("death", DEATHS)
def test_who_asks_a_dead_writer_finds_the_next_that_lives(monkeypatch: pytest.MonkeyPatch, death: Exception) -> None:
    first = Actor("first", death)
    ray = PretendRay(**{"ledger-writer-1": Actor("second", death), "ledger-writer-2": Actor("third")})
    monkeypatch.setattr(writer_client, "ray", ray)
    writer = RemoteWriter(first, 0)
    assert writer.ask("history", "f") == "third"
    assert writer.ask("history", "f") == "third"


def test_a_writers_own_error_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_client, "ray", PretendRay())
    wrapped = RayTaskError("append", "a trace", ValueError("a gap"))  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match=r"^a gap$") as caught:
        RemoteWriter(Actor("x", wrapped), 0).ask("append")
    assert type(caught.value) is ValueError


def test_nobody_answers_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_client, "ray", PretendRay())
    monkeypatch.setattr(writer_client, "WRITER_TIMEOUT", 0.01)
    with pytest.raises(ActorDiedError):
        RemoteWriter(Actor("x", ActorDiedError()), 0).ask("append")
