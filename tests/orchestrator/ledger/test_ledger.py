"""The ledger keeps each round once, whole, and says so when a file is not its own."""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data.sealed import seal
from orchestrator.ledger import ledger as module
from orchestrator.ledger.damaged import examine
from orchestrator.ledger.ledger import Ledger, LedgerUnwritable, record_checksum
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


def test_locks_that_fail_end_the_run_and_not_the_trial(
    ledger: Ledger, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    ledger.append("a", TRIAL, make_record(0))
    monkeypatch.setattr("fcntl.flock", fail)
    for write in (lambda: ledger.append("a", TRIAL, make_record(1)), lambda: ledger.fail("a", TRIAL, "x")):
        with pytest.raises(LedgerUnwritable, match=r"without locks \(No locks available\).*recorded so far is kept$"):
            write()
    assert ledger.history("a") == [make_record(0)]


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
    with pytest.raises(ValueError, match=r"a\.json cannot be read as a ledger file"):
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


def flips(content: bytes) -> Iterator[bytes]:
    """The content with one bit flipped: each byte, one of its eight bits."""
    for at in range(len(content)):
        yield content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]


def test_any_flipped_bit_is_noticed_by_whoever_reads(ledger: Ledger, make_record: MakeRecord) -> None:
    for number in range(2):
        ledger.append("a", TRIAL, make_record(number))
    path, state = ledger.folder / "a.json", ledger.state("a")
    assert state is not None
    whole, num_noticed = path.read_bytes(), 0
    for flipped in flips(whole):
        path.write_bytes(flipped)
        try:
            assert ledger.state("a") == state, flipped  # a blank became another blank
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
            num_noticed += 1
        found = examine(path)
        kept = found.state.records if found.state else ()
        assert kept == state.records[: len(kept)], flipped
        assert found.problem or found.state == state, flipped
    assert len(whole) - num_noticed < whole.count(b" ")


def test_files_that_changed_places_are_noticed(ledger: Ledger, make_record: MakeRecord) -> None:
    for name in ("a", "b"):
        ledger.append(name, TRIAL, make_record(0))
    (ledger.folder / "a.json").rename(ledger.folder / "c.json")
    (ledger.folder / "b.json").rename(ledger.folder / "a.json")
    with pytest.raises(ValueError, match=r"a\.json cannot be read as a ledger file \(it belongs to another trial"):
        ledger.states()
    with pytest.raises(ValueError, match=r"c\.json cannot be read as a ledger file \(it belongs to another trial"):
        ledger.state("c")


def test_a_record_of_another_trial_is_noticed(ledger: Ledger, make_record: MakeRecord) -> None:
    for name, accuracy in (("a", 0.5), ("b", 0.75)):
        ledger.append(name, TRIAL, make_record(0, accuracy=accuracy))
    a, b = (json.loads((ledger.folder / f"{name}.json").read_text()) for name in ("a", "b"))
    a["records"] = b["records"]
    (ledger.folder / "a.json").write_text(json.dumps(a))
    with pytest.raises(ValueError, match="the checksum of round 0 is not that of its content"):
        ledger.state("a")


def without_checksums(path: Path) -> None:
    """Make of a file what versions before seals wrote."""
    content = json.loads(path.read_text())
    del content["seal"]
    for record in content["records"]:
        del record["checksum"]
    path.write_text(json.dumps(content))


def test_a_file_of_an_earlier_version_is_read_and_gets_checksums_when_it_grows(
    ledger: Ledger, make_record: MakeRecord
) -> None:
    path = ledger.folder / "a.json"
    ledger.append("a", TRIAL, make_record(0))
    without_checksums(path)
    assert ledger.history("a") == [make_record(0)]
    assert examine(path).problem is None
    ledger.append("a", TRIAL, make_record(1))
    content = json.loads(path.read_text())
    assert ["checksum" in record for record in content["records"]] == [True, True]
    without_checksums(path)
    path.rename(ledger.folder / "b.json")
    with pytest.raises(ValueError, match=r"b\.json cannot be read as a ledger file \(it belongs to another trial"):
        ledger.state("b")


@pytest.mark.parametrize("change", ["a field of the file", "a field of a record", "a later version"])
def test_a_newer_versions_file_is_no_damage(
    change: str, ledger: Ledger, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.append("a", TRIAL, make_record(0))
    path = ledger.folder / "a.json"
    content = json.loads(path.read_text())
    records = content.pop("records")
    if change == "a field of the file":
        header = {name: content[name] for name in content if name != "seal"} | {"note": 1}
        content = {**seal(header, "a"), "records": records}
    elif change == "a field of a record":
        values = {name: value for name, value in records[0].items() if name != "checksum"} | {"colour": "red"}
        content["records"] = [values | {"checksum": record_checksum(values, "a")}]
    else:
        header = {name: content[name] for name in content if name != "seal"}
        with monkeypatch.context() as patch:
            patch.setattr("data.sealed.VERSION", 9)
            content = {**seal(header, "a"), "records": records}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"a newer version of this software wrote it.*; use that version"):
        ledger.state("a")
    found = examine(path)
    assert (found.is_ours, found.state) == (False, None)
    assert "a newer version of this software wrote it" in str(found.problem)
