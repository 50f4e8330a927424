"""Tables 5 to 8 of hand-made results, and the paper's figures under our names."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from experiments.results.paper import (
    paper_rows,
    paper_table4,
    paper_table5_aubc,
    paper_table5_last_accuracy,
    paper_table6,
    paper_table7,
    paper_table8,
)
from experiments.results.statistics import CellKey, Condition, estimate_cells
from experiments.tables.table import Table
from experiments.tables.table5 import table5_tables
from experiments.tables.table6 import table6_tables
from experiments.tables.tables7and8 import best_baseline, table7_tables, table8_tables

CIFAR = Condition("cifar10", 0.4, 0.6)


def make_trials(cells: dict[tuple[Condition, str], list[float | None]], **columns: Any) -> pd.DataFrame:
    """A row for each seed of each cell: the value is the AUBC, and other shares are told by it; None: not finished."""
    rows = []
    for (condition, strategy), values in cells.items():
        for seed, value in enumerate(values):
            finished = {"status": "finished", "aubc": value} if value is not None else {"status": "missing"}
            shares = {} if value is None else {
                "aubc_paper": 0.9 * value, "last_accuracy": value / 2, "mean_precision": value / 4,
            }  # fmt: skip
            rows.append({**condition._asdict(), "arm": strategy, "seed": seed, **finished, **shares})
    frame = pd.DataFrame(rows)
    for name in ("aubc", "aubc_paper", "last_accuracy", "mean_precision"):
        frame[name] = frame.get(name, pd.Series(dtype=float)).astype(float)
    return frame


def texts(table: Table) -> dict[str, list[str]]:
    return {row.label: [f"{cell.text}|{cell.mark}" for cell in row.cells] for row in table.rows}


def test_table_5_has_a_column_a_domain_and_both_rules_beside_the_paper() -> None:
    sketch, mine = Condition("domainnet-sketch", 0.5, 0.5), Condition("folder:mine", 0.5, 0.5)
    trials = make_trials(
        {
            (sketch, "random"): [0.2, 0.4], (mine, "random"): [0.5, 0.5],
            (sketch, "vlpure-domain"): [0.6, None], (mine, "vlpure-domain"): [0.7, 0.7],
        }
    )  # fmt: skip
    tables = table5_tables(trials)
    assert [table.title for table in tables] == [
        "AUBC", "accuracy after the last round", "mean precision of the queries",
        "AUBC divided by n - 1 and by n, and the paper's, which fits neither rule well",
    ]  # fmt: skip
    assert tables[0].columns == ("sketch", "folder:mine 50 % / 50 %")
    assert texts(tables[0]) == {
        "random": ["30.00 ± 127.06|", "50.00 ± 0.00|second"],
        "vlpure-domain": ["60.00 ± ? (1 of 2 seeds)|", "70.00 ± 0.00|best"],
    }
    assert tables[0].rows[0].cells[0].key == CellKey(*sketch, "random")
    assert texts(tables[1])["random"] == ["15.00 ± 63.53|", "25.00 ± 0.00|second"]
    assert texts(tables[3])["vlpure-domain"] == [
        "60.00 ± ? (1 of 2 seeds); by n 54.00 ± ? (1 of 2 seeds); paper 37.51|", "70.00 ± 0.00; by n 63.00 ± 0.00|",
    ]  # fmt: skip
    assert len(table5_tables(trials[trials["dataset"] == "folder:mine"])) == 3


def test_table_6_goes_from_zero_shot_to_full_shot() -> None:
    none = CIFAR._replace(ood_ratio=0.0)
    trials = make_trials(
        {
            (none, "zero-shot"): [0.9, 0.9], (CIFAR, "vlpure-clip"): [0.8, None], (none, "linear-probe"): [1.0, 1.0],
            (Condition("digits", 0.2, 0.6), "vlpure-clip"): [0.8, 0.8],
            (CIFAR._replace(ood_ratio=0.1), "vlpure-clip"): [0.8, 0.8],
        }
    )  # fmt: skip
    rounds = pd.DataFrame(
        [
            {**CIFAR._asdict(), "arm": "vlpure-clip", "seed": seed, "round": number, "accuracy": accuracy}
            for seed, number, accuracy in ((0, 0, 0.5), (0, 1, 0.7), (1, 0, 0.6))
        ]
    )
    ours, beside = table6_tables(trials, rounds)
    assert ours.columns == ("zero-shot", "round 0", "round 1", "full-shot")
    assert texts(ours) == {
        "cifar10 40 % / 60 %": [
            "45.00 ± 0.00|", "55.00 ± 63.53|", "70.00 ± ? (1 of 2 seeds)|", "50.00 ± 0.00|",
        ],
        "digits 20 % / 60 %": ["not planned|", "-|", "-|", "not planned|"],
        "cifar10 40 % / 10 %": ["45.00 ± 0.00|", "-|", "-|", "50.00 ± 0.00|"],  # not the paper's ratio
    }  # fmt: skip
    assert [cell.key and cell.key.arm for cell in ours.rows[1].cells] == [
        "zero-shot", "vlpure-clip", "vlpure-clip", "linear-probe",
    ]  # fmt: skip
    assert texts(beside) == {
        "cifar10 40 % / 60 %": [
            "45.00 ± 0.00; paper 98.54, -53.54|", "55.00 ± 63.53; paper 98.75, -43.75|",
            "70.00 ± ? (1 of 2 seeds); paper 98.88, -28.88|", "50.00 ± 0.00; paper 99.04, -49.04|",
        ],
    }  # fmt: skip
    assert table6_tables(trials.iloc[:0], rounds) == []


def test_table_7_names_the_best_baseline_that_has_all_seeds() -> None:
    trials = make_trials(
        {
            (CIFAR, "random"): [0.5, 0.5], (CIFAR, "conf"): [0.6, 0.6], (CIFAR, "ll"): [0.9, None],
            (CIFAR, "vlpure"): [0.7, 0.7], (CIFAR, "vlpure-bare"): [0.6, 0.6],
            (CIFAR._replace(ood_ratio=0.0), "id-only"): [0.8, 0.8],
        }
    )  # fmt: skip
    aubc, precision = table7_tables(trials)
    assert aubc.columns == ("cifar10 40 % / 60 %",)
    assert texts(aubc) == {
        "best baseline": ["60.00 ± 0.00 (conf)|second"],
        "tuned scale, visual weights (vlpure)": ["70.00 ± 0.00|best"],
        "fixed scale, no visual weights (vlpure-bare)": ["60.00 ± 0.00|second"],
    }
    assert aubc.rows[0].cells[0].key == CellKey(*CIFAR, "conf")
    assert texts(precision)["best baseline"] == ["15.00 ± 0.00 (conf)|second"]  # the best by AUBC, not by precision
    assert table7_tables(trials.iloc[:0]) == []


def test_without_a_whole_baseline_none_is_named() -> None:
    trials = make_trials({(CIFAR, "random"): [0.5, None], (CIFAR, "vlpure"): [0.7, 0.7]})
    assert best_baseline(estimate_cells(trials, "aubc"), CIFAR) is None
    assert texts(table7_tables(trials)[0])["best baseline"] == ["none with all seeds|"]


def test_table_8_says_what_the_purity_step_adds_seed_by_seed() -> None:
    trials = make_trials(
        {
            (CIFAR, "conf"): [0.5, 0.6], (CIFAR, "vlpure"): [0.6, 0.7],
            (CIFAR, "ll"): [0.5, 0.6], (CIFAR, "vlpure-ll"): [0.4, None],
            (CIFAR, "coreset"): [0.5, 0.6],
        }
    )  # fmt: skip
    aubc, _, gains = table8_tables(trials)
    assert list(texts(aubc)) == [
        "best baseline", "conf", "purity, then conf", "ll", "purity, then ll", "coreset",
    ]  # fmt: skip
    assert texts(gains) == {
        "vlpure - conf": ["+10.00 ± 0.00|"],
        "vlpure-ll - ll": ["-10.00 ± ? (1 of 2 pairs)|"],
        "vlpure-coreset - coreset": ["not planned|"],
    }


def test_the_papers_best_baselines_are_those_of_its_table_4() -> None:
    for name in ("table7.csv", "table8.csv"):
        column = "strategy" if name == "table7.csv" else "informativeness"
        rows = [row for row in paper_rows(name) if row[column] == "best-baseline"]
        assert len(rows) == 6
        for row in rows:
            condition = Condition(row["dataset"], float(row["mismatch_ratio"]), float(row["ood_ratio"]))
            others = [v for k, v in paper_table4().items() if k.condition == condition and k.arm != "vlpure"]
            assert max(others) == pytest.approx(float(row["aubc_percent"]) / 100)


def test_the_papers_figures_stand_under_our_names() -> None:
    assert paper_table5_aubc()[CellKey("domainnet-real", 0.5, 0.5, "vlpure-domain")] == pytest.approx(0.7016)
    assert paper_table5_last_accuracy()[CellKey("domainnet-clipart", 0.5, 0.5, "ll")] == pytest.approx(0.3723)
    assert paper_table6()["cifar100", 0.3] == pytest.approx(
        {"zero-shot": 0.8767, "round 0": 0.8596, "round 1": 0.8759, "round 2": 0.8953, "round 3": 0.9035,
         "full-shot": 0.9141}
    )  # fmt: skip
    assert paper_table7()[CellKey("cifar100", 0.4, 0.6, "vlpure-no-visual")] == pytest.approx(0.4611)
    assert paper_table7()[CellKey("cifar100", 0.4, 0.6, "vlpure-fixed-scale")] == pytest.approx(0.4246)
    assert paper_table7()[CellKey("cifar100", 0.4, 0.6, "vlpure-bare")] == pytest.approx(0.1729)
    assert paper_table8()[CellKey("cifar10", 0.4, 0.1, "vlpure-coreset")] == pytest.approx(0.8169)
    assert [len(each()) for each in (paper_table5_aubc, paper_table6, paper_table7, paper_table8)] == [42, 9, 24, 18]
    for key in paper_table7():  # where both have it, the tables agree
        if key.arm == "vlpure":
            assert paper_table7()[key] == paper_table4()[key] == paper_table8()[key]


def test_what_cannot_be_told_from_the_best_has_a_dagger() -> None:
    trials = make_trials(
        {
            (CIFAR, "random"): [0.50, 0.51, 0.50], (CIFAR, "conf"): [0.58, 0.66, 0.61],
            (CIFAR, "vlpure"): [0.62, 0.64, 0.63],
        }
    )  # fmt: skip
    first = [table7_tables(trials)[0], table8_tables(trials)[0], table5_tables(trials)[0]]
    assert [{row.label: row.cells[0].dagger for row in table.rows} for table in first] == [
        {"best baseline": True, "tuned scale, visual weights (vlpure)": False},
        {"best baseline": True, "conf": True, "purity, then conf": False},
        {"random": False, "conf": True, "vlpure": False},
    ]
