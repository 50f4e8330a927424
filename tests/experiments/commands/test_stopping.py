"""Ctrl-C on a single trial, with real signals: the first stops it in order, the second at once; it goes on later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
WORDS = ["--strategy", "conf", "--rounds", "8", "--set", "recipe.width=2", "--set", "recipe.batch_size=4"]
SECOND = """
import os, signal, sys, time
from data.stopping import stoppable
signal.signal(getattr(signal, sys.argv[1]), signal.SIG_DFL)  # under nohup SIGHUP is ignored, and stays so
with stoppable("last words"):
    try:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(60)
    except KeyboardInterrupt:
        print("first", flush=True)
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(60)
        print("never")
"""


def start(output: Path | None, cache: Path, *words: str) -> subprocess.Popen[str]:
    """trial.py as a terminal starts it."""
    kept = ["-o", str(output)] if output else []
    return subprocess.Popen(
        [sys.executable, "experiments/trial.py", *WORDS, *words, *kept],
        cwd=ROOT, env=os.environ | {"VLPURE_CACHE": str(cache)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_heed_ctrl_c,
    )  # fmt: skip


def _heed_ctrl_c() -> None:
    """Undo what a shell does to the commands it starts in the background, so that the tests may run there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    yield from process.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_trial_stops_in_order_and_goes_on(tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = start(output, tmp_path / "cache", "--set", "recipe.steps=60")
    for line in lines(process):
        if line.startswith("    1 "):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == f"interrupted: finished rounds are in {output}, and the same command continues from there\n"
    (path,) = (output / "ledger").glob("*.json")
    before = json.loads(path.read_text())["records"]
    assert 2 <= len(before) < 8
    again = start(output, tmp_path / "cache", "--set", "recipe.steps=60")
    _, err = again.communicate(timeout=200)
    assert (again.returncode, err) == (0, "")
    after = json.loads(path.read_text())["records"]
    assert (len(after), after[: len(before)]) == (8, before)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_trial_that_keeps_nothing_says_so_and_one_stopped_early_leaves_nothing(tmp_path: Path) -> None:
    for output in (None, tmp_path / "deep" / "out"):
        process = start(output, tmp_path / "cache", "--set", "recipe.steps=1000000", "-v")
        assert process.stderr is not None
        assert process.stderr.readline().startswith("  step ")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 130
        last = "nothing is saved without --output-dir" if output is None else f"finished rounds are in {output}"
        assert f"interrupted: {last}" in err
        assert "Traceback" not in err
    assert not list(tmp_path.glob("deep/out/ledger/*"))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_second_signal_stops_at_once(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SECOND, name], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "first\n", "\nlast words\n")
