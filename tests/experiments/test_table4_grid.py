"""A small Table 4 through a real local Ray and a real MLflow: complete, grown, interrupted and continued."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

from data.drawings import write_drawings
from tests.experiments.running_grid import ROOT, start_grid, without_seconds

TINY = ["--set", "recipe.steps=5", "--set", "recipe.width=2", "--set", "recipe.batch_size=8"]
GRID = ["--mismatch-ratios", "0.2", "--ood-ratios", "0.6", "--strategies", "random,vlpure", "--rounds", "3", *TINY]

pytestmark = pytest.mark.timeout(400)


def start(output: Path, cache: Path, *words: str) -> subprocess.Popen[str]:
    """table4.py on a Ray of its own, with that cache."""
    return start_grid(output, [*GRID, *words], cache=cache)


def finish(process: subprocess.Popen[str]) -> str:
    """Its output, after a good end."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, f"{out}\n{err}"
    assert err == ""
    return out


def rounds(output: Path) -> pd.DataFrame:
    """rounds.csv without the columns that may differ, in a fixed order."""
    return without_seconds(pd.read_csv(output / "table4" / "rounds.csv"))


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """The output folder of an undisturbed grid of four trials."""
    output = tmp_path_factory.mktemp("grid") / "out"
    out = finish(start(output, shared_cache, "--seeds", "0-1"))
    assert "4 trials, 0 finished, 4 to run (12 rounds)" in out
    assert out.count("aubc") >= 4
    assert "[4/4]" in out
    return output


def test_files_of_a_complete_grid(complete: Path) -> None:
    trials = pd.read_csv(complete / "table4" / "trials.csv")
    assert trials["status"].tolist() == ["finished"] * 4
    assert trials["fingerprint"].nunique() == 4
    assert len(rounds(complete)) == 12
    for name in ("table4.md", "table4.csv", "curves.png"):
        assert (complete / "table4" / name).stat().st_size > 100
    assert not list((complete / "classifiers").iterdir())
    first = rounds(complete)
    assert (first["num_id"] + first["num_ood"] == 20 * (first["round"] + 1)).all()
    assert first.loc[first["round"] == 0, "precision"].isna().all()
    tuned = first.loc[(first["strategy"] == "vlpure") & (first["round"] > 0), "logit_scale"]
    assert tuned.between(0.1, 100).all()


def test_the_same_trial_in_this_process_gives_the_same_records(
    complete: Path, tmp_path: Path, shared_cache: Path
) -> None:
    words = [
        "--dataset",
        "digits",
        "--mismatch-ratio",
        "0.2",
        "--ood-ratio",
        "0.6",
        "--strategy",
        "vlpure",
        "--seed",
        "1",
    ]
    subprocess.run(
        [sys.executable, "experiments/trial.py", *words, "--rounds", "3", *TINY, "-q", "-o", str(tmp_path / "one")],
        cwd=ROOT,
        env=os.environ | {"VLPURE_CACHE": str(shared_cache)},
        check=True,
        capture_output=True,
        timeout=200,
    )
    (path,) = (tmp_path / "one" / "ledger").iterdir()
    alone, in_grid = (json.loads(p.read_text())["records"] for p in (path, complete / "ledger" / path.name))
    for record in (*alone, *in_grid):
        for name in ("seconds", "time_ms", "peak_memory_mib", "environment", "service", "checksum"):
            del record[name]
    assert alone == in_grid


def test_mlflow_has_the_grid_and_a_run_per_trial(complete: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{complete / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("vlpure-table4")
    runs = client.search_runs([experiment.experiment_id])
    (grid,) = (run for run in runs if "vlpure.grid" in run.data.tags)
    children = [run for run in runs if run.data.tags.get("vlpure.trial_of") == grid.info.run_id]
    assert len(children) == 4
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


def test_interrupted_then_continued_then_grown(complete: Path, tmp_path: Path, shared_cache: Path) -> None:
    output = tmp_path / "out"
    process = start(output, shared_cache, "--seeds", "0-1")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[1/4]"):
            break
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
    killer = threading.Timer(120, process.kill)
    killer.start()
    out, err = process.communicate()
    killer.cancel()
    assert process.returncode == 130, f"{out}\n{err}"
    assert "every finished round is saved" in err
    assert "Traceback" not in err
    assert pd.read_csv(output / "table4" / "trials.csv")["status"].value_counts()["finished"] < 4

    continued = finish(start(output, shared_cache, "--seeds", "0-1"))
    assert "0 finished" not in continued
    pd.testing.assert_frame_equal(rounds(output), rounds(complete))

    grown = finish(start(output, shared_cache, "--seeds", "0-2"))
    assert "6 trials, 4 finished, 2 to run (6 rounds)" in grown
    again = finish(start(output, shared_cache, "--seeds", "0-2"))
    assert "6 trials, 6 finished, 0 to run (0 rounds)" in again
    _check_mirrored_once(output)


def test_relative_paths_are_those_of_the_folder_it_is_called_in_and_tmpdir_may_be_long(
    tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = tmp_path / ("j" * 90)
    slurm.mkdir()
    monkeypatch.setenv("TMPDIR", str(slurm))
    write_drawings(tmp_path, num_train=2, num_test=1)
    images = os.path.relpath(tmp_path / "drawings", ROOT)
    words = ["--datasets", f"folder:{images}", "--strategies", "conf", "--seeds", "0", "--budget", "10"]
    process = start(
        tmp_path / "out", shared_cache, *words, "--mismatch-ratios", "0.4", "--rounds", "2", "--no-tracking"
    )
    assert "[1/1]" in finish(process)


def _check_mirrored_once(output: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("vlpure-table4")
    runs = client.search_runs([experiment.experiment_id])
    children = [run for run in runs if "vlpure.trial_of" in run.data.tags]
    assert len(runs) == 6 + 2 + 1  # trials, a summary for each strategy, the grid
    assert len({run.data.tags["fingerprint"] for run in children}) == 6
    for run in children:
        assert [m.step for m in client.get_metric_history(run.info.run_id, "accuracy")] == [0, 1, 2]
