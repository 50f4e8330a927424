"""Precision and accuracy over rounds as one picture: a column a condition, a line a strategy, a band for the interval.

matplotlib is used without pyplot: no window, no global state.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from experiments.reporting.statistics import (
    CellKey,
    Condition,
    Estimate,
    cell_key,
    estimate,
    sorted_conditions,
    unique,
)
from experiments.reporting.styles import style_of
from experiments.reporting.tables import format_ratio

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

Quantity = Literal["precision", "accuracy"]
QUANTITIES: tuple[Quantity, ...] = ("precision", "accuracy")

MOST_COLUMNS = 5
"""Conditions that stand side by side; more of them are put into bands, one a data set and mismatch ratio."""
PANEL_WIDTH, PANEL_HEIGHT = 3.1, 2.3
"""Inches."""
DPI = 150
MARKER_SIZE = 5.5
LEGEND_ENTRY_WIDTH = 1.5
"""Inches, for the longest name of the paper's strategies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One quantity of one cell over rounds; the estimates have as many seeds as `num_seeds` at every round."""

    rounds: tuple[int, ...]
    estimates: tuple[Estimate, ...]
    num_seeds: int


def cell_curves(rounds: pd.DataFrame, quantity: Quantity) -> dict[CellKey, Curve]:
    """The mean of `quantity` over seeds, round by round, in each cell of the frame `rounds`.

    A seed that has not reached the last round of its condition is left out as long as another seed of the cell has;
    where none has, the curve ends with the first seed that ends. So every point of a curve is over the same seeds.
    """
    last_round = rounds.groupby(list(Condition._fields))["round"].max()
    curves = {}
    for group, rows in rounds.groupby(list(CellKey._fields), sort=False):
        key = cell_key(group)
        seeds_reach = rows.groupby("seed")["round"].max()
        goal = last_round.loc[tuple(key.condition)]
        whole = seeds_reach[seeds_reach == goal]
        kept = whole if len(whole) else seeds_reach
        chosen = rows[rows["seed"].isin(kept.index) & (rows["round"] <= kept.min())].dropna(subset=[quantity])
        by_round = [(int(str(number)), estimate(values[quantity])) for number, values in chosen.groupby("round")]
        curves[key] = Curve(
            rounds=tuple(number for number, _ in by_round),
            estimates=tuple(value for _, value in by_round),
            num_seeds=len(kept),
        )
    return curves


def draw_curves(rounds: pd.DataFrame) -> Figure:
    """Precision of the queries and test accuracy over rounds, for every cell of the frame `rounds`.

    Bands are 95 % t-intervals over seeds (none for a single seed), cut at 0 and 1; the dashed line is 1 - OOD ratio,
    what uniform draws give on average. Raises ValueError for a frame without rows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if rounds.empty:
        raise ValueError("there is no round to draw yet")
    curves = {quantity: cell_curves(rounds, quantity) for quantity in QUANTITIES}
    cells = curves["accuracy"]
    bands = _bands(sorted_conditions(cells))
    num_columns = max(map(len, bands))
    figure = Figure(
        figsize=(PANEL_WIDTH * num_columns + 0.6, 2 * PANEL_HEIGHT * len(bands) + 1.1), layout="constrained"
    )
    FigureCanvasAgg(figure)
    subfigures = figure.subfigures(len(bands), 1, squeeze=False)[:, 0]
    for band, subfigure in zip(bands, subfigures, strict=True):
        _draw_band(subfigure, band, num_columns, curves)
    _add_legend(figure, unique(key.strategy for key in cells), cells)
    return figure


def curves_png(rounds: pd.DataFrame) -> bytes:
    """`draw_curves` as a PNG; equal frames give equal bytes."""
    buffer = io.BytesIO()
    draw_curves(rounds).savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _bands(conditions: Sequence[Condition]) -> list[list[Condition]]:
    """The conditions in rows of panels: one row if they are few, else one a data set and mismatch ratio."""
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
    """Two rows of panels, precision above accuracy, a column a condition."""
    panels = subfigure.subplots(2, num_columns, sharex=True, sharey="row", squeeze=False)
    for row, quantity in zip(panels, QUANTITIES, strict=True):
        for panel, condition in zip(row, band, strict=False):
            _draw_panel(panel, {key: curve for key, curve in curves[quantity].items() if key.condition == condition})
        for panel in row[len(band) :]:
            panel.set_visible(False)
    for panel, condition in zip(panels[0], band, strict=False):
        panel.axhline(1 - condition.ood_ratio, color="0.35", linestyle=(0, (4, 3)), linewidth=1, zorder=1)
        panel.set_ylim(-0.02, 1.04)
        panel.set_title(_condition_title(condition), fontsize=9)
    panels[0, 0].set_ylabel("precision of the query", fontsize=9)
    panels[1, 0].set_ylabel("test accuracy", fontsize=9)
    for panel in panels[1, : len(band)]:
        panel.set_xlabel("round", fontsize=9)


def _draw_panel(panel: Axes, curves: Mapping[CellKey, Curve]) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    alpha = min(0.14, 0.6 / max(1, len(curves)))  # many bands over each other must not hide the lines
    for position, (key, curve) in enumerate(curves.items()):
        style = style_of(key.strategy)
        means = [value.mean for value in curve.estimates]
        panel.plot(
            curve.rounds,
            means,
            color=style.colour,
            marker=style.marker,
            linestyle=style.dashes,
            linewidth=1.6,
            markersize=MARKER_SIZE * style.size,
            markeredgecolor="white",
            markeredgewidth=0.4,
            zorder=3 + position / 100,
        )
        if curve.num_seeds > 1:
            low = [max(0.0, value.mean - value.half_width) for value in curve.estimates]
            high = [min(1.0, value.mean + value.half_width) for value in curve.estimates]
            panel.fill_between(curve.rounds, low, high, color=style.colour, alpha=alpha, linewidth=0, zorder=2)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    panel.tick_params(labelsize=8)
    panel.grid(True, color="0.9", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _condition_title(condition: Condition) -> str:
    ratios = f"mismatch {format_ratio(condition.mismatch_ratio)}, OOD {format_ratio(condition.ood_ratio)}"
    return f"{condition.dataset}\n{ratios}"


def _add_legend(figure: Figure, strategies: Sequence[str], cells: Mapping[CellKey, Curve]) -> None:
    """The legend below all panels, and over it what the bands are."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=style.colour,
            marker=style.marker,
            markersize=MARKER_SIZE * style.size,
            linestyle=style.dashes,
            linewidth=1.6,
            label=strategy,
        )
        for strategy, style in ((strategy, style_of(strategy)) for strategy in strategies)
    ]
    handles.append(Line2D([], [], color="0.35", linestyle=(0, (4, 3)), linewidth=1, label="1 - OOD ratio"))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), max(1, int(figure.get_figwidth() / LEGEND_ENTRY_WIDTH))),
        frameon=False,
        fontsize=9,
        handlelength=3.2,
        title=_seeds_line(cells),
        title_fontsize=8,
    )


def _seeds_line(cells: Mapping[CellKey, Curve]) -> str:
    """What a line and a band are, and over how many seeds."""
    counts = sorted({curve.num_seeds for curve in cells.values()})
    seeds = f"{counts[0]} seed{'s' * (counts[0] != 1)}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    if counts[-1] == 1:
        return "lines: one seed, no interval"
    return f"lines: mean over {seeds}; bands: 95 % t-interval of the mean"
