"""Table 4: AUBC and precision of each strategy in each condition; and the cells of any table as a frame."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from experiments.results.comparison import collect_scores, compare_with_best, not_separable
from experiments.results.paper import PaperValues
from experiments.results.statistics import (
    METRICS,
    CellKey,
    estimate_cells,
    sorted_conditions,
    unique,
)
from experiments.tables.facts import result_facts
from experiments.tables.table import Cell, Row, Table, arms_table, mark_cells, marked_cells, percent, render_text

if TYPE_CHECKING:
    import pandas as pd

AUBC_TITLE = "AUBC"
PRECISION_TITLE = "mean precision of the queries"


def table4_tables(trials: pd.DataFrame) -> list[Table]:
    """Two tables per data set: AUBC, and the mean precision of the queries."""
    aubc, precision = estimate_cells(trials, "aubc"), estimate_cells(trials, "mean_precision")
    daggers = dagger_cells(trials, "aubc")
    tables = []
    for dataset in unique(key.dataset for key in aubc):
        conditions = [each for each in sorted_conditions(aubc) if each.dataset == dataset]
        arms = unique(key.arm for key in aubc if key.dataset == dataset)
        share = Row(
            label="1 - OOD ratio", cells=tuple(Cell(text=percent(each.uniform_precision)) for each in conditions)
        )
        found = arms_table(f"{dataset}: {PRECISION_TITLE}", arms, conditions, marked_cells(precision))
        tables += [
            arms_table(f"{dataset}: {AUBC_TITLE}", arms, conditions, marked_cells(aubc, daggers=daggers)),
            replace(found, rows=(*found.rows, share)),
        ]
    return tables


def result_tables(trials: pd.DataFrame) -> list[Table]:
    """Three tables per data set: AUBC, last accuracy, and the mean precision of the queries."""
    titles = {"aubc": AUBC_TITLE, "last_accuracy": "last accuracy", "mean_precision": PRECISION_TITLE}
    daggers = {"aubc": dagger_cells(trials, "aubc")}
    cells = {
        metric: marked_cells(estimate_cells(trials, metric), daggers=daggers.get(metric, frozenset()))
        for metric in titles
    }
    keys = list(estimate_cells(trials, "aubc"))
    return [
        arms_table(
            f"{dataset}: {title}",
            unique(key.arm for key in keys if key.dataset == dataset),
            [each for each in sorted_conditions(keys) if each.dataset == dataset],
            cells[metric],
        )
        for dataset in unique(key.dataset for key in keys)
        for metric, title in titles.items()
    ]


def dagger_cells(trials: pd.DataFrame, metric: str) -> frozenset[CellKey]:
    """The cells whose value is not the best of its condition, but cannot be separated from it.

    By the paired t-test over seeds, adjusted by Holm over all rivals of the best. Reference runs without OOD images are
    not compared.
    """
    scores = collect_scores(trials[trials["ood_ratio"] > 0], metric)
    return frozenset(key for key in not_separable(compare_with_best(scores)) if scores[key.condition][key.arm])


def report_text(tables: Sequence[Table], trials: pd.DataFrame, *, notes: Sequence[str] = (), width: int = 120) -> str:
    """The tables for a terminal of `width` characters, followed by the facts of the result and by `notes`."""
    parts = [render_text(table, width=width) for table in tables]
    lines = [f"{fact.name}: {fact.text}" for fact in result_facts(trials, marks="* best, + second")] + list(notes)
    footer = "\n".join(textwrap.fill(line, width, subsequent_indent="  ") for line in lines)
    return "\n".join([*parts, footer]) + "\n"


def cells_frame(trials: pd.DataFrame, paper: PaperValues | None = None) -> pd.DataFrame:
    """One row per cell and metric, shares in [0, 1].

    Columns: dataset, mismatch_ratio, ood_ratio, arm, metric, num_seeds, num_planned, mean, sd, interval_low,
    interval_high, mark (best, second or empty, as in the table), not_separable (`dagger_cells`), paper. NaN if
    unknown.
    """
    import pandas as pd

    paper = paper or {}
    rows = []
    for metric in METRICS:
        estimates = estimate_cells(trials, metric)
        marks, daggers = mark_cells(estimates), dagger_cells(trials, metric)
        for key, value in estimates.items():
            rows.append(
                {
                    **key._asdict(),
                    "metric": metric,
                    "num_seeds": value.num_seeds,
                    "num_planned": value.num_planned,
                    "mean": value.mean,
                    "sd": value.sd,
                    "interval_low": value.mean - value.half_width,
                    "interval_high": value.mean + value.half_width,
                    "mark": marks[key],
                    "not_separable": key in daggers,
                    "paper": paper.get(metric, {}).get(key, math.nan),
                }
            )
    return pd.DataFrame(rows)
