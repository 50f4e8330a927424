"""Precision and accuracy over rounds in one picture: a column per condition, a line and a band per strategy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from experiments.plots.canvas import (
    PAGE_DPI,
    band_alpha,
    curve_handle,
    draw_curve,
    draw_reference,
    dress_panel,
    file_bytes,
    new_figure,
    reference_handle,
    seeds_line,
    style_of,
)
from experiments.results.statistics import (
    CellKey,
    Condition,
    Estimate,
    cell_key,
    estimate,
    sorted_conditions,
    unique,
)
from experiments.tables.table import ratios_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

Quantity = Literal["precision", "accuracy", "recall"]
QUANTITIES: tuple[Quantity, ...] = ("precision", "accuracy")

LABELS: dict[Quantity, str] = {
    "precision": "precision of the query", "accuracy": "test accuracy", "recall": "ID images labelled",
}  # fmt: skip

MOST_COLUMNS = 5
"""Most conditions side by side; more of them are divided into bands, one per data set and mismatch ratio."""
PANEL_WIDTH, PANEL_HEIGHT = 3.1, 2.3
"""Size of a panel in inches."""
LINE_WIDTH, MARKER_SIZE = 1.6, 5.5
LEGEND_ENTRY_WIDTH = 1.5
"""Inches for the longest name of the paper's strategies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One quantity of one cell over rounds; every estimate is over `num_seeds` seeds."""

    rounds: tuple[int, ...]
    estimates: tuple[Estimate, ...]
    num_seeds: int


def cell_curves(rounds: pd.DataFrame, quantity: Quantity) -> dict[CellKey, Curve]:
    """The mean of `quantity` over seeds, round by round, in each cell of the frame `rounds`.

    A seed that has not reached the last round of its condition is omitted if another seed of the cell has reached it;
    if none has, the curve ends with the first seed that ends.
    """
    cells: dict[CellKey, list[tuple[int, int, float]]] = {}
    last_round: dict[Condition, int] = {}
    columns = [rounds[name].tolist() for name in (*CellKey._fields, "seed", "round", quantity)]
    for *names, seed, number, value in zip(*columns, strict=True):
        key = cell_key(tuple(names))
        cells.setdefault(key, []).append((int(seed), int(number), math.nan if value is None else float(value)))
        last_round[key.condition] = max(int(number), last_round.get(key.condition, 0))
    curves = {}
    for key, rows in cells.items():
        reached: dict[int, int] = {}
        for seed, number, _ in rows:
            reached[seed] = max(number, reached.get(seed, 0))
        whole = {seed for seed, number in reached.items() if number == last_round[key.condition]}
        # Every point of a curve must be over the same seeds: else a step of the mean may be a change of seeds.
        kept = whole or set(reached)
        end = min(reached[seed] for seed in kept)
        by_round: dict[int, list[float]] = {}
        for seed, number, value in rows:
            if seed in kept and number <= end and not math.isnan(value):
                by_round.setdefault(number, []).append(value)
        curves[key] = Curve(
            rounds=tuple(sorted(by_round)),
            estimates=tuple(estimate(by_round[number]) for number in sorted(by_round)),
            num_seeds=len(kept),
        )
    return curves


def draw_curves(rounds: pd.DataFrame) -> Figure:
    """Precision of the queries and test accuracy (and recall, if recorded) over rounds, for every cell of `rounds`.

    Bands are 95 % t-intervals over seeds (from three seeds up), cut at 0 and 1; the dashed line is 1 - OOD ratio, what
    uniform draws give on average. Raises ValueError for a frame without rows.
    """
    if rounds.empty:
        raise ValueError("there is no round to draw yet")
    # Recall is there for trials that record it (the open-set annotation protocol).
    shown: tuple[Quantity, ...] = (*QUANTITIES, "recall") if "recall" in rounds else QUANTITIES
    curves = {quantity: cell_curves(rounds, quantity) for quantity in shown}
    cells = curves["accuracy"]
    bands = _bands(sorted_conditions(cells))
    num_columns = max(map(len, bands))
    figure = new_figure(PANEL_WIDTH * num_columns + 0.6, len(shown) * PANEL_HEIGHT * len(bands) + 1.1)
    subfigures = figure.subfigures(len(bands), 1, squeeze=False)[:, 0]
    for band, subfigure in zip(bands, subfigures, strict=True):
        _draw_band(subfigure, band, num_columns, curves)
    _add_legend(figure, unique(key.arm for key in cells), cells)
    return figure


def curves_png(rounds: pd.DataFrame) -> bytes:
    """`draw_curves` as a PNG; equal frames give equal bytes."""
    return file_bytes(draw_curves(rounds), "png", dpi=PAGE_DPI)


def _bands(conditions: Sequence[Condition]) -> list[list[Condition]]:
    """The conditions in rows of panels: one row if they are few, else one per data set and mismatch ratio."""
    if len(conditions) <= MOST_COLUMNS:
        return [list(conditions)]
    bands: dict[tuple[str, float], list[Condition]] = {}
    for condition in conditions:
        bands.setdefault((condition.dataset, condition.mismatch_ratio), []).append(condition)
    return [
        band[start : start + MOST_COLUMNS] for band in bands.values() for start in range(0, len(band), MOST_COLUMNS)
    ]


def _draw_band(
    subfigure: SubFigure,
    band: Sequence[Condition],
    num_columns: int,
    curves: Mapping[Quantity, Mapping[CellKey, Curve]],
) -> None:
    """Draw a row of panels per quantity, with a column per condition."""
    panels = subfigure.subplots(len(curves), num_columns, sharex=True, sharey="row", squeeze=False)
    for row, quantity in zip(panels, curves, strict=True):
        for panel, condition in zip(row, band, strict=False):
            _draw_panel(panel, {key: curve for key, curve in curves[quantity].items() if key.condition == condition})
        for panel in row[len(band) :]:
            panel.set_visible(False)
    for panel, condition in zip(panels[0], band, strict=False):
        draw_reference(panel, condition.uniform_precision)
        panel.set_ylim(-0.02, 1.04)
        panel.set_title(_condition_title(condition), fontsize=9)
    for row, quantity in zip(panels, curves, strict=True):
        row[0].set_ylabel(LABELS[quantity], fontsize=9)
    for panel in panels[-1, : len(band)]:
        panel.set_xlabel("round", fontsize=9)


def _draw_panel(panel: Axes, curves: Mapping[CellKey, Curve]) -> None:
    from matplotlib.ticker import MaxNLocator

    for order, (key, curve) in enumerate(curves.items()):
        draw_curve(
            panel,
            curve.rounds,
            curve.estimates,
            style_of(key.arm),
            line_width=LINE_WIDTH,
            marker_size=MARKER_SIZE,
            band_alpha=band_alpha(len(curves)),
            order=order,
        )
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress_panel(panel, tick_size=8)


def _condition_title(condition: Condition) -> str:
    return f"{condition.dataset}\n{ratios_text(condition)}"


def _add_legend(figure: Figure, strategies: Sequence[str], cells: Mapping[CellKey, Curve]) -> None:
    """Add the legend below all panels, with an explanation of the bands as its title."""
    handles = [
        curve_handle(strategy, style_of(strategy), line_width=LINE_WIDTH, marker_size=MARKER_SIZE)
        for strategy in strategies
    ]
    handles.append(reference_handle("1 - OOD ratio"))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), max(1, int(figure.get_figwidth() / LEGEND_ENTRY_WIDTH))),
        frameon=False,
        fontsize=9,
        handlelength=3.2,
        title=seeds_line(curve.num_seeds for curve in cells.values()),
        title_fontsize=8,
    )
