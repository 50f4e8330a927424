"""Everything that can befall a grid befalls one: no record changes, nothing hangs, nothing is left over."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from data.files import file_lock
from tests.experiments.nemesis import EVENTS, torment
from tests.experiments.nemesis_grid import Grid, can_pretend_memory, free_port, processes_left
from tests.experiments.running_grid import Axes, calm_rounds, grid_words, start_grid, without_seconds

SMALL: Axes = {
    "mismatch_ratios": [0.2],
    "ood_ratios": [0.6],
    "strategies": ["random", "vlpure"],
    # Ten seeds: on an idle machine the trials of four end before the last event.
    "seeds": range(10),
}
SMALL_SETTINGS = ["recipe.steps=40", "recipe.width=4", "rounds=5"]
SHORT_FORM = [
    "kill a trial worker", "kill the scorer", "kill the writer", "kill the raylet", "SIGTERM",
    "short memory", "clock back", "kill the command",
]  # fmt: skip
OURS = re.compile(
    r"Table 4: \d+ trials, |report: file://|Ray: 1 node|Ray ended \(|scoring service: |\[\d+/\d+\] digits "
    r"|digits mismatch .* goes on in "
    r"|interrupted$|stopped at once"  # a signal while it starts; a second one while it still stops
    r"|\d+ running, |interrupted: every finished round is saved|MLflow: sending|MLflow at |warning: MLflow at "
    r"|table4.py: (error|failed): |failed: "
)
"""How lines of this project begin, but for those of a report."""
REPORT = re.compile(r"^\ndigits: AUBC\n.*?^compare runs in MLflow: .*?\n(  then open .*?\n)?", re.DOTALL | re.MULTILINE)
KEPT = {".ledger.lock", ".lock", ".mlflow.db.lock"}
"""Hidden files of an output folder that stay."""

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes through /proc (Linux)"),
    pytest.mark.timeout(5400),
]


def run_undisturbed(output: Path, words: list[str]) -> pd.DataFrame:
    process = start_grid(output, [*words, "--no-tracking"])
    out, err = process.communicate()
    assert (process.returncode, err) == (0, ""), out
    return pd.read_csv(output / "table4" / "rounds.csv")


def check_mirror(store: Path, calm: pd.DataFrame) -> tuple[int, int]:
    """MLflow has each trial once and each round once, with the accuracies of the table; how many of both."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{store}")
    experiment = client.get_experiment_by_name("vlpure-table4")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    (grid,) = (run for run in runs if "vlpure.grid" in run.data.tags)
    children = [run for run in runs if run.data.tags.get("vlpure.trial_of") == grid.info.run_id]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(children) == calm["fingerprint"].nunique()
    expected = calm.set_index(["fingerprint", "round"])["accuracy"]
    mirrored = {}
    for run in children:
        for metric in client.get_metric_history(run.info.run_id, "accuracy"):
            key = (run.data.tags["fingerprint"], metric.step)
            assert key not in mirrored, f"{key} is there twice"
            mirrored[key] = metric.value
    assert mirrored == expected.to_dict()
    return len(children), len(mirrored)


def check_nothing_is_left(grid: Grid) -> None:
    """No process, no held lock, no temporary file."""
    assert processes_left(grid) == []
    left = [path.name for path in (grid.world / "tmp").iterdir()]
    assert [name for name in left if not name.startswith("torchinductor_")] == []  # torch's own cache, one a user
    with file_lock(grid.output / ".lock", wait=False):
        pass
    hidden = {path.name for path in grid.output.rglob(".*")}
    assert hidden <= KEPT
    assert not (grid.output / "filler").exists()


def strange_lines(log: str) -> list[str]:
    """Lines that are not ours."""
    return [line for line in REPORT.sub("", log).splitlines() if line and not OURS.match(line)]


def serve_and_wait(grid: Grid) -> None:
    """Start MLflow's server, and wait until it takes connections."""
    grid.serve()
    deadline = time.monotonic() + 180
    while not grid.is_serving():
        assert time.monotonic() < deadline, (grid.world / "server.log").read_text()
        time.sleep(0.5)


@contextmanager
def small_world(tmp_path: Path, *, disk: str) -> Iterator[tuple[Path, Path]]:
    """A folder with a short name, and an output folder, on a disk of its own where that may be mounted."""
    with tempfile.TemporaryDirectory(prefix="n", dir="/tmp") as name:
        world = Path(name)
        output = world / "disk"
        output.mkdir()
        mounted = (
            os.getuid() == 0
            and not subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={disk}", "tmpfs", output], check=False, capture_output=True
            ).returncode
        )
        try:
            yield world, output / "out" if mounted else tmp_path / "out"
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", output], check=True)


@pytest.mark.parametrize(
    ("words", "times", "seed"),
    [
        pytest.param(grid_words(SMALL, SMALL_SETTINGS), 0, 0, id="short"),
        pytest.param(["--seeds", "0-31"], 2, 0, id="long", marks=pytest.mark.slow),
    ],
)
def test_nothing_that_befalls_a_grid_changes_a_record(
    tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], times: int, seed: int
) -> None:
    monkeypatch.setenv("VLPURE_CACHE", str(shared_cache))
    # That a small grid through Ray has these numbers too, test_table4_grid.py says.
    calm = run_undisturbed(tmp_path / "calm", words) if times else calm_rounds(tmp_path, SMALL, SMALL_SETTINGS)
    kinds = SHORT_FORM if not times else random.Random(seed).sample(sorted(EVENTS) * times, len(EVENTS) * times)
    with small_world(tmp_path, disk="64m") as (world, output):
        possible = [
            kind
            for kind in kinds
            if (kind != "short memory" or can_pretend_memory()) and (kind != "full disk" or world in output.parents)
        ]
        grid = Grid(words=words, output=output, world=world, cache=shared_cache, port=free_port() if times else None)
        try:
            if times:
                serve_and_wait(grid)
            tally = torment(grid, possible, seed=seed)
        finally:
            grid.stop()
        log = grid.log.read_text()
        print(f"\n{tally}; exit codes {dict(grid.codes)}")
        disturbed = pd.read_csv(output / "table4" / "rounds.csv")
        pd.testing.assert_frame_equal(without_seconds(disturbed), without_seconds(calm))
        shutil.copy(grid.store, tmp_path / "store.db")  # MLflow would keep the file open, and the disk with it
        num_trials, num_rounds = check_mirror(tmp_path / "store.db", calm)
        print(f"equal: {num_trials} trials, {num_rounds} rounds")
        strange = strange_lines(log)
        assert strange == [], "\n".join(strange)
        check_nothing_is_left(grid)
