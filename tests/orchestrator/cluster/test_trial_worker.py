"""Why a trial was lost, as people are told; what the driver makes of kills by Ray's memory monitor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray.cloudpickle import dumps
from ray.exceptions import RayActorError, RayTaskError

from orchestrator.cluster.trial_worker import Follower, last_error, reason
from orchestrator.cluster.writer import LedgerMended
from orchestrator.plan import PlannedTrial
from orchestrator.settings.reading import make_trial

KILLED = RayActorError(
    error_msg="1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.2, ID: "
    "ab) was 15.20GB used / 16.00GB limit (0.950000)"
)
BY_MEMORY = "its worker process was killed by Ray's memory monitor (15.20 of 16.00 GB were in use)"


@dataclass
class FakeTrial:
    """What Tune knows of a trial, as far as it is asked."""

    pickled_error_file: str | None
    error_file: str | None
    config: dict[str, Any]
    trial_id: str = "t"
    num_failures: int = 0
    max_failures: int = 0


def lost(folder: Path, error: Exception) -> Any:
    """A trial that Tune lost to this error."""
    pickled, text = folder / "error.pkl", folder / "error.txt"
    pickled.write_bytes(dumps(error))
    text.write_text(f"Failure # 1\n{error}\n")
    return FakeTrial(str(pickled), str(text), {"spec": {"number": 0}}, num_failures=1)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KILLED, BY_MEMORY),
        (RayActorError(error_msg="gone"), "its worker process died (killed, out of memory, or its machine went away)"),
        (RayTaskError("run", "a long trace", LedgerMended("a.json was damaged")), "a.json was damaged"),  # type: ignore[no-untyped-call]
        (RayTaskError("run", "a long trace", OSError("disk on fire")), "OSError: disk on fire"),  # type: ignore[no-untyped-call]
    ],
)
def test_reasons_are_those_that_tune_noted(tmp_path: Path, error: Exception, said: str) -> None:
    assert reason(last_error(lost(tmp_path, error))) == said


def test_an_error_that_cannot_be_read_back_is_told_by_its_last_line(tmp_path: Path) -> None:
    trial = lost(tmp_path, ValueError("x"))
    Path(trial.pickled_error_file).write_bytes(b"no pickle")
    Path(trial.error_file).write_text("Traceback\n  File x\nsomebody.Strange: reason\n")
    assert reason(last_error(trial)) == "somebody.Strange: reason"


class Writer:
    """Notes who is held back, and for how long."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def tell(self, *words: Any) -> None:
        self.told.append(words)


class Listener:
    """Notes what it hears."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warn(self, line: str) -> None:
        self.lines.append(line)

    def stumble(self, planned: PlannedTrial, why: str) -> None:
        self.lines.append(f"stumble: {why}")

    def advance(self, planned: PlannedTrial, round_number: int, accuracy: float) -> None:
        self.lines.append(f"round {round_number}")


def test_kills_for_memory_are_told_and_waited_out_longer_each_time_without_a_round(tmp_path: Path) -> None:
    trial = make_trial(dataset="digits", mismatch_ratio=0.2, ood_ratio=0.6, strategy="random", seed=0)
    planned = PlannedTrial(trial=trial, fingerprint="f", data_fingerprint="d")
    writer, listener = Writer(), Listener()
    follower = Follower([planned], writer, listener, max_failures=3)  # type: ignore[arg-type]
    tune_trial = lost(tmp_path, KILLED)
    follower.on_trial_recover(0, [], tune_trial)
    tune_trial.num_failures = 2
    follower.on_trial_recover(1, [], tune_trial)
    follower.on_trial_result(2, [], tune_trial, {"round": 0, "accuracy": 0.5})
    tune_trial.num_failures = 3
    follower.on_trial_recover(3, [], tune_trial)
    assert writer.told == [("hold_back", "f", 5.0), ("hold_back", "f", 10.0), ("hold_back", "f", 5.0)]
    assert listener.lines == [
        f"{planned.label}: {BY_MEMORY}; it goes on in 5 s",
        f"{planned.label}: {BY_MEMORY}; it goes on in 10 s",
        "round 0",
        f"{planned.label}: {BY_MEMORY}; it goes on in 5 s",
    ]
    assert tune_trial.max_failures == 2 + 3


def test_a_damaged_ledger_file_is_told_even_without_verbose(tmp_path: Path) -> None:
    trial = make_trial(dataset="digits", mismatch_ratio=0.2, ood_ratio=0.6, strategy="random", seed=0)
    planned = PlannedTrial(trial=trial, fingerprint="f", data_fingerprint="d")
    listener = Listener()
    follower = Follower([planned], Writer(), listener, max_failures=3)  # type: ignore[arg-type]
    mended = LedgerMended("f.json was damaged")
    follower.on_trial_recover(0, [], lost(tmp_path, RayTaskError("run", "a long trace", mended)))  # type: ignore[no-untyped-call]
    assert listener.lines == [f"{planned.label}: f.json was damaged"]
