"""Work on shards, in this process and on a local Ray."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from orchestrator.cluster.shards import shard_runner


@dataclass
class Square:
    """Work that remembers which process did it."""

    refused: int = -1

    def __call__(self, shard: int) -> tuple[int, int]:
        if shard == self.refused:
            raise ValueError(f"shard {shard} is refused")
        return shard * shard, os.getpid()


def test_shards_are_worked_on_here_without_an_address() -> None:
    lines: list[str] = []
    with shard_runner(None, lines.append) as run:
        assert run(Square(), [3, 1, 2], what="squares", sizes=[1, 1, 1]) == [(n * n, os.getpid()) for n in (3, 1, 2)]
        with pytest.raises(ValueError, match="shard 1 is refused"):
            run(Square(refused=1), [3, 1, 2], what="squares", sizes=[1, 1, 1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # Ray Data's, about its own settings
def test_shards_are_worked_on_by_ray_in_their_order(capfd: pytest.CaptureFixture[str]) -> None:
    with shard_runner("local", print) as run:
        found = run(Square(), list(range(5)), what="squares", sizes=[1] * 5)
        assert [square for square, _ in found] == [0, 1, 4, 9, 16]
        assert os.getpid() not in {process for _, process in found}
        with pytest.raises(ValueError, match=r"^shard 3 is refused$"):
            run(Square(refused=3), list(range(5)), what="squares", sizes=[1] * 5)
    assert capfd.readouterr().err == ""


def test_an_address_where_nothing_answers_is_refused() -> None:
    with pytest.raises(ValueError, match="no Ray cluster answers there"), shard_runner("127.0.0.1:1", print):
        pass
