"""A run sets damaged ledger files aside by itself, and counts nothing of them that is not whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cluster.writer import LedgerMended, LedgerWriter
from orchestrator.ledger.ledger import DamagedFile, Ledger
from orchestrator.ledger.repair import mending
from tests.factories import make_record

NAME, OTHER = "a" * 64, "b" * 64
Damage = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A ledger with two trials of three rounds."""
    ledger = Ledger(tmp_path / "ledger")
    for name in (NAME, OTHER):
        for number in range(3):
            ledger.append(name, {"dataset": name, "rounds": 3}, make_record(number))
    return ledger.folder


def tear(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b'"accuracy"') + 20])


def flip(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"accuracy": 0.6', b'"accuracy": 0.7'))


def swap(path: Path) -> None:
    path.write_bytes((path.parent / f"{OTHER}.json").read_bytes())


def change_format(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 3'))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def bury(path: Path) -> None:
    path.write_text("[" * 100_000)


CASES = [(tear, 2), (flip, 1), (swap, 0), (change_format, 0), (empty, 0), (bury, 0)]


@pytest.mark.parametrize(("damage", "num_kept"), CASES)
def test_a_run_keeps_what_is_whole_and_names_the_file(folder: Path, damage: Damage, num_kept: int) -> None:
    damage(folder / f"{NAME}.json")
    damaged = (folder / f"{NAME}.json").read_bytes()
    with pytest.raises(DamagedFile, match=rf"{NAME}\.json cannot be read as a ledger file"):
        Ledger(folder).state(NAME)
    told: list[str] = []
    ledger = mending(Ledger(folder), told.append)
    assert ledger.history(NAME) == [make_record(number) for number in range(num_kept)]
    (line,) = told
    assert line.startswith(f"{folder / NAME}.json was damaged (")
    aside = folder / "damaged" / f"{NAME}.json"
    what = f"its {num_kept} whole round(s) are kept" if num_kept else "no round of it is whole"
    assert line.endswith(f": it is now {aside}; {what}, and the others are computed again")
    assert aside.read_bytes() == damaged
    for number in range(num_kept, 3):
        ledger.append(NAME, {"dataset": NAME, "rounds": 3}, make_record(number))
    assert Ledger(folder).state(NAME) == Ledger(folder).states()[0]
    assert Ledger(folder).history(NAME) == [make_record(number) for number in range(3)]
    assert Ledger(folder).history(OTHER) == Ledger(folder).history(NAME)
    assert len(told) == 1


def test_a_newer_versions_file_is_left_alone(folder: Path) -> None:
    path = folder / f"{NAME}.json"
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps(content | {"format": 2, "seal": {"version": 3, "checksum": "0" * 64}}))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"written by another version of this software \(format 2, ours is 1\)"):
        mending(Ledger(folder), pytest.fail).state(NAME)
    assert path.read_bytes() == before


def test_a_failure_is_noted_in_a_damaged_file(folder: Path) -> None:
    tear(folder / f"{NAME}.json")
    told: list[str] = []
    mending(Ledger(folder), told.append).fail(NAME, {"rounds": 3}, "no memory")
    state = Ledger(folder).state(NAME)
    assert state is not None
    assert (len(state.records), state.error, len(told)) == (2, "no memory", 1)


def test_the_writer_lets_the_trial_start_again_from_its_whole_rounds(folder: Path) -> None:
    writer = LedgerWriter(str(folder))
    tear(folder / f"{NAME}.json")
    # It had three rounds when it went on, and has two now: the gap is the disk's fault, not the trial's.
    with pytest.raises(LedgerMended, match=rf"^{folder}/{NAME}\.json was damaged .*; its 2 whole round\(s\) are kept"):
        writer.append(NAME, {"rounds": 4}, make_record(3))
    assert len(writer.history(NAME)) == 2
    tear(folder / f"{OTHER}.json")
    with pytest.raises(LedgerMended, match=OTHER):
        writer.history(OTHER)
    assert len(writer.history(OTHER)) == 2
    with pytest.raises(ValueError, match="came after only 2 rounds"):
        writer.append(NAME, {"rounds": 4}, make_record(3))
