"""Records of a strategy with a purity step, as a fixture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.ledger.records import RoundRecord
from tests import factories


def _record(number: int, **changes: Any) -> RoundRecord:
    diagnostics = {"logit_scale": 3.7, "num_filled": 0} if number else {}
    return factories.make_record(number, **({"diagnostics": diagnostics} | changes))


@pytest.fixture
def make_record() -> Callable[..., RoundRecord]:
    """A record of a round, with any field changed."""
    return _record
