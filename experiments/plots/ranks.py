"""Pictures of comparisons over conditions: average ranks with the critical difference, and the penalty matrix.

Both are in grey, so that they read the same in print and for colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.plots.canvas import new_figure
from experiments.results.overall import Ranking

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

LONGEST_NAME = 30
"""Most letters of a strategy's name."""
ROW = 0.24
"""Inches per line of names."""


def draw_ranks(ranking: Ranking) -> Figure:
    """Draw a critical-difference diagram: strategies on a scale of average ranks, inseparable ones joined by a bar.

    Best (rank 1) on the left. Raises ValueError for a ranking without a condition or with fewer than two strategies.
    """
    if len(ranking.ranks) < 2 or not ranking.conditions:
        raise ValueError("a ranking needs two strategies and a condition that all of them finished")
    names, groups = list(ranking.ranks), ranking.groups()
    num_left = (len(names) + 1) // 2
    height = ROW * (num_left + len(groups) * 0.55 + 3.4)
    figure = new_figure(7.2, height, arranged=False)
    panel = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    panel.set_axis_off()
    low, high = 1.0, float(len(names))
    margin = 0.42 * (high - low)
    panel.set_xlim(low - margin, high + margin)
    depth = height / ROW
    panel.set_ylim(depth, 0)
    top = 2.2
    _draw_scale(panel, len(names), top)
    if ranking.critical_difference < high - low:
        _draw_bar(panel, low, low + ranking.critical_difference, 0.9)
        panel.text(
            low + ranking.critical_difference + 0.02 * (high - low), 0.9,
            f"critical difference {ranking.critical_difference:.2f}", va="center", ha="left", fontsize=8.5,
        )  # fmt: skip
    else:
        panel.text(
            low, 0.9, f"critical difference {ranking.critical_difference:.2f}: wider than the scale", va="center",
            ha="left", fontsize=8.5,
        )  # fmt: skip
    for position, group in enumerate(groups):
        level = top + 0.55 * (position + 1)
        pad = 0.012 * (high - low)
        panel.plot(
            [ranking.ranks[group[0]] - pad, ranking.ranks[group[-1]] + pad], [level, level],
            color="0.25", linewidth=3.2, solid_capstyle="round",
        )  # fmt: skip
    first = top + 0.55 * len(groups) + 1.0
    for position, name in enumerate(names):
        is_left = position < num_left
        level = first + (position if is_left else len(names) - 1 - position)
        edge = low - 0.05 * (high - low) if is_left else high + 0.05 * (high - low)
        rank = ranking.ranks[name]
        panel.plot([rank, rank, edge], [top, level, level], color="0.45", linewidth=0.9, solid_joinstyle="miter")
        gap = -0.015 * (high - low) if is_left else 0.015 * (high - low)
        panel.text(
            edge + gap, level, f"{short(name)}  {rank:.2f}" if is_left else f"{rank:.2f}  {short(name)}",
            ha="right" if is_left else "left", va="center", fontsize=9,
        )  # fmt: skip
    return figure


def draw_penalties(penalties_SS: NDArray[np.float64], strategies: Sequence[str], num_conditions: int) -> Figure:
    """Draw the penalty matrix in grey with its numbers, and below it the mean of each column: low is good.

    In [i, j]: how often the row's strategy beats the column's, over `num_conditions` conditions.
    """
    size, names = len(strategies), [short(name) for name in strategies]
    longest = max(map(len, names))  # else labels at the left, and slanted below, squeeze the matrix
    figure = new_figure(1.2 + 0.09 * longest + 0.68 * size, 1.0 + 0.07 * longest + 0.42 * (size + 1))
    panel, below = figure.subplots(2, 1, height_ratios=[size, 1], sharex=True)
    most = max(1e-9, float(num_conditions))
    columns_S = penalties_SS.sum(axis=0) / max(1, size - 1)
    for axes, values in ((panel, penalties_SS), (below, columns_S[None, :])):
        axes.imshow(values, cmap="Greys", vmin=0, vmax=most * 1.25, aspect="auto")
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                if axes is panel and row == column:
                    axes.text(column, row, "-", ha="center", va="center", fontsize=8, color="0.5")
                    continue
                colour = "white" if value > 0.7 * most else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8.5, color=colour)
        axes.tick_params(length=0, labelsize=9)
        axes.spines[:].set_visible(False)
        axes.set_xticks(range(size), names, rotation=40, ha="right", rotation_mode="anchor")
    panel.set_yticks(range(size), names)
    panel.tick_params(labelbottom=False)
    below.set_yticks([0], ["mean of column"])
    panel.set_ylabel("beats ...", fontsize=9)
    below.set_xlabel("... this strategy", fontsize=9)
    return figure


def short(name: str) -> str:
    """A strategy's name, cut if it is longer than a picture has room for."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def _draw_scale(panel: Axes, num_strategies: int, level: float) -> None:
    panel.plot([1, num_strategies], [level, level], color="black", linewidth=1.1)
    for rank in range(1, num_strategies + 1):
        panel.plot([rank, rank], [level - 0.22, level], color="black", linewidth=1.1)
        panel.text(rank, level - 0.35, str(rank), ha="center", va="bottom", fontsize=8.5)


def _draw_bar(panel: Axes, left: float, right: float, level: float) -> None:
    """Draw a line with end marks, as long as the critical difference."""
    panel.plot([left, right], [level, level], color="black", linewidth=1.1)
    for end in (left, right):
        panel.plot([end, end], [level - 0.18, level + 0.18], color="black", linewidth=1.1)
