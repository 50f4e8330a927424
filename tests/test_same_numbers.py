"""The comparison behind `make same-numbers`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.same_numbers import differences, read_ledger

RECORD = {"round": 0, "accuracy": 0.5, "queried_idx": [], "seconds": {"train": 1.0}, "time_ms": 7}


def write(folder: Path, **trials: list[dict[str, object]]) -> None:
    """A run's folder with a ledger file for each trial."""
    ledger = folder / "run" / "ledger"
    ledger.mkdir(parents=True)
    for name, records in trials.items():
        (ledger / f"{name}.json").write_text(json.dumps({"records": records}))


def test_only_numbers_are_compared(tmp_path: Path) -> None:
    write(tmp_path / "a", abc=[RECORD])
    write(tmp_path / "b", abc=[RECORD | {"seconds": {"train": 2.0}, "time_ms": 8}])
    assert differences(read_ledger(tmp_path / "a"), read_ledger(tmp_path / "b")) == []


def test_each_difference_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a", abc=[RECORD, RECORD | {"round": 1}], gone=[RECORD], short=[RECORD])
    write(tmp_path / "b", abc=[RECORD, RECORD | {"round": 1, "accuracy": 0.25}], new=[RECORD], short=[])
    assert differences(read_ledger(tmp_path / "a"), read_ledger(tmp_path / "b")) == [
        "gone: only in the base commit's ledger",
        "new: only in the working tree's ledger",
        "abc: round 1 differs in accuracy",
        "short: 1 rounds in the base commit, 0 in the working tree",
    ]
