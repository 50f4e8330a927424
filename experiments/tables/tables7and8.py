"""Tables 7 and 8: VLPure without its parts, and with another strategy behind its purity step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from experiments.results.comparison import Scores, collect_scores
from experiments.results.statistics import (
    CellKey,
    Condition,
    Estimate,
    estimate,
    estimate_cells,
    sorted_conditions,
)
from experiments.tables.table import (
    Cell,
    Line,
    Row,
    Table,
    cells_table,
    condition_name,
    format_difference,
    format_estimate,
)
from experiments.tables.table4 import dagger_cells

if TYPE_CHECKING:
    import pandas as pd

PARTS = {
    "vlpure": "tuned scale, visual weights",
    "vlpure-no-visual": "tuned scale, no visual weights",
    "vlpure-fixed-scale": "fixed scale, visual weights",
    "vlpure-bare": "fixed scale, no visual weights",
}
"""The arms of Table 7."""
BEHIND = {"conf": "vlpure", "ll": "vlpure-ll", "coreset": "vlpure-coreset"}
"""Table 8: a strategy alone, and behind the purity step."""
BEST = "best baseline"
BEST_OF_SEVERAL = (
    "Best baseline: the strategy without purity step of the highest mean AUBC in each condition. It was picked after "
    "the fact, among several on the same seeds, so its mean is flattered."
)


def baselines(strategies: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that are not VLPure in some form."""
    return tuple(name for name in strategies if not name.startswith("vlpure"))


def table7_tables(trials: pd.DataFrame) -> list[Table]:
    """AUBC and precision with and without tuning and visual weights, with the best baseline above."""
    conditions = _conditions(trials)
    lines: list[Line] = [
        (f"{what} ({arm})", [CellKey(*each, arm) for each in conditions]) for arm, what in PARTS.items()
    ]
    return _with_best_baseline(trials, conditions, lines)


def table8_tables(trials: pd.DataFrame) -> list[Table]:
    """AUBC and precision of strategies alone and behind the purity step, and what the step adds, paired by seed."""
    conditions = _conditions(trials)
    lines: list[Line] = [
        (name, [CellKey(*each, arm) for each in conditions])
        for inner, outer in BEHIND.items()
        for name, arm in ((inner, inner), (f"purity, then {inner}", outer))
    ]
    return [*_with_best_baseline(trials, conditions, lines), _gains(trials, conditions)]


def best_baseline(estimates: Mapping[CellKey, Estimate], condition: Condition) -> CellKey | None:
    """The baseline with the highest mean among those with all planned seeds; None without one."""
    keys = [key for key in estimates if key.condition == condition and baselines([key.arm])]
    complete = [key for key in keys if estimates[key].num_seeds and estimates[key].is_complete]
    return max(complete, key=lambda key: estimates[key].mean, default=None)


def _conditions(trials: pd.DataFrame) -> list[Condition]:
    """Those that have OOD images: reference runs have no row here."""
    return [each for each in sorted_conditions(estimate_cells(trials, "aubc")) if each.ood_ratio > 0]


def _with_best_baseline(trials: pd.DataFrame, conditions: Sequence[Condition], lines: Sequence[Line]) -> list[Table]:
    """AUBC and precision, the best baseline by AUBC in the first row of both, named in each cell."""
    if not conditions:
        return []
    aubc, precision = estimate_cells(trials, "aubc"), estimate_cells(trials, "mean_precision")
    best = [best_baseline(aubc, condition) for condition in conditions]
    shown = [line for line in lines if any(key in aubc for key in line[1])]
    tables = []
    columns = list(map(condition_name, conditions))
    for title, estimates, daggers in (
        ("AUBC", aubc, dagger_cells(trials, "aubc")),
        ("mean precision of the queries", precision, dagger_cells(trials, "mean_precision")),
    ):
        first = (BEST, [key or CellKey(*each, BEST) for key, each in zip(best, conditions, strict=True)])
        table = cells_table(
            title, corner="mismatch / OOD", columns=columns, lines=[first, *shown], estimates=estimates, daggers=daggers
        )
        named = tuple(_named(cell, key, estimates) for cell, key in zip(table.rows[0].cells, best, strict=True))
        rows = (Row(label=BEST, cells=named), *table.rows[1:])
        tables.append(Table(title=title, corner=table.corner, columns=table.columns, rows=rows))
    return tables


def _named(cell: Cell, key: CellKey | None, estimates: Mapping[CellKey, Estimate]) -> Cell:
    """The best baseline's cell with its name in it."""
    if key is None:
        return Cell(text="none with all seeds")
    return Cell(text=f"{format_estimate(estimates[key])} ({key.arm})", mark=cell.mark, key=key, dagger=cell.dagger)


def _gains(trials: pd.DataFrame, conditions: list[Condition]) -> Table:
    """What the purity step adds to the AUBC of each strategy."""
    scores = collect_scores(trials, "aubc")
    rows = [
        Row(
            label=f"{outer} - {inner}",
            cells=tuple(Cell(text=_gain(scores, each, inner, outer), key=CellKey(*each, outer)) for each in conditions),
        )
        for inner, outer in BEHIND.items()
    ]
    return Table(
        title="What the purity step adds to AUBC, paired by seed, in percentage points",
        corner="mismatch / OOD",
        columns=tuple(map(condition_name, conditions)),
        rows=tuple(rows),
    )


def _gain(scores: Scores, condition: Condition, inner: str, outer: str) -> str:
    of_condition = scores.get(condition, {})
    if inner not in of_condition or outer not in of_condition:
        return "not planned"
    alone, behind = of_condition[inner], of_condition[outer]
    differences = [behind[seed] - alone[seed] for seed in sorted(alone.keys() & behind.keys())]
    return format_difference(estimate(differences, num_planned=len(alone.keys() | behind.keys())))
