"""figures.py as a user calls it, on a run with a few hand-made records."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.figures import main
from orchestrator.ledger.output import open_output
from orchestrator.plan import plan_trials
from orchestrator.settings.grid import ArmTrial
from orchestrator.settings.reading import make_trial
from tests.factories import make_record

Command = Callable[..., int]
DEMO = {"recipe": {"name": "demo"}, "budget": 20, "rounds": 3}
WORDS = (
    "--preset", "demo-full", "--mismatch-ratios", "0.2", "--ood-ratios", "0.6", "--strategies", "random,conf",
    "--seeds", "0-2", "--rounds", "3",
)  # fmt: skip

DRAW = """
import json, sys
from experiments.figures import main
code = main()
print(json.dumps([code, sorted({"torch", "ray", "mlflow", "matplotlib.pyplot"} & set(sys.modules))]))
"""


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run with three seeds of `random` and two of `full-data`; nothing of `conf`."""
    folder = tmp_path / "run"
    trials = [
        ArmTrial(arm="", trial=make_trial(dataset="digits", mismatch_ratio=0.2, seed=seed, **DEMO | settings))
        for seed in range(3)
        for settings in (
            {"strategy": "random", "ood_ratio": 0.6},
            {"strategy": "random", "ood_ratio": 0.0, "full_data": True, "rounds": 1},
        )
    ]
    with open_output(folder).locked() as output:
        for planned in plan_trials(trials, None):
            trial = planned.trial
            if trial.full_data and trial.seed == 2:
                continue
            for number in range(trial.rounds):
                record = make_record(
                    number,
                    accuracy=0.5 + number / 10 + trial.seed / 100,
                    precision=0.4 if number else None,
                    num_id=8,
                    num_ood=12,
                    queried_idx=[number * 10 + trial.seed] if number else [],
                )
                output.ledger.append(planned.fingerprint, trial.model_dump(mode="json"), record)
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["figures.py", *words])
        try:
            return main()
        except SystemExit as stop:  # argparse
            return int(str(stop.code))

    return call


def test_what_is_there_is_drawn_and_what_is_missing_is_named(
    command: Command, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*WORDS, "--figure", "7,8", "--no-run", "-o", str(run_folder)) == 0
    files = {path.name for path in (run_folder / "figures").iterdir()}
    assert files == {f"figure{number}-mismatch-20.{suffix}" for number in (7, 8) for suffix in ("png", "pdf", "txt")}
    text = (run_folder / "figures" / "figure8-mismatch-20.txt").read_text()
    assert text.startswith("Figure 8. Test accuracy over the rounds, mismatch ratio 20 %. Lines: mean over 3 seeds")
    assert "Missing: digits mismatch 20 %, OOD 60 %, conf (0 of 3 seeds)." in text
    assert "Run: run, preset demo-full, grid " in text
    out = capsys.readouterr().out
    assert "figure8-mismatch-20.png, .pdf, .txt" in out
    assert "Missing: digits mismatch 20 %, OOD 60 %, conf (0 of 3 seeds)" in out


def test_the_same_again_gives_the_same_bytes_and_leaves_no_old_page(command: Command, run_folder: Path) -> None:
    words = (*WORDS, "--figure", "8", "--no-run", "-q", "-o", str(run_folder))
    assert command(*words) == 0
    folder = run_folder / "figures"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "figure8-mismatch-30.png").write_bytes(b"of an earlier grid")
    (folder / "figure80.png").write_bytes(b"not ours")
    assert command(*words) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before | {"figure80.png": b"not ours"}


def test_a_figure_of_which_nothing_is_there_is_said_and_the_others_are_drawn(
    command: Command, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*WORDS, "--figure", "11,7", "--no-run", "-o", str(run_folder)) == 1
    assert capsys.readouterr().err.strip() == "not drawn: figure 11: there is no finished round to draw yet"
    assert (run_folder / "figures" / "figure7-mismatch-20.png").is_file()


def test_a_dry_run_names_the_trials_that_are_left(
    command: Command, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*WORDS, "--figure", "10", "--dry-run", "-o", str(run_folder)) == 0
    out = capsys.readouterr().out
    assert "Figures: 12 trials, 5 finished, 7 to run (19 rounds)" in out
    lines = [line.split()[:6] for line in out.splitlines()]  # without the seconds of a round
    assert ["digits", "0.2", "0.6", "conf", "-", "0,1,2"] in lines
    assert ["digits", "0.2", "0", "full-data", "0,1", "2"] in lines
    assert ["digits", "0.2", "0", "id-only", "-", "0,1,2"] in lines
    assert not (run_folder / "figures").exists()


def test_the_purity_figures_need_no_trial(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*WORDS, "--figure", "5,6", "--dry-run", "-o", str(tmp_path / "new")) == 0
    assert "nothing to run" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--figure", "4"], "unknown figure '4'; known: 5, 6, 7, 8, 9, 10, 11, 12, all"),
        (["--figure", "5", "--purity", "mcm"], "figures 5 and 6 show p_k and 1 - q_k as the detector atd"),
        (["--figure", "7", "--no-run", "-o", "nowhere"], "nowhere holds no run to draw; omit --no-run"),
        (["--figure", "7", "--strategies", "confid"], "did you mean 'conf'?"),
    ],
)
def test_bad_input_is_one_clear_line(
    command: Command, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--preset", "demo", *words) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("figures.py: error: ")
    assert message in last
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "nowhere").exists()


def test_curves_are_drawn_without_torch_ray_or_mlflow(run_folder: Path) -> None:
    outcome = subprocess.run(
        [sys.executable, "-c", DRAW, *WORDS, "--figure", "9,10", "--no-run", "-q", "-o", str(run_folder)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert outcome.stdout.strip() == "[0, []]"


def test_the_query_map_needs_no_clipn(command: Command, run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*WORDS, "--figure", "12", "--no-run", "-o", str(run_folder)) == 0
    folder = run_folder / "figures"
    assert {path.name for path in folder.iterdir()} == {f"figure12-digits.{suffix}" for suffix in ("png", "pdf", "txt")}
    text = (folder / "figure12-digits.txt").read_text()
    assert "Missing (no query yet): conf" in text
    assert "embedding of features of the classifier of round 0, which all strategies share, for all panels" in text
    assert "CLIPN" not in capsys.readouterr().out


@pytest.mark.slow  # trains a stand-in CLIPN
def test_the_figures_that_compute_are_drawn_on_the_demo(run_folder: Path, shared_cache: Path) -> None:
    words = ["--figure", "5,6,12", "--embedding", "clipn", "--no-run", "-o", str(run_folder)]
    outcome = subprocess.run(
        [sys.executable, "-m", "experiments.figures", *WORDS, *words], capture_output=True, text=True, check=True,
        timeout=230, env=os.environ | {"VLPURE_CACHE": str(shared_cache)},
    )  # fmt: skip
    folder = run_folder / "figures"
    assert {path.name for path in folder.glob("*.png")} == {"figure5-digits.png", "figure6.png", "figure12-digits.png"}
    assert "figure 6: the purity step of digits" in outcome.stdout
    text = (folder / "figure12-digits.txt").read_text()
    assert "Missing (no query yet): conf" in text
    assert "embedding of CLIPN's image features for all panels" in text
