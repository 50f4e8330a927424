"""The scoring actor is killed again and again while trials of a real grid wait for it; no record changes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.experiments.running_grid import (
    actors_below,
    calm_rounds,
    grid_words,
    start_grid,
    wait_for,
    without_seconds,
)

SETTINGS = ["rounds=4", "recipe.steps=5", "recipe.width=2", "recipe.batch_size=8"]
AXES = {"mismatch_ratios": [0.2], "ood_ratios": [0.6], "strategies": ["vlpure"], "seeds": [0, 1]}
NUM_KILLS = 2
FROZEN = 1.0
"""Seconds that trials wait for a frozen actor before it is killed."""

pytestmark = pytest.mark.timeout(400)


def start(output: Path) -> subprocess.Popen[str]:
    """The same trials by table4.py, on a Ray of its own."""
    return start_grid(output, [*grid_words(AXES, SETTINGS), "--no-tracking"])


def scoring_actor(driver: subprocess.Popen[str], *, killed: set[int]) -> int | None:
    """The process that serves now."""
    return next((pid for pid in actors_below(driver.pid, "ScoringActor") if pid not in killed), None)


def until_ready(driver: subprocess.Popen[str]) -> str:
    """What is printed until the scoring service is ready."""
    assert driver.stdout is not None
    lines = []
    for line in driver.stdout:
        lines.append(line)
        if "actor(s) ready" in line:
            break
    return "".join(lines)


def all_trials_ask(output: Path) -> bool | None:
    """True when every trial has finished its round 0, so that its purity step is next."""
    states = [json.loads(path.read_text()) for path in (output / "ledger").glob("*.json")]
    return True if len(states) == 2 and all(state["records"] for state in states) else None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the actor's process through /proc (Linux)")
def test_killing_the_scoring_actor_while_trials_wait_changes_no_record(
    tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLPURE_CACHE", str(shared_cache))
    calm = calm_rounds(tmp_path / "calm", AXES, SETTINGS)
    output = tmp_path / "disturbed"
    driver = start(output)
    said = until_ready(driver)
    killed: set[int] = set()
    for _ in range(NUM_KILLS):
        pid = wait_for(lambda: scoring_actor(driver, killed=killed), driver, "a scoring actor")
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: all_trials_ask(output), driver, "a round 0 of each trial")
        time.sleep(FROZEN)
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)

    out, err = driver.communicate(timeout=200)
    assert (driver.returncode, err) == (0, ""), said + out
    disturbed = pd.read_csv(output / "table4" / "rounds.csv")
    assert len(disturbed) == 8
    pd.testing.assert_frame_equal(without_seconds(disturbed), without_seconds(calm))
    assert disturbed["seconds_query"].max() > FROZEN, "no trial was waiting when the actor was killed"
    # One line a trial and one for the service; a process that died is nothing a user has to act on.
    assert re.search(r"^scoring service: \d+ request\(s\), .* \(not counted: what 1 actor\(s\) did", out, re.MULTILINE)
    assert "raylet" not in out
