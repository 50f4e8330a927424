"""docs/cluster.md: its commands exist and their options are understood, by ours and by Ray's command line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from ray.scripts.scripts import cli

from experiments.commands.grid_command import make_parser
from experiments.table4 import TABLE4

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cluster.md").read_text()
BLOCKS = "\n".join(re.findall(r"^```\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)).replace("\\\n", " ")
TABLES = re.findall(r"experiments/table4\.py ([^'#\n]*)", BLOCKS)
RAY = re.findall(r"(?:^|srun )ray ([a-z].*?)(?:  #|$)", BLOCKS, flags=re.MULTILINE)


def test_there_are_commands() -> None:
    assert len(TABLES) >= 5
    assert len(RAY) >= 8


@pytest.mark.parametrize("words", TABLES)
def test_our_commands_are_understood(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    args = make_parser(TABLE4).parse_args(shlex.split(words))
    assert args.preset == "paper"


@pytest.mark.parametrize("line", RAY)
def test_rays_commands_are_understood(line: str) -> None:
    name, *words = shlex.split(line)
    command = cli.commands[name]
    options = {text for parameter in command.params if isinstance(parameter, click.Option) for text in parameter.opts}
    given = [word for word in words if word.startswith("-")]
    ours = given.index("--") if "--" in given else len(given)
    assert set(given[:ours]) <= options


def test_files_and_modules_it_names_exist() -> None:
    assert "python -m orchestrator.cluster cluster.yaml" in PAGE
    assert (ROOT / "cluster.yaml").exists()
    assert {"--status", "--dry-run", "--scorers-on", "--trials-on"} <= set(re.findall(r"--[a-z-]+", PAGE))
    known = {text for action in make_parser(TABLE4)._actions for text in action.option_strings}
    assert {"--status", "--dry-run", "--scorers-on", "--trials-on"} <= known
