"""The commands as a user types them: bad input, dry runs, continuing, and what they import."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.experiments.in_process import run_here

ROOT = Path(__file__).parents[2]
Command = Callable[..., int]
TINY = ["--set", "recipe.steps=4", "--set", "recipe.width=2", "--set", "recipe.batch_size=4"]


def run(cache: Path, *words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    environment = os.environ | {"VLPURE_CACHE": str(cache)}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def make_folder(root: Path, *, classes: int = 4) -> Path:
    """A small image folder."""
    for part, num in (("train", 12), ("test", 3)):
        for label in range(classes):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(num):
                Image.new("RGB", (8, 8), (40 * label, 9 * number, 128)).save(folder / f"{number}.png")
    return root


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """table4.py's main in this process: quick, for input that is refused before anything is computed."""
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> int:
        from experiments.table4 import main

        monkeypatch.setattr(sys, "argv", ["table4.py", *words])
        try:
            return main()
        except SystemExit as stop:  # argparse
            return int(str(stop.code))

    return call


def test_a_folder_that_is_no_data_set(in_process: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {"empty": "train", "oneclass": "class", "broken": "broken/train/class1/bad.png"}
    (tmp_path / "empty").mkdir()
    make_folder(tmp_path / "oneclass", classes=1)
    make_folder(tmp_path / "broken")
    (tmp_path / "broken" / "train" / "class1" / "bad.png").write_text("no image")
    for name, message in cases.items():
        assert in_process("--preset", "cpu", "--datasets", f"folder:{tmp_path / name}", "--strategies", "conf") == 2
        err = capsys.readouterr().err.strip()
        assert message in err.splitlines()[-1]
        assert not (tmp_path / "runs").exists()


def test_an_output_folder_of_another_version(
    in_process: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "vlpure.json").write_text('{"format": 0, "grid_id": "a"}')
    assert in_process("--preset", "demo", "-o", str(tmp_path / "old")) == 2
    assert "made by another version" in capsys.readouterr().err


def test_dry_run_prints_the_grid_and_creates_nothing(
    in_process: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert in_process("--preset", "demo-full", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "108 trials, 0 finished, 108 to run (648 rounds)" in out
    assert out.count("0,1,2") == 36
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", ["trial", "table4"])
@pytest.mark.parametrize("way", ["file", "module"])
def test_help_from_any_directory(script: str, way: str, tmp_path: Path) -> None:
    words = [str(ROOT / "experiments" / f"{script}.py")] if way == "file" else ["-m", f"experiments.{script}"]
    result = run(tmp_path, *words, "--help", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"usage: {script}.py")
    assert result.stderr == ""


def test_trial_on_an_image_folder_and_on_again(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images")
    words = [
        "--dataset", f"folder:{folder}", "--mismatch-ratio", "0.5", "--ood-ratio", "0.4",
        "--strategy", "conf", "--budget", "10", "--rounds", "2", "-o", str(tmp_path / "out"), *TINY,
    ]  # fmt: skip
    first = run_here("trial", *words, cache=tmp_path / "cache")
    assert first.returncode == 0, first.stderr
    rounds = [line for line in first.stdout.splitlines() if line.startswith("    ")]
    assert [line.split()[3:5] for line in rounds[:1]] == [["6", "4"]]
    again = run_here("trial", *words, cache=tmp_path / "cache")
    assert [line for line in again.stdout.splitlines() if line.startswith("    ")] == rounds
