"""Records of earlier versions, without checksums: which changed digits are found."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.ledger.damaged import examine
from orchestrator.ledger.ledger import DamagedFile, Ledger
from tests.factories import make_planned, make_record

NAME = "a" * 64


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The file of a trial of three rounds, as versions before checksums wrote it; 51 test images."""
    ledger = Ledger(tmp_path / "ledger")
    trial = make_planned().trial.model_dump(mode="json")
    for number in range(3):
        record = make_record(
            number,
            accuracy=(30 + 7 * number) / 51,
            diagnostics={"purity_precision": 0.75, "logit_scale": 3.5} if number else {},
        )
        ledger.append(NAME, trial, record)
    path = ledger.folder / f"{NAME}.json"
    content = json.loads(path.read_text())
    del content["seal"]
    for record_values in content["records"]:
        del record_values["checksum"]
    path.write_text(json.dumps(content))
    return path


def test_it_is_read(old: Path) -> None:
    assert len(Ledger(old.parent).history(NAME)) == 3


def numbers(value: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(place, container, key) of every number in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        name = place if isinstance(value, list) else f"{place}.{key}".lstrip(".")
        if isinstance(inner, dict | list):
            yield from numbers(inner, name)
        elif isinstance(inner, int | float) and not isinstance(inner, bool):
            yield name, value, key


def changed_digits(number: float) -> Iterator[Any]:
    """The number with one digit changed, in all ways that change its value."""
    text = json.dumps(number)
    for at in [found.start() for found in re.finditer(r"\d", text)]:
        for digit in "0123456789":
            try:
                changed = json.loads(text[:at] + digit + text[at + 1 :])
            except ValueError:  # a leading zero
                continue
            if changed != number:
                yield changed


def test_which_changed_digits_are_found(old: Path) -> None:
    content = json.loads(old.read_text())
    found: dict[str, list[bool]] = {}
    for name, container, key in [each for record in content["records"] for each in numbers(record)]:
        before = container[key]
        for changed in changed_digits(before):
            container[key] = changed
            old.write_text(json.dumps(content))
            try:
                Ledger(old.parent).state(NAME)
            except DamagedFile:
                found.setdefault(name, []).append(True)
            else:
                found.setdefault(name, []).append(False)
        container[key] = before
    shares = {name: round(sum(each) / len(each), 2) for name, each in found.items()}
    assert shares == {
        "round": 1, "num_id": 1, "num_ood": 1, "precision": 1,  # they have to add up
        "accuracy": 0.85,  # all but the first decimals, which may leave a share of a few thousand test images
        "queried_idx": 0.71,  # all but those that name another image of the pool
        "diagnostics.purity_precision": 0.33,  # only values that are no share
        "diagnostics.logit_scale": 0, "environment.threads": 0, "peak_memory_mib": 0, "time_ms": 0,
        "seconds.query": 0, "seconds.train": 0, "seconds.evaluate": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("round", 2, "it is of round 2"),
        ("accuracy", 1.5, "accuracy 1.5 is not between 0 and 1"),
        ("accuracy", 0.7254901960784319, "accuracy 0.7254901960784319 is no share of test images"),
        ("precision", None, "it has no precision, and 20 queried images"),
        ("precision", 0.76, "precision 0.76 is not that of its 20 queried images"),
        ("num_id", 7, "it has fewer labels than the round before"),
        ("num_ood", 18, "21 labels came with 20 queried images"),
        ("queried_idx", [-1, *range(21, 40)], "it queries an image with a negative index"),
        ("queried_idx", [21, *range(21, 40)], "an image is queried twice"),
        ("diagnostics", {"purity_recall": -0.1}, "purity_recall -0.1 is not between 0 and 1"),
        ("pool_checksum", "0" * 64, "its pool checksum contradicts its query"),
        ("pool_checksum", "x" * 64, "its pool checksum is not a SHA-256"),
        ("seconds", {"train": -0.5}, "train -0.5 is negative"),
        ("service", {"seconds": -1}, "seconds -1 is negative"),
        ("peak_memory_mib", -1, "peak_memory_mib -1 is negative"),
        ("time_ms", -1, "time_ms -1 is negative"),
        ("environment", 3, "is damaged"),
        ("colour", "red", "it has other fields than a ledger entry"),
    ],
)
def test_what_no_trial_produces_is_told(old: Path, field: str, value: Any, told: str) -> None:
    content = json.loads(old.read_text())
    content["records"][1][field] = value
    old.write_text(json.dumps(content))
    with pytest.raises(DamagedFile, match=re.escape(told)):
        Ledger(old.parent).state(NAME)


def test_more_than_the_budget_is_no_query(old: Path) -> None:
    content = json.loads(old.read_text())
    content["trial"]["budget"] = 19
    old.write_text(json.dumps(content))
    with pytest.raises(DamagedFile, match="20 images were queried with a budget of 19"):
        Ledger(old.parent).state(NAME)


@pytest.mark.parametrize("is_old", [True, False])
def test_stages_of_a_detector_have_labels_without_queries(tmp_path: Path, is_old: bool) -> None:
    ledger = Ledger(tmp_path / "ledger")
    trial = make_planned().trial.model_dump(mode="json") | {"detection": {"labels": [0, 20, 60]}}
    for number, labels in enumerate((0, 20, 60)):
        stage = make_record(number, accuracy=1 / math.pi, precision=None, num_id=labels, num_ood=labels, queried_idx=[])
        ledger.append(NAME, trial, stage)
    path = ledger.folder / f"{NAME}.json"
    if is_old:
        content = json.loads(path.read_text())
        del content["seal"]
        for record in content["records"]:
            del record["checksum"]
        path.write_text(json.dumps(content))
    assert len(ledger.history(NAME)) == 3
    assert examine(path).problem is None
