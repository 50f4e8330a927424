"""Table 4: AUBC of each strategy in each condition, with precision beside it and the paper's figures next to ours."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from experiments.reporting.layout import Cell, Row, Table, render_markdown, render_text
from experiments.reporting.paper_values import PaperValues, paper_table4
from experiments.reporting.statistics import (
    METRICS,
    CellKey,
    Condition,
    Estimate,
    cell_key,
    check_seeds,
    estimate_cells,
    rank_marks,
    sorted_conditions,
    unique,
)

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 2
"""Decimals of a percentage."""
MOST_LISTED = 12
"""Cells with missing seeds that a footer names one by one."""

AUBC_TITLE = "AUBC"
PRECISION_TITLE = "mean precision of the queries"
PAPER_TITLE = "AUBC divided by n, ours next to the paper's"


def table4_tables(trials: pd.DataFrame) -> list[Table]:
    """The tables of each data set: AUBC, precision, and where the paper has the data set, AUBC by its rule."""
    aubc, precision = estimate_cells(trials, "aubc"), estimate_cells(trials, "mean_precision")
    aubc_paper = estimate_cells(trials, "aubc_paper")
    tables = []
    for dataset in unique(key.dataset for key in aubc):
        conditions = [each for each in sorted_conditions(aubc) if each.dataset == dataset]
        strategies = unique(key.strategy for key in aubc if key.dataset == dataset)
        tables.append(_estimates_table(f"{dataset}: {AUBC_TITLE}", conditions, strategies, aubc))
        share = Row(label="1 - OOD ratio", cells=tuple(Cell(text=_percent(1 - each.ood_ratio)) for each in conditions))
        tables.append(
            _estimates_table(f"{dataset}: {PRECISION_TITLE}", conditions, strategies, precision, last_row=share)
        )
        in_paper = [each for each in conditions if any(key.condition == each for key in paper_table4())]
        if in_paper:
            tables.append(_paper_table(f"{dataset}: {PAPER_TITLE}", in_paper, strategies, aubc_paper))
    return tables


def report_markdown(title: str, tables: Sequence[Table], trials: pd.DataFrame, *, notes: Sequence[str] = ()) -> str:
    """The tables as a Markdown page with a footer; `notes` (one line each) are added to it."""
    best_and_second = "**best** and <u>second</u> in each column"
    parts = [f"# {title}\n", *(render_markdown(table) for table in tables)]
    footer = "\n".join(f"- {line}" for line in [*footer_lines(trials, best_and_second), *notes])
    return "\n".join([*parts, "### How to read this\n", footer]) + "\n"


def report_text(tables: Sequence[Table], trials: pd.DataFrame, *, notes: Sequence[str] = (), width: int = 120) -> str:
    """The tables for a terminal of `width` characters, with the same footer."""
    parts = [render_text(table, width=width) for table in tables]
    lines = [*footer_lines(trials, "* best and + second in each column"), *notes]
    footer = "\n".join(textwrap.fill(line, width, subsequent_indent="  ") for line in lines)
    return "\n".join([*parts, footer]) + "\n"


def cells_frame(trials: pd.DataFrame, paper: PaperValues | None = None) -> pd.DataFrame:
    """One row a cell and metric, shares in [0, 1].

    Columns: dataset, mismatch_ratio, ood_ratio, strategy, metric, num_seeds, num_planned, mean, sd, interval_low,
    interval_high, mark (best, second or empty, as in the table), paper. NaN where unknown.
    """
    import pandas as pd

    paper = paper or {}
    rows = []
    for metric in METRICS:
        estimates = estimate_cells(trials, metric)
        marks = _mark_cells(estimates)
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
                    "paper": paper.get(metric, {}).get(key, math.nan),
                }
            )
    return pd.DataFrame(rows)


def footer_lines(trials: pd.DataFrame, best_and_second: str) -> list[str]:
    """What a reader must know: unit, interval, marks, seeds, what is missing, which AUBC; one line each."""
    check_seeds(trials)
    planned = sorted(set(trials.groupby(list(CellKey._fields)).size()))
    lines = [
        "Columns: mismatch ratio / OOD ratio. Values in percent: mean ± half the width of the 95 % t-interval over "
        f"seeds; {best_and_second}, among strategies with all planned seeds.",
        "AUBC: area under accuracy over the n rounds, divided by n - 1, so that a constant accuracy a gives a "
        "(`aubc`). The paper divides by n (`aubc_paper`); its figures are compared with that only.",
        "1 - OOD ratio: the precision that uniform draws have on average.",
        f"Seeds planned a cell: {' or '.join(map(str, planned)) or 'none'}.",
        _describe_progress(trials),
    ]
    if any(value.num_seeds == 1 for value in estimate_cells(trials, "aubc").values()):
        lines.append("± ?: one seed, so the interval is not known.")
    if any(key in paper_table4() for key in estimate_cells(trials, "aubc")):
        lines.append(
            "The paper's figures are of its full recipe (10 rounds, 20,000 steps a round); with another recipe the "
            "differences are no test of it."
        )
    return lines


def _estimates_table(
    title: str,
    conditions: Sequence[Condition],
    strategies: Sequence[str],
    estimates: Mapping[CellKey, Estimate],
    last_row: Row | None = None,
) -> Table:
    marks = _mark_cells(estimates)
    rows = [
        Row(
            label=strategy,
            cells=tuple(
                Cell(text=format_estimate(estimates.get(key)), mark=marks.get(key, ""), key=key)
                for key in (CellKey(*condition, strategy) for condition in conditions)
            ),
        )
        for strategy in strategies
    ]
    return _table(title, conditions, [*rows, last_row] if last_row else rows)


def _paper_table(
    title: str, conditions: Sequence[Condition], strategies: Sequence[str], ours: Mapping[CellKey, Estimate]
) -> Table:
    rows = []
    for strategy in strategies:
        keys = [CellKey(*condition, strategy) for condition in conditions]
        rows.append(
            Row(label=strategy, cells=tuple(Cell(text=_beside_paper(key, ours.get(key)), key=key) for key in keys))
        )
    return _table(title, conditions, rows)


def _table(title: str, conditions: Sequence[Condition], rows: Sequence[Row]) -> Table:
    columns = tuple(f"{format_ratio(each.mismatch_ratio)} / {format_ratio(each.ood_ratio)}" for each in conditions)
    return Table(title=title, corner="mismatch / OOD", columns=columns, rows=tuple(rows))


def _mark_cells(estimates: Mapping[CellKey, Estimate]) -> dict[CellKey, str]:
    """Best and second of each condition."""
    marks = {}
    for condition in sorted_conditions(estimates):
        keys = [key for key in estimates if key.condition == condition]
        ranked = rank_marks([estimates[key] for key in keys], digits=DIGITS + 2)
        marks.update(dict(zip(keys, ranked, strict=True)))
    return marks


def _beside_paper(key: CellKey, ours: Estimate | None) -> str:
    paper = paper_table4().get(key)
    if paper is None:
        return f"{format_estimate(ours)} (not in the paper)"
    if ours is None or not ours.num_seeds:
        return f"{format_estimate(ours)}; paper {_percent(paper)}"
    return f"{format_estimate(ours)}; paper {_percent(paper)}, {100 * (ours.mean - paper):+.{DIGITS}f}"


def format_estimate(value: Estimate | None) -> str:
    """`84.12 ± 1.03` in percent, `84.12 ± ?` for one seed; says so where seeds are missing or no trial was planned."""
    if value is None:
        return "not planned"
    seeds = f"({value.num_seeds} of {value.num_planned} seeds)"
    if value.num_seeds == 0:
        return f"missing {seeds}"
    half_width = "?" if math.isnan(value.half_width) else _percent(value.half_width)
    text = f"{_percent(value.mean)} ± {half_width}"
    return text if value.is_complete else f"{text} {seeds}"


def format_ratio(ratio: float) -> str:
    """0.2 as `20 %`."""
    return f"{100 * ratio:g} %"


def _percent(share: float) -> str:
    return f"{100 * share:.{DIGITS}f}"


def _describe_progress(trials: pd.DataFrame) -> str:
    """How many trials are finished, and which are not and why."""
    open_trials = trials[trials["status"] != "finished"]
    finished = f"Trials: {len(trials) - len(open_trials)} of {len(trials)} finished"
    if open_trials.empty:
        return f"{finished}."
    counts = open_trials["status"].value_counts().sort_index()
    cells = [
        f"{key.dataset} {format_ratio(key.mismatch_ratio)} / {format_ratio(key.ood_ratio)} {key.strategy} "
        f"({_join(f'seed {seed} {status}' for seed, status in zip(rows['seed'], rows['status'], strict=True))})"
        for key, rows in ((cell_key(key), rows) for key, rows in open_trials.groupby(list(CellKey._fields), sort=False))
    ]
    more = f"; and {len(cells) - MOST_LISTED} more cells" if len(cells) > MOST_LISTED else ""
    return (
        f"{finished}; {_join(f'{count} {status}' for status, count in counts.items())}: "
        f"{'; '.join(cells[:MOST_LISTED])}{more}."
    )


def _join(parts: Iterable[str]) -> str:
    return ", ".join(parts)
