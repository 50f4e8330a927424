"""Tables 1 to 3 from the data code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from experiments import report
from experiments.results.paper import paper_rows
from experiments.tables import tables1to3 as data_tables
from experiments.tables.table import Table
from tests.data.published_files import write_domainnet


def texts(table: Table) -> dict[str, list[str]]:
    return {row.label: [cell.text for cell in row.cells] for row in table.rows}


@pytest.fixture(autouse=True)
def _no_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VLPURE_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))


def test_the_papers_first_two_tables_are_ours() -> None:
    first, second = texts(data_tables.table1(None)), texts(data_tables.table2())
    assert first["domainnet-painting"] == ["224", "345", "50,416", "21,850", "none", "the same"]
    assert second["tiny-imagenet 30 % / 40 %"] == ["600", "400", "29,400", "19,600", "the same"]
    assert (len(first), len(second)) == (9, 36)
    assert {row[-1] for row in (*first.values(), *second.values())} == {"the same"}


def test_what_differs_from_the_paper_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def altered(name: str) -> list[dict[str, str]]:
        row = paper_rows(name)[0]
        return [row | {"num_test": "10001"} if name == "table1.csv" else row | {"unlabelled_ood": "1062"}]

    monkeypatch.setattr(data_tables, "paper_rows", altered)
    assert texts(data_tables.table1(None))["cifar10"][-1] == "differs: 32, 10, 50,000, 10,001"
    assert texts(data_tables.table2())["cifar10 20 % / 10 %"][-1] == "differs: 450, 50, 9,550, 1,062"


def test_one_row_of_the_papers_third_table_does_not_add_up() -> None:
    rows = texts(data_tables.table3(None, seeds=range(5)))
    here = "the lists are not here"
    assert rows.pop("painting") == [
        "50", "6,806", "402,976", "differs: 400,816, which does not add up to 409,832 images", here,
    ]  # fmt: skip
    assert rows["real"] == ["50", "15,440", "394,342", "the same", here]
    assert {row[3] for row in rows.values()} == {"the same"}


def test_files_that_are_here_are_counted(tmp_path: Path) -> None:
    write_domainnet(tmp_path)
    (first, _, third) = data_tables.data_tables(tmp_path, seeds=(0, 1))
    assert texts(first)["domainnet-sketch"][4].startswith("72 and 8 (NOT the published lists")
    # All four classes are ID: of 3 images each one starts labelled; 5 other domains of 12.
    assert texts(third)["sketch"][-1] == "8 + 60; 8 + 60"


def test_the_command_prints_them(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["report.py", "--data"])
    assert report.main() == 0
    out = capsys.readouterr().out
    assert [line.split(":")[0] for line in out.splitlines() if line.startswith("Table ")] == [
        "Table 1", "Table 2", "Table 3",
    ]  # fmt: skip
    assert "402,976" in out
    assert max(map(len, out.splitlines())) <= 160
