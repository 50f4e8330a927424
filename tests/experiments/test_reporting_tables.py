"""Table 4 of a hand-made grid: ties, a failed seed, a missing cell, one data set that the paper has."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from experiments.reporting.files import ReportFiles, write_report
from experiments.reporting.layout import Cell, Row, Table, render_markdown, render_text
from experiments.reporting.paper_values import paper_table4
from experiments.reporting.tables import cells_frame, report_markdown, report_text, table4_tables

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "reporting"


@pytest.fixture
def trials() -> pd.DataFrame:
    """The golden grid's trials."""
    return pd.read_csv(GOLDEN / "trials.csv")


PAPER = {"aubc_paper": paper_table4()}


def markdown(trials: pd.DataFrame, *, notes: tuple[str, ...] = ()) -> str:
    """The page of Table 4."""
    return report_markdown("Table 4", table4_tables(trials), trials, notes=notes)


def text(trials: pd.DataFrame, *, notes: tuple[str, ...] = (), width: int = 120) -> str:
    """Table 4 for a terminal."""
    return report_text(table4_tables(trials), trials, notes=notes, width=width)


def write_table4(folder: Path, trials: pd.DataFrame, rounds: pd.DataFrame, notes: tuple[str, ...] = ()) -> ReportFiles:
    """The report of Table 4."""
    return write_report(
        folder,
        name="table4",
        title="Table 4",
        tables=table4_tables(trials),
        trials=trials,
        rounds=rounds,
        notes=notes,
        paper=PAPER,
    )


def texts(trials: pd.DataFrame, title: str) -> dict[str, list[str]]:
    """The cells of the table called `title`, a list a row."""
    (table,) = (each for each in table4_tables(trials) if each.title == title)
    return {row.label: [f"{cell.text}|{cell.mark}" for cell in row.cells] for row in table.rows}


def test_markdown_is_the_golden_file(trials: pd.DataFrame) -> None:
    assert markdown(trials, notes=("Recipe: 5 rounds.",)) == (GOLDEN / "table4.md").read_text()


def test_frame_is_the_golden_file(trials: pd.DataFrame) -> None:
    golden = pd.read_csv(GOLDEN / "table4.csv", keep_default_na=False, na_values={"mean": [""], "sd": [""]})
    ours = cells_frame(trials, PAPER)
    assert list(ours.columns) == list(golden.columns)
    for column in ours.columns:
        if column in ("mean", "sd", "interval_low", "interval_high", "paper"):
            expected = pd.to_numeric(golden[column]).tolist()
            assert ours[column].tolist() == pytest.approx(expected, abs=1e-6, nan_ok=True), column
        else:
            assert ours[column].tolist() == golden[column].tolist(), column


def test_cells_say_what_is_known(trials: pd.DataFrame) -> None:
    assert texts(trials, "digits: AUBC") == {
        "random": ["62.00 ± 4.97|best", "62.00 ± 4.97|best"],
        "conf": ["62.00 ± 4.97|best", "50.00 ± 0.00|second"],
        "vlpure": ["51.00 ± 2.48|second", "71.00 ± 12.71 (2 of 3 seeds)|"],
    }
    assert texts(trials, "cifar10: AUBC") == {
        "random": ["95.32 ± ?|best"],
        "mine": ["90.00 ± ?|second"],
        "vlpure": ["missing (0 of 1 seeds)|"],
    }


def test_precision_stands_above_what_uniform_draws_give(trials: pd.DataFrame) -> None:
    rows = texts(trials, "digits: mean precision of the queries")
    assert rows["1 - OOD ratio"] == ["80.00|", "40.00|"]
    assert rows["vlpure"][0] == "100.00 ± 0.00|best"


def test_the_papers_figure_stands_beside_ours_by_the_same_rule(trials: pd.DataFrame) -> None:
    assert texts(trials, "cifar10: AUBC divided by n, ours next to the paper's") == {
        "random": ["79.43 ± ?; paper 85.79, -6.36|"],  # aubc_paper 0.7943, not aubc 0.9532
        "mine": ["75.00 ± ? (not in the paper)|"],
        "vlpure": ["missing (0 of 1 seeds); paper 87.64|"],
    }


def test_a_condition_that_the_paper_has_not_is_not_compared(trials: pd.DataFrame) -> None:
    trials["ood_ratio"] = trials["ood_ratio"].replace(0.6, 0.5)
    assert [table.title for table in table4_tables(trials)] == [
        "digits: AUBC",
        "digits: mean precision of the queries",
        "cifar10: AUBC",
        "cifar10: mean precision of the queries",
    ]


def test_a_cell_outside_the_grid_is_not_called_missing(trials: pd.DataFrame) -> None:
    rest = trials[~((trials["strategy"] == "conf") & (trials["ood_ratio"] == 0.2))]
    assert texts(rest, "digits: AUBC")["conf"] == ["not planned|", "50.00 ± 0.00|second"]


def test_terminal_table_is_aligned_and_marked(trials: pd.DataFrame) -> None:
    lines = text(trials).splitlines()
    assert lines[:5] == [
        "digits: AUBC",
        "mismatch / OOD     20 % / 20 %                     20 % / 60 %",
        "random          62.00 ± 4.97 *                  62.00 ± 4.97 *",
        "conf            62.00 ± 4.97 *                  50.00 ± 0.00 +",
        "vlpure          51.00 ± 2.48 +  71.00 ± 12.71 (2 of 3 seeds)",
    ]


def test_terminal_keeps_to_its_width(trials: pd.DataFrame) -> None:
    narrow = text(trials, notes=("word " * 40,), width=60)
    assert max(map(len, narrow.splitlines())) <= 60
    assert narrow.count("mismatch / OOD ") == 7  # two tables are continued below themselves


def test_footer_tells_what_is_not_finished(trials: pd.DataFrame) -> None:
    assert (
        "- Trials: 19 of 21 finished; 1 failed, 1 missing: digits 20 % / 60 % vlpure (seed 1 failed); "
        "cifar10 20 % / 60 % vlpure (seed 0 missing).\n"
    ) in markdown(trials)
    finished = trials[trials["status"] == "finished"]
    assert "- Trials: 19 of 19 finished.\n" in markdown(finished)


def test_a_grid_without_any_result_is_a_table_of_missing_cells(trials: pd.DataFrame) -> None:
    trials = trials.assign(status="missing", aubc=None, aubc_paper=None, mean_precision=None, last_accuracy=None)
    assert texts(trials, "digits: AUBC")["random"] == ["missing (0 of 3 seeds)|"] * 2
    assert "- Trials: 0 of 21 finished; 21 missing: " in markdown(trials)
    assert cells_frame(trials, PAPER)["mean"].isna().all()


def test_an_empty_grid_has_no_table(trials: pd.DataFrame) -> None:
    assert table4_tables(trials.iloc[:0]) == []
    assert "Trials: 0 of 0 finished." in text(trials.iloc[:0])


def test_markdown_escapes_what_would_end_a_cell() -> None:
    table = Table(title="t", corner="a", columns=("b|c",), rows=(Row(label="d", cells=(Cell(text="1", mark="best"),)),))
    assert render_markdown(table) == "### t\n\n| a | b\\|c |\n|:---|---:|\n| d | **1** |\n"
    assert render_text(table) == "t\na  b|c\nd  1 *\n"


def test_report_files_are_written(trials: pd.DataFrame, tmp_path: Path) -> None:
    rounds = pd.read_csv(GOLDEN / "rounds.csv")
    rounds.loc[0, "accuracy"] = 1 / 3  # every digit is kept
    files = write_table4(tmp_path / "new", trials, rounds, notes=("Recipe: 5 rounds.",))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in files.all)
    assert files.table_markdown.read_text() == (GOLDEN / "table4.md").read_text()
    assert files.table_csv.read_text() == (GOLDEN / "table4.csv").read_text()
    assert files.curves is not None
    assert files.curves.read_bytes()[:4] == b"\x89PNG"
    pd.testing.assert_frame_equal(pd.read_csv(files.trials), trials, check_exact=True)
    pd.testing.assert_frame_equal(pd.read_csv(files.rounds), rounds, check_exact=True)


def test_without_rounds_there_is_no_picture(trials: pd.DataFrame, tmp_path: Path) -> None:
    rounds = pd.read_csv(GOLDEN / "rounds.csv").iloc[:0]
    files = write_table4(tmp_path, trials, rounds)
    assert files.curves is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rounds.csv", "table4.csv", "table4.md", "trials.csv"]
