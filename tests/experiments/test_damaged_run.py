"""The commands on an output folder with one damaged file: the same numbers, or a line that says which file it is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from tests.experiments.running_grid import without_seconds
from tests.orchestrator.test_damage import DAMAGES, files_below, neighbour_of

ROOT = Path(__file__).parents[2]
TRIAL = ["experiments/trial.py", "--strategy", "conf", "--rounds", "2", "--set", "recipe.steps=4"]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def compute(output: Path) -> None:
    """Two trials, or what is missing of them."""
    for seed in (0, 1):
        done = run(*TRIAL, "--set", "recipe.width=4", "--seed", str(seed), "-o", output)
        assert done.returncode == 0, done.stderr


def rounds(folder: Path) -> pd.DataFrame:
    return without_seconds(pd.read_csv(folder / "rounds.csv"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_commands_after_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    output, pristine, report = tmp_path / "out", tmp_path / "pristine", tmp_path / "report"
    compute(output)
    assert run("experiments/report.py", output, "-o", report, "-q").returncode == 0
    expected = rounds(report)
    shutil.copytree(output, pristine)
    files, counts = files_below(output), Counter[str]()
    for path in files:
        for damage in DAMAGES:
            shutil.rmtree(output)
            shutil.copytree(pristine, output)
            shutil.rmtree(report)
            damage(path, neighbour_of(path, files))
            case = f"{damage.__name__} {path.relative_to(tmp_path)}"
            done = run("experiments/report.py", output, "-o", report, "-q")
            if done.returncode == 0:
                pd.testing.assert_frame_equal(rounds(report), expected, obj=case)
            else:
                assert done.returncode == 2, case
                assert done.stderr.count("\n") == 1, case
                assert str(output / "ledger") in done.stderr, case
                report.mkdir(exist_ok=True)
            counts["the report is the same" if done.returncode == 0 else "the report says which file it is"] += 1
            assert run("-m", "orchestrator.ledger", output).returncode in (1, 2), case
            assert run("-m", "orchestrator.ledger", output, "--repair").returncode == 0, case
            if path.parent.name == "ledger":
                compute(output)
                assert run("experiments/report.py", output, "-o", report, "-q").returncode == 0, case
                pd.testing.assert_frame_equal(rounds(report), expected, obj=case)
    with capsys.disabled():
        print(f"\n{len(files)} files, {sum(counts.values())} damages, no traceback: {dict(counts)}")
    assert len(files) == 5
