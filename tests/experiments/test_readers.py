"""Readers of a run folder import nothing that it names or holds: it may come from somebody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.results.from_mlflow import _trial
from orchestrator.ledger.output import open_output
from orchestrator.settings.reading import make_trial, read_trial
from tests.experiments import synthetic

ROOT = Path(__file__).parents[2]
NAME = "thief:Thief"
CODE = "from pathlib import Path\nPath(__file__).with_name('it_ran').touch()\nclass Thief: pass\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder whose ledger names code that lies in it, under names that our imports have too."""
    known = synthetic.grid(
        conditions=synthetic.CONDITIONS[:1], strategies=("random",), seeds=range(2), recipe={"name": "cpu"}, rounds=3
    )
    with open_output(tmp_path).locked():
        ledger = synthetic.write_ledger(tmp_path / "ledger", known)
    for trial in known:
        settings = trial.model_dump(mode="json") | {"strategy": NAME}
        fingerprint = f"{trial.seed:064x}"
        for record in synthetic.records_of(trial)[: 3 - trial.seed]:
            ledger.append(fingerprint, settings, record)
    ledger.fail(f"{1:064x}", known[1].model_dump(mode="json") | {"strategy": NAME}, "it failed")
    for name in ("thief", "numpy", "pydantic", "yaml"):
        (tmp_path / f"{name}.py").write_text(CODE)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([str(ROOT / "experiments" / "report.py"), "."], 0, NAME),
        ([str(ROOT / "experiments" / "table4.py"), "--status", "-o", "."], 1, f"--strategy {NAME} --seed 1"),
        (["-m", "orchestrator.ledger", "."], 1, f"{NAME} seed 1"),  # synthetic records have no queries
    ],
)
def test_a_reader_runs_nothing_of_the_folder(folder: Path, words: list[str], code: int, said: str) -> None:
    outcome = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert outcome.returncode == code, outcome.stderr
    assert said in outcome.stdout
    assert not (folder / "it_ran").exists()
    if said == NAME:  # the report, which has a row of that name
        trials = pd.read_csv(folder / "report" / "trials.csv")
        assert trials["strategy"].tolist() == ["random", "random", NAME, NAME]
        assert trials["status"].tolist() == ["finished", "finished", "finished", "failed"]


def test_a_run_of_mlflow_is_read_without_its_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.entities import Param, Run, RunData, RunInfo, RunTag

    monkeypatch.chdir(folder)
    axes = {"dataset": "digits", "mismatch_ratio": 0.2, "ood_ratio": 0.6, "strategy": NAME, "seed": 0}
    params = [Param(name, value if isinstance(value, str) else json.dumps(value)) for name, value in axes.items()]
    info = RunInfo(
        run_id="r", experiment_id="0", user_id="", status="FINISHED", start_time=0, end_time=0, lifecycle_stage="active"
    )
    found = _trial(Run(info, RunData(params=params, tags=[RunTag("rounds", "3")])))
    assert (found.strategy, found.rounds, found.uses_purity) == (NAME, 3, False)
    assert not (folder / "it_ran").exists()
    # A run of a version whose `tanl` screened no words.
    found = _trial(Run(info, RunData(params=[*params, Param("purity.detector", "tanl")], tags=[])))
    assert found.purity.tanl.sure_images is None


def test_what_a_user_asks_for_is_imported_and_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    axes = {"dataset": "digits", "mismatch_ratio": 0.2, "ood_ratio": 0.6, "strategy": NAME, "seed": 0}
    assert read_trial(**axes).settings_read()["strategy"] == NAME
    with pytest.raises(ValueError, match=r"thief has no class 'Thief' that is a strategies\.base\.Strategy"):
        make_trial(**axes)
    sys.modules.pop("thief")
    assert (folder / "it_ran").exists()
