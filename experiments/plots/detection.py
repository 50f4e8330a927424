"""The picture of Table 9: AUROC over labels bought, with a curve per detector and a panel per condition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.plots.canvas import (
    OTHER_DASHES,
    OTHER_MARKERS,
    StrategyStyle,
    band_alpha,
    condition_text,
    curve_handle,
    draw_curve,
    draw_reference,
    dress_panel,
    new_figure,
    reference_handle,
    seeds_line,
)
from experiments.results.detection import FEWEST_AXIS, stage_estimates
from experiments.results.statistics import CellKey, sorted_conditions
from experiments.tables.table9 import ROWS, row_label

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_WIDTH, PANEL_HEIGHT = 4.2, 3.2
"""Size of a panel in inches."""
MOST_COLUMNS = 3
COLOURS = (
    "#D55E00", "#E69F00", "#CC79A7", "#56B4E9", "#6E6E6E", "#999933", "#0072B2", "#009E73", "#882255", "#AA4499",
    "#000000", "#44AA99", "#332288", "#117733",
)  # fmt: skip
"""Colour of each row of the table: text warm, features cold, both black. After Okabe and Ito, and Tol."""


def detector_style(arm: str) -> StrategyStyle:
    """The style of a detector's line, chosen by its position in the table."""
    place = list(ROWS).index(arm) if arm in ROWS else len(ROWS)
    return StrategyStyle(
        colour=COLOURS[place % len(COLOURS)],
        marker=OTHER_MARKERS[place % len(OTHER_MARKERS)],
        dashes=OTHER_DASHES[place % len(OTHER_DASHES)],
    )


def draw_detection(stages: pd.DataFrame) -> Figure:
    """Draw AUROC on the unlabelled rest of the pool over labels bought. Raises ValueError for a frame without rows."""
    if stages.empty:
        raise ValueError("there is no stage to draw yet")
    estimates = stage_estimates(stages, "auroc")
    conditions = sorted_conditions(key for key, _ in estimates)
    num_columns = min(MOST_COLUMNS, len(conditions))
    num_rows = -(-len(conditions) // num_columns)
    figure = new_figure(PANEL_WIDTH * num_columns + 1.9, PANEL_HEIGHT * num_rows + 0.4)
    panels = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False).ravel()
    arms = [arm for arm in ROWS if arm in set(stages["arm"])]
    arms += sorted(set(stages["arm"]) - set(ROWS))
    for panel, condition in zip(panels, conditions, strict=False):
        for order, arm in enumerate(arms):
            key = CellKey(*condition, arm)
            points = sorted((labels, value) for (cell, labels), value in estimates.items() if cell == key)
            draw_curve(
                panel,
                [labels + FEWEST_AXIS for labels, _ in points],
                [value for _, value in points],
                detector_style(arm),
                line_width=1.4,
                marker_size=4.5,
                band_alpha=band_alpha(len(arms)),
                order=order,
            )
        _dress(panel, sorted({labels for cell, labels in estimates if cell.condition == condition}))
        panel.set_title(condition_text(condition), fontsize=9)
    for panel in panels[len(conditions) :]:
        panel.set_visible(False)
    handles = [curve_handle(row_label(arm), detector_style(arm), line_width=1.4, marker_size=4.5) for arm in arms]
    figure.legend(
        handles=[*handles, reference_handle("chance")],
        loc="outside right upper",
        frameon=False,
        fontsize=8,
        handlelength=3.0,
        title=seeds_line(value.num_seeds for value in estimates.values()).replace("; ", ";\n"),
        title_fontsize=7,
    )
    return figure


def _dress(panel: Axes, stages: list[int]) -> None:
    panel.set_xscale("log")
    panel.set_xticks([labels + FEWEST_AXIS for labels in stages], [f"{labels:,}" for labels in stages], rotation=45)
    panel.minorticks_off()
    panel.set_xlabel("labels bought (log scale after adding 1)", fontsize=8)
    panel.set_ylabel("AUROC", fontsize=8)
    dress_panel(panel, tick_size=7)
    draw_reference(panel, 0.5)
