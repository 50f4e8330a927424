"""The paper's own figures, read from experiments/paper."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from experiments.reporting.statistics import CellKey

PaperValues = Mapping[str, Mapping[CellKey, float]]
"""Metric (`aubc_paper` or `last_accuracy`) -> cell -> the paper's value, a share in [0, 1]."""

FOLDER = Path(__file__).resolve().parents[1] / "paper"


@cache
def paper_table4() -> dict[CellKey, float]:
    """AUBC of the paper's Table 4 in [0, 1], by its rule (divided by n): compare with `aubc_paper` only."""
    with (FOLDER / "table4.csv").open(newline="") as file:
        return {
            CellKey(row["dataset"], float(row["mismatch_ratio"]), float(row["ood_ratio"]), row["strategy"]): float(
                row["aubc_percent"]
            )
            / 100
            for row in csv.DictReader(file)
        }
