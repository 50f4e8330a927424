"""What a grid command writes and reads: a part of a grid does not replace the report of the whole."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from experiments.commands.grid import main_of
from experiments.commands.report_folder import report_folder
from experiments.results.frames import csv_text, trials_frame
from experiments.table4 import TABLE4
from orchestrator.plan import PlannedTrial
from tests.factories import make_planned

WHOLE = [make_planned(seed, strategy=strategy) for strategy in ("random", "conf") for seed in range(3)]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output folder with the report of `WHOLE`."""
    write_trials(tmp_path, WHOLE)
    return tmp_path


def write_trials(output: Path, planned: Sequence[PlannedTrial]) -> None:
    """The part of a report that is read again."""
    (output / "table4").mkdir(exist_ok=True)
    (output / "table4" / "trials.csv").write_text(csv_text(trials_frame(planned)))


def test_the_same_and_a_wider_grid_replace_the_report(output: Path) -> None:
    more = [*WHOLE, make_planned(3, strategy="conf")]
    for planned in (WHOLE, WHOLE[::-1], more):
        found = report_folder(output, "table4", planned)
        assert (found.path, found.note) == (output / "table4", None)


def test_a_part_gets_a_folder_of_its_own_and_says_what_it_is(output: Path) -> None:
    found = report_folder(output, "table4", WHOLE[:2])
    assert found.path.parent == output
    assert found.path.name.startswith("table4-part-")
    assert found.note == (
        "a part of the grid (2 of 6 trials, 1 of 2 strategies, 2 of 3 seeds); the whole is in the folder table4"
    )
    assert report_folder(output, "table4", WHOLE[1::-1]).path == found.path  # the same part, the same folder
    assert report_folder(output, "table4", WHOLE[:1]).path != found.path


def test_a_grid_of_other_trials_is_no_part(output: Path) -> None:
    other = [*WHOLE[:2], make_planned(7, strategy="ll")]
    assert report_folder(output, "table4", other).path == output / "table4"


@pytest.mark.parametrize("content", [None, b"", b"a,b\n1,2\n", b"\xff\xfe"])
def test_without_a_report_there_is_nothing_to_keep(output: Path, content: bytes | None) -> None:
    path = output / "table4" / "trials.csv"
    path.unlink() if content is None else path.write_bytes(content)
    assert report_folder(output, "table4", WHOLE[:1]).path == output / "table4"


def test_a_dry_run_decodes_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    for part in ("train", "test"):
        for name in "abc":
            (tmp_path / "images" / part / name).mkdir(parents=True)
            Image.new("RGB", (16, 16)).save(tmp_path / "images" / part / name / "0.png")
    words = ["table4.py", "--preset", "cpu", "--datasets", f"folder:{tmp_path / 'images'}", "--seeds", "0", "--dry-run"]
    monkeypatch.setattr(sys, "argv", [*words, "-o", str(tmp_path / "out")])
    assert main_of(TABLE4) == 0
    assert (
        capsys.readouterr()
        .out.splitlines()[0]
        .endswith(
            f" trials. folder:{tmp_path / 'images'} is not in the cache {tmp_path / 'cache'}; "
            "the run reads and checks the images first, once."
        )
    )
    assert not (tmp_path / "cache").exists()
