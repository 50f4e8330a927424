"""Contradictions in records, for those without a checksum: what no trial can have produced.

A record of an earlier version is only as trustworthy as its arithmetic. A changed number that fits all others is not
found: one of the first decimals of an accuracy, another image in a query, a time, a strategy's own figure, a setting.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.ledger.records import RoundRecord

HASH = re.compile(r"[0-9a-f]{64}")
MOST_TEST_IMAGES = 10**6
"""Largest number of test images that accuracies may be shares of."""


class Implausible(ValueError):
    """No trial produced these records. The message names the record and what is wrong with it."""


def typed(values: Mapping[str, Any]) -> RoundRecord:
    """The record with these fields, each of its type. Raises Implausible."""
    try:
        record = RoundRecord(**values)
        _adapter().validate_json(json.dumps(values), strict=True)
    except (TypeError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise Implausible(f"is damaged ({reason})") from None
    return record


@cache
def _adapter() -> TypeAdapter[RoundRecord]:
    return TypeAdapter(RoundRecord)


def check_plausible(
    record: RoundRecord, before: Sequence[RoundRecord], trial: Mapping[str, Any], *, has_checksum: bool
) -> None:
    """Raise Implausible unless a trial with these settings can have produced the record after those `before`."""
    wrong = _wrong_alone(record)
    # Shares of the same test images have a common denominator; a detector's accuracy is no such share.
    if not has_checksum and trial.get("detection") is None and not _are_shares([*before, record]):
        wrong = f"accuracy {record.accuracy} is no share of test images"
    if record.round != len(before):
        wrong = f"it is of round {record.round}"
    wrong = wrong or (_wrong_after(record, before, trial) if before else _wrong_first(record))
    if wrong:
        raise Implausible(f"does not fit: {wrong}")


def _wrong_alone(record: RoundRecord) -> str | None:
    shares = {"accuracy": record.accuracy, "precision": record.precision} | {
        name: value for name, value in record.diagnostics.items() if name.startswith("purity_")
    }
    for name, share in shares.items():
        if share is not None and not 0 <= share <= 1:
            return f"{name} {share} is not between 0 and 1"
    counts = {"num_id": record.num_id, "num_ood": record.num_ood, "peak_memory_mib": record.peak_memory_mib}
    for name, number in {**counts, "time_ms": record.time_ms, **record.seconds, **record.service}.items():
        if not math.isfinite(number) or number < 0:
            return f"{name} {number} is negative"
    if any(index < 0 for index in record.queried_idx):
        return "it queries an image with a negative index"
    if not HASH.fullmatch(record.pool_checksum):
        return "its pool checksum is not a SHA-256"
    return None


def _are_shares(records: Sequence[RoundRecord]) -> bool:
    """Whether there is a number of test images, at most `MOST_TEST_IMAGES`, that all accuracies can be shares of."""
    shares = [Fraction(record.accuracy).limit_denominator(MOST_TEST_IMAGES) for record in records]
    if any(float(share) != record.accuracy for share, record in zip(shares, records, strict=True)):
        return False
    return math.lcm(*(share.denominator for share in shares)) <= MOST_TEST_IMAGES


def _wrong_first(record: RoundRecord) -> str | None:
    if record.queried_idx:
        return "the first round has a query"
    return None if record.precision is None else f"the first round has a precision, {record.precision}"


def _wrong_after(record: RoundRecord, before: Sequence[RoundRecord], trial: Mapping[str, Any]) -> str | None:
    """Contradiction to the records before, if any: bought labels must be queried images, none bought twice."""
    last, num_new = before[-1], len(record.queried_idx)
    if record.num_id < last.num_id or record.num_ood < last.num_ood:
        return "it has fewer labels than the round before"
    if trial.get("detection") is not None:  # its labels are drawn by the seed, and no record holds them
        return None
    if len(set(record.queried_idx)) < num_new or any(
        not set(each.queried_idx).isdisjoint(record.queried_idx) for each in before
    ):
        return "an image is queried twice"
    gained = record.num_id - last.num_id
    bought = gained + record.num_ood - last.num_ood
    if bought != num_new:
        return f"{bought} labels came with {num_new} queried images"
    budget = trial.get("budget")
    if isinstance(budget, int) and num_new > budget:
        return f"{num_new} images were queried with a budget of {budget}"
    if num_new and record.precision is None:
        return f"it has no precision, and {num_new} queried images"
    if record.precision is not None and (not num_new or not math.isclose(record.precision, gained / num_new)):
        return f"precision {record.precision} is not that of its {num_new} queried images"
    if (record.pool_checksum == last.pool_checksum) != (num_new == 0):
        return "its pool checksum contradicts its query"
    return None
