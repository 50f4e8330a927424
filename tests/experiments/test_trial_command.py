"""trial.py in this process, on the digits: what is kept, what is run again, and what a plug-in may do to it."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data.drawings import write_drawings
from tests.experiments.in_process import run_here

Command = Callable[..., int]
TINY = [
    "--dataset", "digits", "--strategy", "conf", "--mismatch-ratio", "0.4", "--ood-ratio", "0.6", "--rounds", "2",
    "--budget", "20", "--set", "recipe.steps=2", "--set", "recipe.width=2", "--set", "recipe.batch_size=4",
]  # fmt: skip


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """trial.py's main, called from an empty folder with a cache of its own; returns the exit code."""
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> int:
        from experiments.trial import main

        monkeypatch.setattr(sys, "argv", ["trial.py", *TINY, *words])
        return main()

    return call


def test_a_finished_trial_stays_finished_with_another_eval_batch_size(
    trial: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trial("-o", "out") == 0
    ledger = list((tmp_path / "out" / "ledger").glob("*.json"))
    before = [path.read_bytes() for path in ledger]
    rounds = capsys.readouterr().out.splitlines()[:-1]
    assert trial("-o", "out", "--set", "recipe.eval_batch_size=256") == 0
    assert capsys.readouterr().out.splitlines()[:-1] == rounds
    assert [path.read_bytes() for path in ledger] == before
    assert len(list((tmp_path / "out" / "ledger").glob("*.json"))) == len(ledger) == 1


PLUGINS = """
import importlib
import json
import os
import subprocess
import sys
from strategies.base import Selection, Strategy
import numpy as np
class Base(Strategy):
    def picks(self, view, budget):
        return view.unlabelled_idx[:budget]
    def select(self, view, budget, rng):
        idx = self.picks(view, budget)
        return Selection(idx=idx, scores=np.zeros(len(idx)))
class Few(Base):
    def picks(self, view, budget):
        return view.unlabelled_idx[: budget - 1]
class Many(Base):
    def picks(self, view, budget):
        return view.unlabelled_idx[: budget + 1]
class Empty(Base):
    def picks(self, view, budget):
        return view.unlabelled_idx[:0]
class Position(Base):
    def picks(self, view, budget):
        return np.arange(budget)
class Raises(Base):
    def picks(self, view, budget):
        return view.nothing_of_that_name
class Leaves(Base):
    def picks(self, view, budget):
        sys.exit(0)
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Plug-ins in the current folder, forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "overspending.py"
    file.write_text(PLUGINS)
    yield file
    sys.modules.pop("overspending", None)
    importlib.invalidate_caches()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Few", "returned 19 images to label; exactly 20 were due"),
        ("Many", "returned 21 images to label; exactly 20 were due"),
        ("Empty", "returned 0 images to label; exactly 20 were due"),
        ("Position", "images that are not unlabelled"),
        ("Raises", "failed: AttributeError: 'PoolView' object has no attribute 'nothing_of_that_name' ({}, line 29)"),
        ("Leaves", "failed: SystemExit: 0 ({}, line 32)"),
    ],
)
def test_a_plugin_that_breaks_its_contract_buys_nothing(
    trial: Command, plugins: Path, capsys: pytest.CaptureFixture[str], name: str, told: str
) -> None:
    assert trial("--strategy", f"overspending:{name}", "-o", "out") == 2
    out, err = capsys.readouterr()
    assert "aubc" not in out
    last = err.splitlines()[-1]
    assert last.startswith(f"trial.py: error: strategy overspending:{name}, at the query after round 0")
    assert told.format(plugins) in last
    (ledger,) = (plugins.parent / "out" / "ledger").glob("*.json")
    assert [record["round"] for record in json.loads(ledger.read_text())["records"]] == [0]


def test_under_ray_it_fails_once_with_its_reason_and_paths_are_those_of_the_folder(
    plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data set, plug-in and output are named as seen from the folder of the command, whose TMPDIR is a long one."""
    slurm = tmp_path / ("j" * 90)
    slurm.mkdir()
    monkeypatch.setenv("TMPDIR", str(slurm))
    monkeypatch.setattr(tempfile, "tempdir", None)
    write_drawings(tmp_path, num_train=2, num_test=1)
    words = [
        "--preset", "demo", "--datasets", "folder:drawings", "--mismatch-ratios", "0.4", "--ood-ratios", "0.6",
        "--seeds", "0", "--rounds", "2", "--budget", "10", "--strategies",
        "random,overspending:Many,overspending:Leaves", "--set", "recipe.steps=2", "--address", "local",
        "--no-tracking", "-o", "out",
    ]  # fmt: skip
    ran = run_here("table4", *words, folder=tmp_path, cache=tmp_path / "cache")
    assert ran.returncode == 1
    told = ran.stdout + ran.stderr
    assert told.count("returned 11 images to label; exactly 10 were due") >= 1
    assert f"SystemExit: 0 ({plugins}, line 32)" in told
    assert "again" not in told
    assert "its worker process died" not in told
    trials = pd.read_csv(tmp_path / "out" / "table4" / "trials.csv").set_index("strategy")["status"]
    assert trials.to_dict() == {"random": "finished", "overspending:Many": "failed", "overspending:Leaves": "failed"}


def test_images_that_deceive_are_told_in_the_terminal_and_in_the_reports_facts(
    trial: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """test/ is a link to train/, whose classes are links to another disk."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "owl", "pig"):
        (tmp_path / "big" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "big" / name / f"{number}.png")
        (tmp_path / "images" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / "train" / name).symlink_to(tmp_path / "big" / name)
    (tmp_path / "images" / "test").symlink_to("train")
    words = ["--dataset", f"folder:{tmp_path / 'images'}", "--mismatch-ratio", "0.5", "--ood-ratio", "0.5"]
    assert trial(*words, "--budget", "4", "-o", "out") == 0
    told = "48 of 48 test images are copies of training images (the first is test/cat/0.png)"
    assert capsys.readouterr().err.count(told) == 1
    from experiments.report import main as report

    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path / "out"), "-o", str(tmp_path / "report"), "-q"])
    assert report() == 0
    pages = [path.read_text() for path in (tmp_path / "report").rglob("*.md")]
    assert any(told in page for page in pages)


def test_from_mlflow_makes_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments.report import main as report

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'gone.db'}"
    monkeypatch.setattr(sys, "argv", ["report.py", "--from-mlflow", uri, "--experiment", "a"])
    assert report() == 2
    assert f"no such file: {tmp_path / 'gone.db'}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
