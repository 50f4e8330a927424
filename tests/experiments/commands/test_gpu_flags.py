"""--deterministic and --plain-steps reach the run settings, and a computation without memory ends in one line."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from data.console import run_command
from experiments import trial
from experiments.commands.flags import add_output_flags
from experiments.commands.grid_command import GridCommand, grid_of, make_parser
from orchestrator.settings.grid import GridConfig

TABLE = GridCommand(name="table", title="a table", description="a table")
FLAGS = {(): (False, False), ("--deterministic",): (True, False), ("--plain-steps",): (False, True)}


def grid_of_table(words: tuple[str, ...]) -> GridConfig:
    return grid_of(TABLE, make_parser(TABLE).parse_args(["--preset", "demo", *words]))


def grid_of_trial(words: tuple[str, ...]) -> GridConfig:
    return trial._grid(trial.make_parser().parse_args(words))


@pytest.mark.parametrize("words", FLAGS)
@pytest.mark.parametrize("of", [grid_of_table, grid_of_trial])
def test_the_flags_are_run_settings_and_no_trials(
    of: Callable[[tuple[str, ...]], GridConfig], words: tuple[str, ...]
) -> None:
    grid, plain = of(words), of(())
    assert (grid.run.deterministic, grid.run.plain_steps) == FLAGS[words]
    assert grid.trials() == plain.trials()


def test_too_little_memory_is_one_line_and_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise MemoryError("the GPU's memory does not suffice")

    parser = argparse.ArgumentParser(prog="trial.py")
    add_output_flags(parser)
    monkeypatch.setattr("sys.argv", ["trial.py"])
    assert run_command(parser, fail) == 1
    assert capsys.readouterr().err == "trial.py: failed: the GPU's memory does not suffice\n"
