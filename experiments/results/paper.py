"""The paper's numbers, read from experiments/paper."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from experiments.results.statistics import CellKey

PaperValues = Mapping[str, Mapping[CellKey, float]]
"""Metric (`aubc_paper` or `last_accuracy`) -> cell -> the paper's value, a share in [0, 1]."""

FOLDER = Path(__file__).resolve().parents[1] / "paper"
DOMAIN_RATIOS = (0.5, 0.5)
"""Mismatch and OOD ratio that presets give DomainNet's trials, whose split reads neither."""


@cache
def paper_table4() -> dict[CellKey, float]:
    """AUBC of the paper's Table 4 in [0, 1], by its rule (divided by n): to be compared with `aubc_paper` only."""
    return {_cell(row, row["strategy"]): _share(row["aubc_percent"]) for row in paper_rows("table4.csv")}


@cache
def paper_table5_aubc() -> dict[CellKey, float]:
    """AUBC of the paper's Table 5 in [0, 1]. It fits neither rule well: it is shown, but not subtracted."""
    return _of_domains("aubc_percent")


@cache
def paper_table5_last_accuracy() -> dict[CellKey, float]:
    """Accuracy after the last round of the paper's Table 5 in [0, 1]."""
    return _of_domains("last_accuracy_percent")


@cache
def paper_table6() -> dict[tuple[str, float], dict[str, float]]:
    """(data set, mismatch ratio) -> column (`zero-shot`, `round 0` ... `full-shot`) -> accuracy in [0, 1]."""
    names = {"zero_shot": "zero-shot", "full_shot": "full-shot", **{f"round_{n}": f"round {n}" for n in range(4)}}
    return {
        (row["dataset"], float(row["mismatch_ratio"])): {name: _share(row[column]) for column, name in names.items()}
        for row in paper_rows("table6.csv")
    }


@cache
def paper_table7() -> dict[CellKey, float]:
    """AUBC of the paper's Table 7 in [0, 1], by its rule, by arm; its best baselines are Table 4's."""
    arms = {"11": "vlpure", "10": "vlpure-no-visual", "01": "vlpure-fixed-scale", "00": "vlpure-bare"}
    return {
        _cell(row, arms[row["self_temperature_tuning"] + row["visual_similarity_weights"]]): _share(row["aubc_percent"])
        for row in paper_rows("table7.csv")
        if row["strategy"] == "vlpure"
    }


@cache
def paper_table8() -> dict[CellKey, float]:
    """AUBC of the paper's Table 8 in [0, 1], by its rule; its best baselines are Table 4's."""
    arms = {"conf": "vlpure", "ll": "vlpure-ll", "coreset": "vlpure-coreset"}
    return {
        _cell(row, arms[row["informativeness"]]): _share(row["aubc_percent"])
        for row in paper_rows("table8.csv")
        if row["informativeness"] in arms
    }


def _of_domains(column: str) -> dict[CellKey, float]:
    return {
        CellKey(f"domainnet-{row['domain']}", *DOMAIN_RATIOS, row["strategy"]): _share(row[column])
        for row in paper_rows("table5.csv")
    }


def _cell(row: Mapping[str, str], strategy: str) -> CellKey:
    return CellKey(row["dataset"], float(row["mismatch_ratio"]), float(row["ood_ratio"]), strategy)


def _share(percent: str) -> float:
    return float(percent) / 100


def paper_rows(name: str) -> list[dict[str, str]]:
    """The rows of a file in `experiments/paper`, as texts."""
    with (FOLDER / name).open(newline="") as file:
        return list(csv.DictReader(file))
