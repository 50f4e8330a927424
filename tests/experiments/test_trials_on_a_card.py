"""Whole trials on a stand-in for a card: strategies by what they train and by what their query computes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.classifier import predict
from tests.card import Card, card
from tests.experiments.in_process import run_here

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="tests of the card itself are in tests/models")
SETTINGS = (
    "recipe.steps=8",
    *(f"options.contrastive.{setting}" for setting in ("epochs=2", "width=4", "batch_size=64")),
    *(f"options.{name}.epochs=4" for name in ("lfosa", "eoal", "eaoa", "bual", "e2oal")),
)


def words(settings: tuple[str, ...]) -> list[str]:
    """Settings as a command takes them."""
    return [word for setting in settings for word in ("--set", setting)]


TRIAL = ("--dataset", "digits", "--rounds", "2", *words(SETTINGS))


@pytest.fixture(scope="module")
def cache(shared_cache: Path) -> Path:
    """A cache with the digits' CLIPN and its features, made without a card."""
    assert run_here("trial", "--strategy", "vlpure", *TRIAL, cache=shared_cache).returncode == 0
    return shared_cache


@contextmanager
def passes_that_wait(on: Card) -> Iterator[list[str]]:
    """Gets what the host waited for within passes over images."""
    found: list[str] = []
    outputs = predict._Pass.outputs

    def watched(self: predict._Pass, size: int) -> list[list[Tensor]]:
        before = len(on.waits)
        rows = outputs(self, size)
        found.extend(on.waits[before:])
        return rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict._Pass, "outputs", watched)
        yield found


def rounds(strategy: str, cache: Path, output: Path, *more: str) -> tuple[list[dict[str, Any]], int]:
    """The records of a trial on the stand-in, and how many steps were replayed. Nothing may be reported on the way."""
    with card() as on, passes_that_wait(on) as waits:
        how = ("--gpus-per-trial", "1", "-q", "-o", str(output), *more)
        done = run_here("trial", "--strategy", strategy, *TRIAL, *how, cache=cache)
    assert (done.returncode, "kernel by kernel" in done.stderr) == (0, False), done.stderr
    assert waits == []
    (path,) = (output / "ledger").glob("*.json")
    return json.loads(path.read_text())["records"], on.replays


def of_numbers(record: dict[str, Any]) -> dict[str, Any]:
    """A record without times and descriptions of the machine."""
    return {
        name: value
        for name, value in record.items()
        if name not in ("seconds", "environment", "service", "time_ms", "checksum")
    }


LEARNS = ("random", "ll", "lfosa", "eoal", "eaoa", "bual", "e2oal", "e2oal-own")
"""Each trains with another objective, or another network."""
ASKS = ("alphamix", "badge", "bald", "coreset-balanced", "mqnet", "probcover", "uherding", "vlpure")
"""Each computes something else on the device."""


@pytest.mark.parametrize("strategy", LEARNS)
def test_recorded_steps_give_the_records_of_plain_ones(strategy: str, cache: Path, tmp_path: Path) -> None:
    recorded, replays = rounds(strategy, cache, tmp_path / "recorded")
    plain, none = rounds(strategy, cache, tmp_path / "plain", "--plain-steps")
    # All but the first three of each phase, in two trainings; LL's head has two phases. A detector's come on top.
    assert (replays, none) == ({"ll": 2 * 2, "random": 2 * 5, "e2oal-own": 2 * 5}.get(strategy, replays), 0)
    assert replays >= 4
    assert [rows[0]["environment"]["steps"] for rows in (recorded, plain)] == ["recorded", "plain"]
    assert [of_numbers(record) for record in recorded] == [of_numbers(record) for record in plain]


@pytest.mark.parametrize("strategy", ASKS)
def test_a_query_on_a_card(strategy: str, cache: Path, tmp_path: Path) -> None:
    records, _ = rounds(strategy, cache, tmp_path)
    assert len(records) == 2


@pytest.mark.parametrize("recipe", ["precision=bf16", "name=paper-clip-linear", "name=paper-clip-linear-crops"])
def test_a_recipe_on_a_card(recipe: str, cache: Path, tmp_path: Path) -> None:
    records, replays = rounds("conf", cache, tmp_path, *words((f"recipe.{recipe}",)))
    assert (len(records), replays) == (2, 2 * 5)
