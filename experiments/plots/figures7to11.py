"""Draws Figures 7 to 11 for print, from the pages that `round_pages` makes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from experiments.plots.canvas import (
    COLUMN_WIDTH,
    PAGE_WIDTH,
    PRINT_FONT,
    PRINT_SMALL,
    band_alpha,
    curve_handle,
    dataset_label,
    draw_curve,
    draw_reference,
    dress_panel,
    new_figure,
    reference_handle,
    seeds_line,
    style_of,
)
from experiments.plots.curves import LABELS, QUANTITIES
from experiments.plots.rounds import FULL_DATA, Page, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE_WIDTH, MARKER_SIZE = 1.2, 4.0
LEGEND_ENTRY_WIDTH = 1.25
"""Inches for a strategy's name at `PRINT_FONT`."""


def draw_page(page: Page) -> Figure:
    """Draw a page, as wide as one or two columns of a printed page."""
    num_rows, num_columns = len(page.rows), len(page.rows[0])
    height = (1.9 if num_columns < 3 else 1.5) * num_rows + 0.9
    figure = new_figure(COLUMN_WIDTH if num_columns == 1 else PAGE_WIDTH, height)
    panels = figure.subplots(num_rows, num_columns, sharex="col", sharey="row", squeeze=False)
    for axes, row in zip(panels, page.rows, strict=True):
        for panel_axes, panel in zip(axes, row, strict=True):
            if panel is None:
                panel_axes.set_visible(False)
            else:
                _draw_panel(panel_axes, panel)
        first = next(panel for panel in row if panel is not None)
        label = LABELS[first.quantity]
        axes[0].set_ylabel(f"{dataset_label(first.condition.dataset)}\n{label}", fontsize=PRINT_FONT)
    for axes, title in zip(panels[0], page.column_titles, strict=True):
        axes.set_title(title, fontsize=PRINT_FONT)
    for axes in panels[-1]:
        axes.set_xlabel("round", fontsize=PRINT_FONT)
    _add_legend(figure, page)
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    for order, (arm, curve) in enumerate(panel.curves.items()):
        draw_curve(
            axes,
            curve.rounds,
            curve.estimates,
            style_of(arm),
            line_width=LINE_WIDTH,
            marker_size=MARKER_SIZE,
            band_alpha=band_alpha(len(panel.curves)),
            order=order,
        )
    if panel.dashed is not None:
        draw_reference(axes, panel.dashed)
    if panel.quantity == "precision":
        axes.set_ylim(-0.02, 1.04)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    dress_panel(axes, tick_size=PRINT_SMALL)


def _add_legend(figure: Figure, page: Page) -> None:
    """Add the legend below the panels: the curves, the dashed lines, and an explanation of lines and bands."""
    handles = [curve_handle(arm, style_of(arm), line_width=LINE_WIDTH, marker_size=MARKER_SIZE) for arm in page.arms]
    dashed = {panel.quantity for panel in page.panels if panel.dashed is not None}
    if dashed:
        names = {"precision": "1 - OOD ratio", "accuracy": FULL_DATA}
        handles.append(reference_handle(", ".join(names[quantity] for quantity in QUANTITIES if quantity in dashed)))
    per_row = max(1, int(figure.get_figwidth() / LEGEND_ENTRY_WIDTH))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=math.ceil(len(handles) / math.ceil(len(handles) / per_row)),
        frameon=False,
        fontsize=PRINT_FONT,
        handlelength=3.0,
        columnspacing=1.5,
        title=seeds_line(page.curve_seeds),
        title_fontsize=PRINT_SMALL,
    )
