"""Checks on drawn figures that the tests of several figures share."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure


def visible_panels(figure: Figure) -> list[Axes]:
    """The panels that are shown, row by row."""
    return [panel for panel in figure.axes if panel.get_visible()]


def curves_by_colour(panel: Axes) -> dict[str, np.ndarray]:
    """Colour (upper case) -> (R, 2) points of each line with markers."""
    return {
        to_hex(str(line.get_color())).upper(): np.asarray(line.get_xydata())
        for line in panel.lines
        if line.get_marker() != "None" and len(line.get_xydata())
    }


def dashed_heights(panel: Axes) -> list[float]:
    """Where the lines without markers lie: the references."""
    return [float(np.asarray(line.get_ydata())[0]) for line in panel.lines if line.get_marker() == "None"]


def assert_nothing_is_cut(figure: Figure) -> None:
    """Nothing drawn reaches out of the figure, and the legend (if there is one) lies below every panel."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    width, height = figure.get_size_inches()
    drawn = figure.get_tightbbox(renderer)
    assert drawn.x0 >= -0.01, "cut on the left"
    assert drawn.x1 <= width + 0.01, "cut on the right"
    assert drawn.y0 >= -0.01, "cut at the bottom"
    assert drawn.y1 <= height + 0.01, "cut at the top"
    for legend in figure.legends:
        top = legend.get_window_extent(renderer).y1
        for panel in visible_panels(figure):
            box = panel.get_tightbbox(renderer)
            assert box is not None
            assert box.y0 >= top - 1, f"the legend reaches into panel '{panel.get_title()}'"
