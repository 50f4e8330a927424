"""Kept classifiers: what is damaged, or another's, is named and trained again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orchestrator.ledger.classifiers import ClassifierStore, StateDict

WEIGHTS = {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)}
OTHERS = {"weight": torch.zeros(2, 3), "steps": torch.tensor(0)}


def is_equal(kept: StateDict | None, weights: StateDict) -> bool:
    return kept is not None and all(torch.equal(kept[name], weights[name]) for name in weights)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(WEIGHTS["weight"].numpy().tobytes()) + 9] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def swap(path: Path) -> None:
    other = path.with_name("b.pt")
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


@pytest.mark.parametrize("damage", [flip, cut, empty, swap])
def test_a_damaged_classifier_is_not_used(
    damage: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ClassifierStore(tmp_path, "a")
    store.save(2, WEIGHTS)
    ClassifierStore(tmp_path, "b").save(2, OTHERS)
    assert is_equal(store.load(2), WEIGHTS)
    assert store.load(1) is None
    assert capsys.readouterr().err == ""
    damage(tmp_path / "a.pt")
    assert store.load(2) is None
    line = capsys.readouterr().err
    assert line.startswith(f"{tmp_path / 'a.pt'} is damaged (")
    assert line.endswith("; its classifier is trained again\n")
    assert line.count("\n") == 1


@pytest.mark.parametrize("damage", [flip, cut, empty, swap])
def test_a_damaged_classifier_of_round_0_is_trained_again_and_kept(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    store = ClassifierStore(tmp_path, "x")
    store.first("a", lambda: WEIGHTS)
    store.first("b", lambda: OTHERS)
    damage(tmp_path / "round0" / "a.pt")
    assert is_equal(store.first("a", lambda: WEIGHTS), WEIGHTS)
    assert is_equal(store.first("a", lambda: OTHERS), WEIGHTS)


def test_a_classifier_of_an_earlier_version_is_used(tmp_path: Path) -> None:
    torch.save({"round": 2, "weights": WEIGHTS}, tmp_path / "a.pt")
    assert is_equal(ClassifierStore(tmp_path, "a").load(2), WEIGHTS)
    flip(tmp_path / "a.pt")
    assert ClassifierStore(tmp_path, "a").load(2) is None
