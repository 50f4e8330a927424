"""Table 10: accuracy after the last round, mean precision of the queries, and share of the ID images found by then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from experiments.results.statistics import CellKey, Estimate, estimate_cells, sorted_conditions, unique
from experiments.tables.table import Table, arms_table, marked_cells
from experiments.tables.table4 import PRECISION_TITLE

if TYPE_CHECKING:
    import pandas as pd

ACCURACY_TITLE = "accuracy after the last round"
RECALL_TITLE = "recall, the share of all ID images that are labelled after the last query"


def table10_tables(trials: pd.DataFrame, rounds: pd.DataFrame) -> list[Table]:
    """Three tables per data set: final accuracy, mean precision of the queries, recall.

    The last one only if a trial records its recall, as those with `initial_share` do.
    """
    accuracy, precision = estimate_cells(trials, "last_accuracy"), estimate_cells(trials, "mean_precision")
    recall = _last_recall(trials, rounds)
    tables = []
    for dataset in unique(key.dataset for key in accuracy):
        conditions = [each for each in sorted_conditions(accuracy) if each.dataset == dataset]
        arms = unique(key.arm for key in accuracy if key.dataset == dataset)
        cells = {
            ACCURACY_TITLE: marked_cells(accuracy),
            PRECISION_TITLE: marked_cells(precision),
            **({RECALL_TITLE: marked_cells(recall)} if recall else {}),
        }
        tables += [arms_table(f"{dataset}: {title}", arms, conditions, cell) for title, cell in cells.items()]
    return tables


def _last_recall(trials: pd.DataFrame, rounds: pd.DataFrame) -> Mapping[CellKey, Estimate]:
    """The recall after the last query of each cell, over its finished seeds; empty if no trial records it."""
    if "recall" not in rounds:
        return {}
    last = rounds.sort_values("round").groupby(["fingerprint", "arm"])["recall"].last()
    places = list(zip(trials["fingerprint"], trials["arm"], strict=True))
    return estimate_cells(trials.assign(recall=[last.get(place, float("nan")) for place in places]), "recall")
