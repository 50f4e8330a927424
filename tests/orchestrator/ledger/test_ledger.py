"""The ledger keeps each round once, whole, and says so when a file is not its own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.ledger import ledger as module
from orchestrator.ledger.ledger import Ledger, LedgerUnwritable
from orchestrator.ledger.records import RoundRecord

TRIAL = {"dataset": "digits", "seed": 0}
MakeRecord = Callable[..., RoundRecord]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def test_an_absent_trial_has_no_rounds(ledger: Ledger) -> None:
    assert ledger.history("a") == []
    assert ledger.states() == []


def test_rounds_come_back_as_they_were(ledger: Ledger, make_record: MakeRecord) -> None:
    records = [make_record(number) for number in range(3)]
    for record in records:
        ledger.append("a", TRIAL, record)
    assert Ledger(ledger.folder).history("a") == records
    assert [state.trial for state in ledger.states()] == [TRIAL]


def test_a_record_twice_does_no_harm(ledger: Ledger, make_record: MakeRecord) -> None:
    ledger.append("a", TRIAL, make_record(0))
    before = (ledger.folder / "a.json").read_text()
    ledger.append("a", TRIAL, make_record(0, seconds={"query": 9.0, "train": 9.0, "evaluate": 9.0}, time_ms=5))
    assert (ledger.folder / "a.json").read_text() == before


def test_a_round_with_other_numbers_is_refused(ledger: Ledger, make_record: MakeRecord) -> None:
    ledger.append("a", TRIAL, make_record(0))
    with pytest.raises(ValueError, match="round 0 of a is in the ledger with other numbers"):
        ledger.append("a", TRIAL, make_record(0, accuracy=0.1))


def test_a_gap_is_refused(ledger: Ledger, make_record: MakeRecord) -> None:
    ledger.append("a", TRIAL, make_record(0))
    with pytest.raises(ValueError, match="round 2 of a came after only 1 rounds"):
        ledger.append("a", TRIAL, make_record(2))


def test_a_failure_is_kept_until_the_trial_goes_on(ledger: Ledger, make_record: MakeRecord) -> None:
    ledger.append("a", TRIAL, make_record(0))
    ledger.fail("a", TRIAL, "ArithmeticError: diverged")
    state = ledger.state("a")
    assert state is not None
    assert (state.error, len(state.records)) == ("ArithmeticError: diverged", 1)
    ledger.append("a", TRIAL, make_record(1))
    state = ledger.state("a")
    assert state is not None
    assert (state.error, len(state.records)) == (None, 2)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 99}', '{"format": 1, "records": [{"round": 0}]}'])
def test_a_file_that_is_no_state_is_named(ledger: Ledger, damage: str) -> None:
    ledger.folder.mkdir()
    (ledger.folder / "a.json").write_text(damage)
    with pytest.raises(ValueError, match=r"a\.json is no readable ledger file"):
        ledger.state("a")


def test_a_write_that_fails_leaves_the_old_state(
    ledger: Ledger, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.append("a", TRIAL, make_record(0))

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(LedgerUnwritable, match=r"ledger cannot be written \(No space left on device\): free space"):
        ledger.append("a", TRIAL, make_record(1))
    with pytest.raises(LedgerUnwritable):
        ledger.fail("a", TRIAL, "no more")
    assert len(ledger.history("a")) == 1
    assert [path.name for path in ledger.folder.iterdir()] == ["a.json"]


def test_a_writer_that_outlives_its_run_takes_nothing_back(
    ledger: Ledger, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.append("a", TRIAL, make_record(0))
    old_writes, write = threading.Event(), module.write_text_atomically

    def write_slowly(path: Path, text: str) -> None:
        if threading.current_thread() is old:
            old_writes.set()
            time.sleep(0.2)
        write(path, text)

    monkeypatch.setattr(module, "write_text_atomically", write_slowly)
    old = threading.Thread(target=lambda: Ledger(ledger.folder).append("a", TRIAL, make_record(1)))
    old.start()
    assert old_writes.wait(10)
    ledger.append("a", TRIAL, make_record(1))
    ledger.append("a", TRIAL, make_record(2))
    old.join()
    assert [record.round for record in ledger.history("a")] == [0, 1, 2]


def test_numbers_that_are_not_finite_are_refused(ledger: Ledger, make_record: MakeRecord) -> None:
    with pytest.raises(ValueError, match="JSON"):
        ledger.append("a", TRIAL, make_record(0, accuracy=float("nan")))
    assert not ledger.folder.exists() or not list(ledger.folder.iterdir())


def test_the_file_is_plain_json(ledger: Ledger, make_record: MakeRecord) -> None:
    ledger.append("a", TRIAL, make_record(0))
    content = json.loads((ledger.folder / "a.json").read_text())
    assert content["records"][0]["accuracy"] == 0.5
