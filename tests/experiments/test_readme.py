"""The README's commands are commands: each is parsed, and run where that takes seconds."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import suggest, table4, train_clipn, trial
from orchestrator.settings.grid import load_preset
from strategies.originals import DEFECTS
from strategies.registry import BEHIND_PURITY, STRATEGIES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("  #")[0].strip()
    for block in re.findall(r"^```\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if re.match(r"make |\.venv/bin/python ", line)
]


def test_the_first_two_commands_are_demo_and_test() -> None:
    assert COMMANDS[:2] == ["make demo", "make test"]
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_make_knows_it(command: str) -> None:
    result = subprocess.run(
        [*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", [command for command in COMMANDS if "table4.py" in command])
def test_a_table_can_be_planned(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for word in shlex.split(command)[1:] if word != "--status"]  # of a run that is not there
    monkeypatch.setattr(sys, "argv", [*words, "--dry-run"])
    assert (ROOT / words[0]).exists()
    assert table4.main() == 0


@pytest.mark.parametrize("command", [command for command in COMMANDS if "trial.py" in command])
def test_a_trial_is_understood(command: str) -> None:
    words = shlex.split(command)[1:]
    assert (ROOT / words[0]).exists()
    args = trial.make_parser().parse_args(words[1:])
    assert args.strategy in STRATEGIES


@pytest.mark.parametrize("command", [command for command in COMMANDS if "suggest.py" in command])
def test_a_suggestion_is_understood(command: str) -> None:
    words = shlex.split(command)[1:]
    assert (ROOT / words[0]).exists()
    suggest.make_parser().parse_args(words[1:])


@pytest.mark.parametrize("command", [command for command in COMMANDS if "train_clipn.py" in command])
def test_a_training_is_understood(command: str) -> None:
    words = shlex.split(command)[1:]
    assert (ROOT / words[0]).exists()
    assert train_clipn.make_parser().parse_args(words[1:]).output == Path("clipn.pt")


def test_every_setting_and_preset_it_names_exists() -> None:
    (trial_config, *_) = load_preset(ROOT / "experiments" / "presets", "demo", {}, {}).trials()
    for section, name in re.findall(r"`(?:--set )?(recipe|purity|clipn)\.(\w+)", README):
        known = {*type(getattr(trial_config, section)).model_fields, *(("name",) if section == "recipe" else ())}
        assert name in known, f"{section}.{name}"
    for name in re.findall(r"--preset (\w+)", README):
        assert (ROOT / "experiments" / "presets" / f"{name}.yaml").exists()


def test_every_strategy_is_listed() -> None:
    for name, entry in STRATEGIES.items():
        if name.removeprefix("vlpure-") not in BEHIND_PURITY or name in BEHIND_PURITY:
            assert f"| `{name}` | {entry.paper_name} |" in README
    assert all(f"`vlpure-{name}`" in (ROOT / "docs" / "strategies.md").read_text() for name in BEHIND_PURITY)


def test_every_strategy_says_what_its_original_does_wrong() -> None:
    own = {name for name in STRATEGIES if name.removeprefix("vlpure-") not in BEHIND_PURITY or name in BEHIND_PURITY}
    assert set(DEFECTS) == own
    page = (ROOT / "docs" / "strategies.md").read_text()
    assert page.count("| leaks and defects of the official code | ") == len(own)
    for name in own:
        section = page.partition(f"## `{name}`\n")[2].partition("\n## ")[0]
        assert f"| leaks and defects of the official code | {DEFECTS[name]} |" in section
