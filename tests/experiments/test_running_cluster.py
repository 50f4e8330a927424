"""table4.py on a cluster that was started by hand: two grids at the same time, twice in a row."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.experiments.running_grid import ROOT

TINY = [
    *("--mismatch-ratios", "0.2", "--ood-ratios", "0.6", "--seeds", "0-1", "--rounds", "3"),
    *("--set", "recipe.steps=5", "--set", "recipe.width=2", "--set", "recipe.batch_size=8"),
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def running_cluster(monkeypatch: pytest.MonkeyPatch, shared_cache: Path) -> Iterator[None]:
    """`ray start --head`, found by `--address auto` of this test's commands only."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:  # short: paths of sockets hold 107 letters
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.setenv("VLPURE_CACHE", str(shared_cache))
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        ray = str(Path(sys.executable).with_name("ray"))
        words = ["start", "--head", "--port", "0", "--num-cpus", "2", "--include-dashboard", "false", "--block"]
        log = Path(folder) / "log"
        with log.open("w") as out:
            head = subprocess.Popen(
                [ray, *words, "--node-ip-address", "127.0.0.1"], stdout=out, stderr=out, start_new_session=True
            )
        try:
            deadline = time.monotonic() + 120
            while not (Path(folder) / "ray" / "ray_current_cluster").exists():
                assert head.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield
        finally:
            os.killpg(head.pid, signal.SIGTERM)
            try:
                head.wait(60)
            finally:
                if head.poll() is None:
                    os.killpg(head.pid, signal.SIGKILL)


def start(output: Path, strategies: str) -> subprocess.Popen[str]:
    words = ["experiments/table4.py", "--preset", "demo", "--address", "auto", "--strategies", strategies, *TINY]
    return subprocess.Popen(
        [sys.executable, *words, "-o", str(output)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_grids_at_the_same_time_twice_in_a_row(running_cluster: None, tmp_path: Path) -> None:
    grids = {tmp_path / "a": "random,vlpure", tmp_path / "b": "conf,vlpure"}
    for finished in (0, 4):
        running = {output: start(output, strategies) for output, strategies in grids.items()}
        for output, process in running.items():
            out, err = process.communicate(timeout=600)
            assert (process.returncode, err) == (0, ""), out
            assert f"4 trials, {finished} finished" in out
            assert ("Ray: 1 node(s), 2 CPUs" in out) == (finished == 0)
            trials = pd.read_csv(output / "table4" / "trials.csv")
            assert trials["status"].tolist() == ["finished"] * 4
    shared = [pd.read_csv(output / "table4" / "rounds.csv").query("strategy == 'vlpure'") for output in grids]
    columns = ["seed", "round", "accuracy", "precision", "fingerprint"]
    pd.testing.assert_frame_equal(*(frame[columns].reset_index(drop=True) for frame in shared))
