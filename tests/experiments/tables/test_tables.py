"""Table 4 of a hand-made grid: ties, a failed seed, a missing cell, one data set that the paper has."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from experiments.pages.files import ReportFiles, write_report
from experiments.results.details import TrialDetails
from experiments.results.frames import csv_text
from experiments.results.paper import paper_table4
from experiments.results.statistics import CellKey
from experiments.tables.facts import describe_progress
from experiments.tables.table import Cell, Row, Table, escape_markdown, render_markdown, render_text
from experiments.tables.table4 import cells_frame, dagger_cells, report_text, result_tables, table4_tables
from tests.experiments.synthetic import read_frame

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "reporting"
PAPER = {"aubc_paper": paper_table4()}
DETAILS = {
    "random-digits-0.2-0.6-0": TrialDetails(
        command="python experiments/trial.py --dataset digits",
        environments=({"device": "A <CPU>", "threads": 1, "torch": "2.11", "version": "0.1.0", "gpus": 0},),
        last_time_ms=1_760_000_000_000,
    )
}


@pytest.fixture
def trials() -> pd.DataFrame:
    """The golden grid's trials."""
    return read_frame(GOLDEN / "trials.csv")


def write_table4(folder: Path, trials: pd.DataFrame, rounds: pd.DataFrame) -> ReportFiles:
    """The report of Table 4."""
    return write_report(
        folder,
        name="table4",
        title="Table 4",
        tables=table4_tables(trials),
        trials=trials,
        rounds=rounds,
        notes=("Recipe: 5 rounds.",),
        details=DETAILS,
        paper=PAPER,
    )


def texts(tables: list[Table], title: str) -> dict[str, list[str]]:
    """The cells of the table called `title`, a list a row."""
    (table,) = (each for each in tables if each.title == title)
    return {row.label: [f"{cell.text}|{cell.mark}{'†' * cell.dagger}" for cell in row.cells] for row in table.rows}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the golden grid's report."""
    folder = tmp_path_factory.mktemp("report")
    write_table4(folder, read_frame(GOLDEN / "trials.csv"), read_frame(GOLDEN / "rounds.csv"))
    return folder


@pytest.mark.parametrize("name", ["table4.md", "table4.tex", "table4.csv", "table4-comparisons.csv"])
def test_report_is_the_golden_file(written: Path, name: str) -> None:
    assert (written / name).read_text() == (GOLDEN / name).read_text()


def test_cells_say_what_is_known(trials: pd.DataFrame) -> None:
    tables = table4_tables(trials)
    assert texts(tables, "digits: AUBC") == {
        "random": ["62.00 ± 4.97|best", "62.00 ± 4.97|best"],
        "conf": ["62.00 ± 4.97|best†", "50.00 ± 0.00|second"],
        "vlpure": ["51.00 ± 2.48|second", "71.00 ± 12.71 (2 of 3 seeds)|†"],
    }
    assert texts(tables, "cifar10: AUBC") == {
        "random": ["95.32 ± ?|best"],
        "mine": ["90.00 ± ?|second†"],
        "vlpure": ["missing (0 of 1 seeds)|"],
    }


def test_cells_know_what_they_are_made_of(trials: pd.DataFrame) -> None:
    aubc, precision, *_ = table4_tables(trials)
    assert [cell.key for cell in aubc.rows[0].cells] == [
        CellKey("digits", 0.2, 0.2, "random"),
        CellKey("digits", 0.2, 0.6, "random"),
    ]
    assert [cell.key for cell in precision.rows[-1].cells] == [None, None]


def test_precision_stands_above_what_uniform_draws_give(trials: pd.DataFrame) -> None:
    rows = texts(table4_tables(trials), "digits: mean precision of the queries")
    assert rows["1 - OOD ratio"] == ["80.00|", "40.00|"]
    assert rows["vlpure"][0] == "100.00 ± 0.00|best"


def test_a_cell_outside_the_grid_is_not_called_missing(trials: pd.DataFrame) -> None:
    rest = trials[~((trials["arm"] == "conf") & (trials["ood_ratio"] == 0.2))]
    assert texts(table4_tables(rest), "digits: AUBC")["conf"] == ["not planned|", "50.00 ± 0.00|second"]


def test_last_accuracy_is_a_table_of_its_own(trials: pd.DataFrame) -> None:
    titles = [table.title for table in result_tables(trials)]
    assert titles[:3] == ["digits: AUBC", "digits: last accuracy", "digits: mean precision of the queries"]


def test_reference_runs_are_no_rivals(trials: pd.DataFrame) -> None:
    assert CellKey("digits", 0.2, 0.2, "conf") in dagger_cells(trials, "aubc")
    trials["ood_ratio"] = trials["ood_ratio"].replace(0.2, 0.0)
    assert not [key for key in dagger_cells(trials, "aubc") if key.ood_ratio == 0]


def test_terminal_table_is_aligned_and_marked(trials: pd.DataFrame) -> None:
    lines = report_text(table4_tables(trials), trials).splitlines()
    assert lines[:5] == [
        "digits: AUBC",
        "mismatch / OOD      20 % / 20 %                     20 % / 60 %",
        "random          62.00 ± 4.97 *                   62.00 ± 4.97 *",
        "conf            62.00 ± 4.97 *†                  50.00 ± 0.00 +",
        "vlpure          51.00 ± 2.48 +   71.00 ± 12.71 (2 of 3 seeds) †",
    ]


def test_terminal_keeps_to_its_width(trials: pd.DataFrame) -> None:
    narrow = report_text(table4_tables(trials), trials, notes=("word " * 40,), width=60)
    assert max(map(len, narrow.splitlines())) <= 60
    assert narrow.count("mismatch / OOD ") == 6  # two tables are continued below themselves


def test_it_is_said_what_is_not_finished(trials: pd.DataFrame) -> None:
    assert describe_progress(trials) == (
        "19 of 21 finished; 1 failed, 1 missing: digits 20 % / 60 % vlpure (seed 1 failed); "
        "cifar10 20 % / 60 % vlpure (seed 0 missing)."
    )
    assert describe_progress(trials[trials["status"] == "finished"]) == "19 of 19 finished."


def test_a_grid_without_any_result_is_a_report_of_missing_cells(trials: pd.DataFrame, tmp_path: Path) -> None:
    trials = trials.assign(status="missing", aubc=None, aubc_paper=None, mean_precision=None, last_accuracy=None)
    assert texts(table4_tables(trials), "digits: AUBC")["random"] == ["missing (0 of 3 seeds)|"] * 2
    assert cells_frame(trials)["mean"].isna().all()
    files = write_table4(tmp_path, trials, read_frame(GOLDEN / "rounds.csv").iloc[:0])
    assert "0 of 21 finished; 21 missing: " in (tmp_path / "table4.md").read_text()
    assert sorted(path.name for path in files.all) == sorted(path.name for path in tmp_path.iterdir())
    assert not list(tmp_path.glob("*.png"))


def test_an_empty_grid_has_no_table(trials: pd.DataFrame) -> None:
    assert table4_tables(trials.iloc[:0]) == []
    assert "Trials: 0 of 0 finished." in report_text([], trials.iloc[:0])


def test_markdown_escapes_what_would_end_a_cell_or_begin_a_tag() -> None:
    cells = (Cell(text="1 < 2", mark="best", dagger=True),)
    table = Table(title="t", corner="a", columns=("b|c",), rows=(Row(label="<i>", cells=cells),))
    assert render_markdown(table) == "### t\n\n| a | b\\|c |\n|:---|---:|\n| &lt;i> | **1 &lt; 2** † |\n"
    assert render_text(table) == "t\na         b|c\n<i>  1 < 2 *†\n"


def test_report_files_are_written(trials: pd.DataFrame, tmp_path: Path) -> None:
    rounds = read_frame(GOLDEN / "rounds.csv")
    rounds.loc[0, "accuracy"] = 1 / 3  # every digit is kept
    files = write_table4(tmp_path / "new", trials, rounds)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in files.all)
    assert files.page == tmp_path / "new" / "index.html"
    for picture in ("curves", "ranks", "penalties"):
        assert (tmp_path / "new" / f"{picture}.png").read_bytes()[:4] == b"\x89PNG"
    pd.testing.assert_frame_equal(read_frame(tmp_path / "new" / "trials.csv"), trials, check_exact=True)
    pd.testing.assert_frame_equal(read_frame(tmp_path / "new" / "rounds.csv"), rounds, check_exact=True)


def test_texts_that_a_spreadsheet_would_run_are_quoted() -> None:
    frame = pd.DataFrame(
        {"arm": ["=cmd()", "+a", "-x", "@b", "plain", "-0.5"], "aubc": [-0.5, -1, 1e-9, math.nan, 0, 2]}
    )
    assert csv_text(frame) == ("strategy,aubc\n'=cmd(),-0.5\n'+a,-1.0\n'-x,1e-09\n'@b,\nplain,0.0\n-0.5,2.0\n")


def test_a_line_break_in_a_name_does_not_break_a_table() -> None:
    assert escape_markdown("a\nb | <c>") == "a b \\| &lt;c>"
