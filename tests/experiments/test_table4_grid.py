"""A small Table 4 through a real local Ray and a real MLflow: interrupted, continued, grown, and given once more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from tests.experiments.in_process import Done, run_here
from tests.experiments.running_grid import calm_rounds, grid_words, start_grid, without_seconds

SETTINGS = ["rounds=3", "recipe.steps=5", "recipe.width=2", "recipe.batch_size=8"]
AXES = {"mismatch_ratios": [0.2], "ood_ratios": [0.6], "strategies": ["random", "vlpure"], "seeds": [0, 1]}
GROWN = AXES | {"seeds": [0, 1, 2]}

pytestmark = pytest.mark.timeout(400)


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """A grid of four trials, and what its command said until Ctrl-C after the first trial ended it."""

    output: Path
    cache: Path
    done: subprocess.CompletedProcess[str]
    num_finished: int


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Interrupted:
    """A process of its own: only that can be interrupted as a terminal does it."""
    output = tmp_path_factory.mktemp("grid") / "out"
    process = start_grid(output, grid_words(AXES, SETTINGS), cache=shared_cache)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("[1/4]"):
            break
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
    killer = threading.Timer(120, process.kill)
    killer.start()
    out, err = process.communicate()
    killer.cancel()
    done = Done(process.args, process.returncode, "".join([*lines, out]), err)
    status = pd.read_csv(output / "table4" / "trials.csv")["status"]
    return Interrupted(output=output, cache=shared_cache, done=done, num_finished=int((status == "finished").sum()))


@pytest.fixture(scope="module")
def grown(interrupted: Interrupted) -> Done:
    """The same command with a seed more."""
    return again(interrupted)


def again(interrupted: Interrupted) -> Done:
    words = ["--preset", "demo", "--address", "local", *grid_words(GROWN, SETTINGS), "-o", str(interrupted.output)]
    return run_here("table4", *words, cache=interrupted.cache)


@pytest.fixture
def complete(interrupted: Interrupted, grown: Done) -> Path:
    """The output folder of the grown grid of six trials."""
    assert grown.returncode == 0, grown.stderr
    return interrupted.output


def rounds(output: Path) -> pd.DataFrame:
    """rounds.csv without the columns that may differ, in a fixed order."""
    return without_seconds(pd.read_csv(output / "table4" / "rounds.csv"))


def test_ctrl_c_stops_it_in_order(interrupted: Interrupted) -> None:
    done = interrupted.done
    assert done.returncode == 130, f"{done.stdout}\n{done.stderr}"
    assert "4 trials, 0 finished, 4 to run (12 rounds)" in done.stdout
    assert "every finished round is saved" in done.stderr
    assert "Traceback" not in done.stderr
    assert 1 <= interrupted.num_finished < 4


def test_it_goes_on_grows_and_has_nothing_left_to_do(interrupted: Interrupted, grown: Done) -> None:
    assert (grown.returncode, grown.stderr) == (0, ""), grown.stdout
    num = interrupted.num_finished
    assert f"6 trials, {num} finished, {6 - num} to run (" in grown.stdout
    assert f"[{6 - num}/{6 - num}]" in grown.stdout
    assert grown.stdout.count("aubc") >= 6 - num
    trials = pd.read_csv(interrupted.output / "table4" / "trials.csv")
    # As a trial leaves it that is stopped between its last record and its end.
    left = interrupted.output / "classifiers" / f"{trials['fingerprint'][0]}.pt"
    left.touch()
    once_more = again(interrupted)
    assert not left.exists()
    assert "6 trials, 6 finished, 0 to run (0 rounds)" in once_more.stdout
    assert (once_more.returncode, once_more.stderr) == (0, "")


def test_files_of_a_complete_grid(complete: Path) -> None:
    trials = pd.read_csv(complete / "table4" / "trials.csv")
    assert trials["status"].tolist() == ["finished"] * 6
    assert trials["fingerprint"].nunique() == 6
    assert len(rounds(complete)) == 18
    for name in ("table4.md", "table4.csv", "curves.png"):
        assert (complete / "table4" / name).stat().st_size > 100
    assert not list((complete / "classifiers").iterdir())
    first = rounds(complete)
    assert (first["num_id"] + first["num_ood"] == 20 * (first["round"] + 1)).all()
    assert first.loc[first["round"] == 0, "precision"].isna().all()
    tuned = first.loc[(first["strategy"] == "vlpure") & (first["round"] > 0), "logit_scale"]
    assert tuned.between(0.1, 100).all()


def test_the_grid_in_this_process_gives_the_same_rounds(
    complete: Path, tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLPURE_CACHE", str(shared_cache))
    pd.testing.assert_frame_equal(rounds(complete), without_seconds(calm_rounds(tmp_path, GROWN, SETTINGS)))


def test_the_same_trial_alone_gives_the_same_records(complete: Path, tmp_path: Path, shared_cache: Path) -> None:
    words = [
        *("--dataset", "digits", "--mismatch-ratio", "0.2", "--ood-ratio", "0.6", "--strategy", "vlpure"),
        *("--seed", "1", "-q", "-o", str(tmp_path / "one"), *grid_words({}, SETTINGS)),
    ]
    done = run_here("trial", *words, cache=shared_cache)
    assert (done.returncode, done.stderr) == (0, "")
    (path,) = (tmp_path / "one" / "ledger").iterdir()
    alone, in_grid = (json.loads(p.read_text())["records"] for p in (path, complete / "ledger" / path.name))
    for record in (*alone, *in_grid):
        for name in ("seconds", "time_ms", "peak_memory_mib", "environment", "service", "checksum"):
            del record[name]
    assert alone == in_grid


def test_mlflow_has_the_grid_and_a_run_per_trial_once(complete: Path) -> None:
    """However often it was sent: by the command that was interrupted, and by the one that went on."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{complete / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("vlpure-table4")
    runs = client.search_runs([experiment.experiment_id])
    (grid,) = (run for run in runs if "vlpure.grid" in run.data.tags)
    children = [run for run in runs if run.data.tags.get("vlpure.trial_of") == grid.info.run_id]
    assert len(runs) == 6 + 2 + 1  # trials, a summary for each strategy, the grid
    assert len(children) == len({run.data.tags["fingerprint"] for run in children}) == 6
    assert {run.info.status for run in runs} == {"FINISHED"}
    records = rounds(complete).set_index(["fingerprint", "round"])
    for run in children:
        tags, fingerprint = run.data.tags, run.data.tags["fingerprint"]
        assert {tags["dataset"], tags["mismatch_ratio"], tags["ood_ratio"]} == {"digits", "0.2", "0.6"}
        assert run.data.params["recipe.steps"] == "5"
        history = client.get_metric_history(run.info.run_id, "accuracy")
        assert [(m.step, m.value) for m in history] == [
            (r, records.loc[(fingerprint, r), "accuracy"]) for r in range(3)
        ]
        assert {m.step for m in client.get_metric_history(run.info.run_id, "precision")} == {1, 2}
        assert {"aubc", "aubc_paper", "last_accuracy", "mean_precision", "num_id", "seconds/train"} <= set(
            run.data.metrics
        )
