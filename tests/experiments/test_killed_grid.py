"""Trial workers, the scoring actor, the ledger's writer and the driver are killed at random; no record changes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from tests.experiments.running_grid import actors_below, start_grid, without_seconds

KINDS = {"worker": "ImplicitFunc", "scorer": "ScoringActor", "writer": "LedgerWriter", "driver": "ImplicitFunc"}
"""What is killed, and how Ray calls its process; the driver while there are trial workers."""
TINY = ["recipe.steps=5", "recipe.width=2", "recipe.batch_size=8", "rounds=4"]
SMALL = [
    *("--mismatch-ratios", "0.2", "--ood-ratios", "0.6", "--strategies", "random,vlpure", "--seeds", "0-1"),
    *(word for setting in TINY for word in ("--set", setting)),
]

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes through /proc (Linux)"),
    pytest.mark.timeout(3600),
]


def run_undisturbed(output: Path, words: list[str]) -> pd.DataFrame:
    process = start_grid(output, [*words, "--no-tracking"])
    out, err = process.communicate()
    assert (process.returncode, err) == (0, ""), out
    return pd.read_csv(output / "table4" / "rounds.csv")


def kill_again_and_again(output: Path, words: list[str], log: Path, num_kills: int, pause: float) -> Counter[str]:
    """Run the grid to its end while `num_kills` processes are killed, starting it again whenever the driver died.

    What is killed comes in turn, each turn in a random order.
    """
    chance = random.Random(0)
    kills: Counter[str] = Counter()
    bag: list[str] = []
    for _ in range(num_kills + 1):
        driver = start_grid(output, words, log=log)
        while driver.poll() is None:
            if kills.total() < num_kills:
                time.sleep(chance.uniform(0.5, 1.5) * pause)
                bag = bag or chance.sample(list(KINDS), len(KINDS))
                if kill_one(driver, bag[-1], chance):
                    kills[bag.pop()] += 1
            else:
                driver.wait(1800)
        if driver.returncode != -signal.SIGKILL:
            assert driver.returncode == 0, log.read_text()
            return kills
    raise AssertionError("the driver was killed more often than there were kills")


def kill_one(driver: subprocess.Popen[str], kind: str, chance: random.Random) -> bool:
    """Kill one of the driver's processes of that kind, or the driver, as soon as trials run; whether there was one."""
    while driver.poll() is None:
        victims = actors_below(driver.pid, KINDS[kind]) if actors_below(driver.pid, KINDS["worker"]) else []
        if victims:
            os.kill(driver.pid if kind == "driver" else chance.choice(victims), signal.SIGKILL)
            if kind == "driver":
                driver.wait(30)
            return True
        time.sleep(0.05)
    return False


def check_mirror(output: Path, calm: pd.DataFrame) -> tuple[int, int]:
    """MLflow has each trial once and each round once, with the accuracies of the table; how many of both."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("vlpure-table4")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    (parent,) = (run for run in runs if "vlpure.grid" in run.data.tags)
    children = [run for run in runs if run.data.tags.get("vlpure.trial_of") == parent.info.run_id]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(children) == len(runs) - 1
    expected = calm.set_index(["fingerprint", "round"])["accuracy"]
    mirrored = {}
    for run in children:
        for metric in client.get_metric_history(run.info.run_id, "accuracy"):
            key = (run.data.tags["fingerprint"], metric.step)
            assert key not in mirrored, f"{key} is there twice"
            mirrored[key] = metric.value
    assert mirrored == expected.to_dict()
    return len(children), len(mirrored)


@pytest.mark.parametrize(
    ("words", "num_kills", "pause"),
    [
        pytest.param(SMALL, 4, 0.5, id="small"),
        pytest.param([], 24, 6.0, id="demo", marks=pytest.mark.slow),
    ],
)
def test_no_kill_changes_a_record(
    tmp_path: Path,
    shared_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    num_kills: int,
    pause: float,
) -> None:
    monkeypatch.setenv("VLPURE_CACHE", str(shared_cache))
    calm = run_undisturbed(tmp_path / "calm", words)
    output, log = tmp_path / "disturbed", tmp_path / "log"
    kills = kill_again_and_again(output, words, log, num_kills, pause)
    disturbed = pd.read_csv(output / "table4" / "rounds.csv")
    pd.testing.assert_frame_equal(without_seconds(disturbed), without_seconds(calm))
    num_trials, num_rounds = check_mirror(output, calm)
    assert num_trials == disturbed["fingerprint"].nunique()
    assert "Traceback" not in log.read_text()
    print(f"\nkilled: {dict(kills)}; equal: {num_trials} trials, {num_rounds} rounds")
    assert set(kills) == set(KINDS), kills
    assert kills.total() >= num_kills
