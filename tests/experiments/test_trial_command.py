"""trial.py in this process, on the digits: what is kept, what is run again, and what a plug-in may do to it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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
