"""A disk that is full before the first trial."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.commands import grid
from experiments.table4 import TABLE4


@pytest.mark.parametrize("tracking", [[], ["--no-tracking"]], ids=["mlflow", "no mlflow"])
def test_it_is_one_line(
    tracking: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def begin(todo: Any, *_: Any, listener: Any, **__: Any) -> None:
        listener.begin(todo)

    def fill(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "launch-table4.json")

    monkeypatch.setattr(grid, "run_grid", begin)
    monkeypatch.setattr(grid, "note_launch", fill)
    words = ["--preset", "demo", "--seeds", "0", "--strategies", "random", "-q", "-o", str(tmp_path / "out"), *tracking]
    monkeypatch.setattr(sys, "argv", ["table4.py", *words])
    assert grid.main_of(TABLE4) == 1
    assert capsys.readouterr().err == (
        "table4.py: failed: launch-table4.json: No space left on device: make room or repair the disk, then run this "
        "command again; every finished round that was kept is whole\n"
    )
    assert not (tmp_path / "out").exists()
