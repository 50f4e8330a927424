"""Trials that wait after their round 1, in Ray's processes, until a test lets them go on."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial

GATE = "VLPURE_TEST_GATE"
"""Environment variable with the path of a file; trials go on when it is there."""
LONGEST = 120.0
"""Seconds after which they go on without it, for the test to fail on what it finds."""


def compute_held(planned: PlannedTrial, **arguments: Any) -> Any:
    """`compute_trial`, but for the wait: a quick trial would be over before anything can befall it in the middle."""
    from orchestrator.trial.compute import compute_trial

    report = arguments.pop("report")

    def report_and_wait(record: RoundRecord) -> None:
        report(record)
        until = time.monotonic() + LONGEST
        while record.round == 1 and not Path(os.environ[GATE]).exists() and time.monotonic() < until:
            time.sleep(0.05)

    return compute_trial(planned, report=report_and_wait, **arguments)
