"""The flags of a run are the fields of RunSettings: a setting is written once."""

from __future__ import annotations

from typing import Any

import pytest

from data.console import CommandParser
from experiments.commands import flags
from experiments.commands.flags import add_run_flags, given_run_settings
from orchestrator.settings.grid import RunSettings
from orchestrator.settings.trial import Settings, field_docstrings


def parser() -> CommandParser:
    """A command with every flag of a run."""
    made = CommandParser(prog="command", description="")
    add_run_flags(made, made.add_argument_group("run"), RunSettings.model_fields)
    return made


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ([], {}),
        (["--cpus-per-trial", "2", "--max-concurrent", "3"], {"cpus_per_trial": 2, "max_concurrent": 3}),
        (["--gpus-per-trial", "0.25", "--trials-on", "role=x"], {"gpus_per_trial": 0.25, "trials_on": "role=x"}),
        (["--fetch-data", "--plain-steps"], {"fetch_data": True, "plain_steps": True}),
    ],
)
def test_a_flag_is_a_setting(words: list[str], settings: dict[str, Any]) -> None:
    found = given_run_settings(parser().parse_args(words))
    assert found == settings
    assert RunSettings(**found).model_dump(exclude_unset=True) == settings


def test_help_is_the_fields_docstring_and_is_read_for_help_only(monkeypatch: pytest.MonkeyPatch) -> None:
    made = parser()
    text = " ".join(made.format_help().split())
    assert (
        "--gpus-per-trial X GPUs reserved for a trial; 0.25 puts four trials on a card, 0 uses none --scorers" in text
    )
    assert "--scorers N actors that answer purity requests --gpus" in text
    assert set(field_docstrings(RunSettings)) == set(RunSettings.model_fields)
    monkeypatch.setattr(flags, "field_docstrings", lambda _: pytest.fail("the source was read without --help"))
    parser().parse_args(["--scorers", "2"])


class Example(Settings):
    """A class."""

    first: int = 1
    """One line,
    and another."""
    second: int = 2
    third: int = 3
    """Of the third."""


def test_docstrings_of_fields() -> None:
    assert field_docstrings(Example) == {"first": "One line, and another.", "third": "Of the third."}
