"""Table 9: how well each purity detector separates ID from OOD, by the number of labels bought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.results.detection import Crossing, crossings, stage_estimates
from experiments.results.statistics import CellKey, Condition, Estimate, rank_marks, sorted_conditions, unique
from experiments.tables.table import (
    DIGITS,
    Cell,
    Row,
    Table,
    condition_name,
    format_difference,
    format_estimate,
)
from strategies.purity.detectors import DETECTORS

if TYPE_CHECKING:
    import pandas as pd

TEXT_ROW, PROBE_ROW = "vlpure-no-visual", "vlpure-probe"
"""The two rows compared: ATD without visual weights, which learns only a scale, and the probe, which reads no text."""
ROWS = {
    "vlpure": "atd, visual weights (vlpure)",
    TEXT_ROW: "atd",
    **{f"vlpure-{name}": name for name in DETECTORS if name != "atd"},
}
"""Arm -> label of its row."""
CAPTION_ROWS = tuple(f"vlpure-{name}" for name, each in DETECTORS.items() if "captioner" in each.needs)
"""Arms that a grid has only with a captioner."""
METRICS = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy of the decision"}


def table9_tables(stages: pd.DataFrame) -> list[Table]:
    """Tables of AUROC and balanced accuracy per condition, with a column per number of labels, then of differences
    and crossings."""
    if stages.empty:
        return []
    tables = []
    for metric, title in METRICS.items():
        estimates = stage_estimates(stages, metric)
        conditions = sorted_conditions(key for key, _ in estimates)
        tables += [_condition_table(f"{condition_name(each)}: {title}", each, stages, estimates) for each in conditions]
    differences = _difference_table(stages)
    tables += [differences] if differences else []
    crossed = crossings(stages, ahead=PROBE_ROW, of=TEXT_ROW)
    return tables + ([_crossing_table(crossed)] if crossed else [])


def row_label(arm: str) -> str:
    """Label of an arm's row."""
    return ROWS.get(arm, arm)


def _condition_table(
    title: str, condition: Condition, stages: pd.DataFrame, estimates: dict[tuple[CellKey, int], Estimate]
) -> Table:
    """The table of one condition: a row per detector, a column per number of labels."""
    arms = _arms(stages, condition)
    columns = sorted({labels for key, labels in estimates if key.condition == condition})
    by_column = [[estimates.get((CellKey(*condition, arm), labels)) for arm in arms] for labels in columns]
    marks = [rank_marks(column, digits=DIGITS + 2) for column in by_column]
    rows = tuple(
        Row(
            label=row_label(arm),
            cells=tuple(
                Cell(
                    text=format_estimate(by_column[column][number]),
                    mark=marks[column][number],
                    key=CellKey(*condition, arm),
                )
                for column in range(len(columns))
            ),
        )
        for number, arm in enumerate(arms)
    )
    names = tuple(f"{labels:,} labels" for labels in columns)
    return Table(title=title, corner="detector", columns=names, rows=rows)


def _difference_table(stages: pd.DataFrame) -> Table | None:
    """The table of each detector's AUROC minus that of ATD without visual weights, paired by seed."""
    from experiments.results.statistics import estimate

    columns = sorted(set(stages["labels"]))
    rows = []
    for condition in sorted_conditions(key for key, _ in stage_estimates(stages, "auroc")):
        table = _of(stages, condition).pivot_table(index=["labels", "seed"], columns="arm", values="auroc")
        if TEXT_ROW not in table:
            continue
        for arm in _arms(stages, condition):
            if arm == TEXT_ROW:
                continue
            lead = (table[arm] - table[TEXT_ROW]).dropna()
            cells = [
                Cell(text=format_difference(estimate(lead.xs(labels, level="labels"))))
                if labels in lead.index.get_level_values("labels")
                else Cell(text="")
                for labels in columns
            ]
            rows.append(Row(label=f"{condition_name(condition)}: {row_label(arm)}", cells=tuple(cells)))
    if not rows:
        return None
    return Table(
        title="AUROC minus that of atd, paired by seed, percentage points",
        corner="detector",
        columns=tuple(f"{labels:,} labels" for labels in columns),
        rows=tuple(rows),
    )


def _crossing_table(crossed: Sequence[Crossing]) -> Table:
    return Table(
        title="Labels from which on probe has the higher AUROC than atd",
        corner="condition",
        columns=("labels (95 % interval over seeds)",),
        rows=tuple(Row(label=condition_name(each.condition), cells=(Cell(text=each.text()),)) for each in crossed),
    )


def _arms(stages: pd.DataFrame, condition: Condition) -> list[str]:
    """The arms of a condition: those of the table in its order, then any others."""
    present = unique(_of(stages, condition)["arm"])
    return [arm for arm in ROWS if arm in present] + [arm for arm in present if arm not in ROWS]


def _of(stages: pd.DataFrame, condition: Condition) -> pd.DataFrame:
    dataset, mismatch_ratio, ood_ratio = condition
    return stages[
        (stages["dataset"] == dataset)
        & (stages["mismatch_ratio"] == mismatch_ratio)
        & (stages["ood_ratio"] == ood_ratio)
    ]
