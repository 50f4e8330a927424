"""The factories as fixtures, for tests of what a user is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial
from tests.factories import make_planned, make_record


@pytest.fixture
def planned_trial() -> Callable[..., PlannedTrial]:
    """A planned trial, with any setting changed."""
    return make_planned


@pytest.fixture
def record() -> Callable[..., RoundRecord]:
    """A record, with any field changed."""
    return make_record
