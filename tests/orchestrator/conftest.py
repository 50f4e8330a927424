"""Records and trials for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.ledger.records import RoundRecord


def _record(number: int, **changes: Any) -> RoundRecord:
    values: dict[str, Any] = {
        "round": number,
        "accuracy": 0.5 + number / 10,
        "precision": 0.75 if number else None,
        "num_id": 8 + 15 * number,
        "num_ood": 12 + 5 * number,
        "queried_idx": list(range(20 * number, 20 * number + 20)) if number else [],
        "diagnostics": {"logit_scale": 3.7, "num_filled": 0} if number else {},
        "pool_checksum": f"{number:064d}",
        "seconds": {"query": 0.1, "train": 1.0, "evaluate": 0.2},
        "peak_memory_mib": 100,
        "environment": {"device": "cpu", "threads": 1},
        "time_ms": 1_700_000_000_000 + number,
    }
    return RoundRecord(**(values | changes))


@pytest.fixture
def make_record() -> Callable[..., RoundRecord]:
    """A record of a round, with any field changed."""
    return _record
