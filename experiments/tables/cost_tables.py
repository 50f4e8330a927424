"""Tables of the costs of strategies: wasted labels, labels needed, time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from experiments.results.costs import (
    ID_ONLY,
    SHARES_TO_REACH,
    LabelsNeeded,
    id_only_accuracies,
    labels_needed,
    time_spent,
    wasted_labels,
)
from experiments.results.details import Details
from experiments.results.statistics import CellKey, sorted_conditions, unique
from experiments.tables.table import Cell, Table, arms_table, format_estimate, format_ratio, text_table

if TYPE_CHECKING:
    import pandas as pd


def cost_tables(trials: pd.DataFrame, rounds: pd.DataFrame, details: Details) -> list[Table]:
    """Tables of wasted labels, of labels needed to come near the ID-only accuracy (if known), and of time."""
    tables = []
    wasted = wasted_labels(trials)
    shares = SHARES_TO_REACH if id_only_accuracies(trials) else ()
    needed = {share: labels_needed(trials, rounds, share) for share in shares}
    for dataset in unique(trials["dataset"]):
        keys = [key for key in wasted if key.dataset == dataset]
        if keys:
            texts = {key: format_estimate(wasted[key], scale=1, digits=1) for key in keys}
            tables.append(_table(f"{dataset}: labels spent on OOD images", texts))
        for share, by_key in needed.items():
            texts = {key: _labels_text(by_key.get(key)) for key in keys}
            if any(key in by_key for key in keys):
                tables.append(_table(f"{dataset}: labels to reach {format_ratio(share)} of ID-only", texts))
    return [*tables, *_time_tables(rounds, details)]


def cost_lines(trials: pd.DataFrame) -> list[str]:
    """Lines that a reader needs to understand these tables."""
    lines = [
        "Labels spent on OOD images: at the end of a trial, those of the initial set included; mean ± half the width "
        "of the 95 % t-interval over seeds."
    ]
    if id_only_accuracies(trials):
        lines.append(
            "Labels to reach a share of ID-only: labels bought, the initial set included, at the first round whose "
            f"accuracy is at least that share of the last accuracy of the trial without OOD images ({ID_ONLY}) of the "
            "same data set, mismatch ratio and seed. Median over seeds; a seed that never reaches it counts as "
            "more than all."
        )
    else:
        lines.append(
            f"Labels needed to reach the ID-only accuracy are not known: no trial without OOD images ({ID_ONLY}) is "
            "finished here."
        )
    return lines


def _time_tables(rounds: pd.DataFrame, details: Details) -> list[Table]:
    spent = time_spent(rounds, details)
    tables = []
    for dataset in unique(key[0] for key in spent):
        rows = [
            (
                arm,
                (
                    _seconds(value.seconds_a_query.mean),
                    _seconds(value.seconds_a_training.mean),
                    f"{value.hours:.3f}",
                    "not known" if math.isnan(value.gpu_hours) else f"{value.gpu_hours:.3f}",
                ),
            )
            for (of, arm), value in spent.items()
            if of == dataset
        ]
        columns = ("seconds per query", "seconds per training", "trial hours", "GPU-hours")
        tables.append(text_table(f"{dataset}: time", corner="strategy", columns=columns, rows=rows))
    return tables


def _table(title: str, texts: dict[CellKey, str]) -> Table:
    arms = unique(key.arm for key in texts)
    return arms_table(title, arms, sorted_conditions(texts), lambda key: Cell(text=texts.get(key, "-"), key=key))


def _labels_text(needed: LabelsNeeded | None) -> str:
    if needed is None:
        return "not known"
    seeds = f"({needed.num_reached} of {needed.num_seeds} seeds)"
    if math.isinf(needed.median):
        return f"> {needed.most} {seeds}"
    return f"{needed.median:g}" if needed.num_reached == needed.num_seeds else f"{needed.median:g} {seeds}"


def _seconds(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
