"""Figure 6: the accuracy of the purity step at every logit scale, with a curve per data set; values and picture.

The values come from `purity_study`. Shapes: S seeds, T logit scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from experiments.plots.canvas import (
    FEWEST_FOR_BAND,
    PAGE_WIDTH,
    PRINT_FONT,
    PRINT_SMALL,
    REFERENCE_COLOUR,
    band_alpha,
    condition_text,
    curve_handle,
    dataset_label,
    dataset_style,
    draw_curve,
    dress_panel,
    new_figure,
)
from experiments.results.statistics import Condition, estimate, unique

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE_WIDTH, MARKER_SIZE = 1.2, 4.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScaleSweep:
    """Balanced accuracy of ID against OOD at each logit scale, in one trial before its first query."""

    condition: Condition
    seed: int
    scales_T: NDArray[np.float64]
    labelled_T: NDArray[np.float64] | None
    """Accuracy on the labelled images; None if ID or OOD images are not labelled yet."""
    pool_T: NDArray[np.float64]
    """Accuracy on the unlabelled images, whose truth the strategy does not know."""
    tuned: tuple[float, float, float] | None
    """(logit scale of Eq. 8, its accuracy on the labelled images, its accuracy on the pool); None: not tuned."""
    fixed_scale: float
    """The logit scale without tuning."""


def scale_caption(sweeps: Sequence[ScaleSweep], run: str) -> str:
    """The caption of Figure 6, in one paragraph."""
    where = "; ".join(
        f"{condition_text(condition)}, {len(of_it)} seed{'s' * (len(of_it) != 1)}"
        for condition, of_it in _by_condition(sweeps).items()
    )
    return (
        "Figure 6. Balanced accuracy (mean of the recalls of ID and OOD) of the purity step against the logit scale, "
        f"before the first query: {where}. Left on the labelled images, on which Eq. 8 chooses the scale, right on the "
        f"unlabelled pool. Lines: mean over seeds; bands: 95 % t-interval of the mean, from {FEWEST_FOR_BAND} seeds "
        "up. "
        "Marks: the tuned scale of each seed, at that seed's own accuracy. Dashed: the scale without tuning."
        + "".join(f" {note}." for note in untuned_notes(sweeps))
        + f" Run: {run}.\n"
    )


def untuned_notes(sweeps: Sequence[ScaleSweep]) -> tuple[str, ...]:
    """A sentence that names the trials without a tuned scale, if any."""
    untuned = [f"{dataset_label(each.condition.dataset)} seed {each.seed}" for each in sweeps if each.tuned is None]
    why = "switched off, or one kind of image is not labelled yet"
    return (f"Not tuned ({why}): {', '.join(untuned)}",) if untuned else ()


def draw_scales(sweeps: Sequence[ScaleSweep]) -> Figure:
    """Draw Figure 6: labelled images left, pool right, with a curve per data set."""
    figure = new_figure(PAGE_WIDTH, 2.9)
    left, right = figure.subplots(1, 2, sharey=True)
    grouped = _by_condition(sweeps)
    for order, (condition, of_it) in enumerate(grouped.items()):
        alpha = band_alpha(len(grouped))
        labelled = [sweep.labelled_T for sweep in of_it if sweep.labelled_T is not None]
        if labelled:
            _draw_sweep(left, of_it[0].scales_T, np.stack(labelled), condition, alpha, order)
        _draw_sweep(right, of_it[0].scales_T, np.stack([sweep.pool_T for sweep in of_it]), condition, alpha, order)
        _mark_tuned(left, [(sweep.tuned[0], sweep.tuned[1]) for sweep in of_it if sweep.tuned], condition)
        _mark_tuned(right, [(sweep.tuned[0], sweep.tuned[2]) for sweep in of_it if sweep.tuned], condition)
    for axes, title in ((left, "labelled images"), (right, "unlabelled pool")):
        for fixed in sorted({sweep.fixed_scale for sweep in sweeps}):
            axes.axvline(fixed, color=REFERENCE_COLOUR, linestyle=(0, (4, 3)), linewidth=0.8, zorder=1)
        axes.set_xscale("log")
        axes.set_title(title, fontsize=PRINT_FONT)
        axes.set_xlabel("logit scale (1 / temperature)", fontsize=PRINT_FONT)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        dress_panel(axes, tick_size=PRINT_SMALL)
    left.set_ylabel("balanced accuracy", fontsize=PRINT_FONT)
    _add_scale_legend(figure, [condition.dataset for condition in grouped])
    return figure


def _draw_sweep(
    axes: Axes,
    scales_T: NDArray[np.float64],
    accuracy_ST: NDArray[np.float64],
    condition: Condition,
    alpha: float,
    order: int,
) -> None:
    """Draw the mean over seeds (rows) at each scale, with its band."""
    draw_curve(
        axes,
        scales_T.tolist(),
        [estimate(accuracy_ST[:, position].tolist()) for position in range(len(scales_T))],
        replace(dataset_style(condition.dataset), marker="None"),
        line_width=LINE_WIDTH,
        marker_size=MARKER_SIZE,
        band_alpha=alpha,
        order=order,
    )


def _mark_tuned(axes: Axes, points: Sequence[tuple[float, float]], condition: Condition) -> None:
    style = dataset_style(condition.dataset)
    axes.plot(
        [scale for scale, _ in points],
        [accuracy for _, accuracy in points],
        linestyle="none",
        marker=style.marker,
        color=style.colour,
        markersize=MARKER_SIZE * style.size,
        markeredgecolor="white",
        markeredgewidth=0.5,
        zorder=4,
    )


def _add_scale_legend(figure: Figure, datasets: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        curve_handle(dataset_label(dataset), dataset_style(dataset), line_width=LINE_WIDTH, marker_size=MARKER_SIZE)
        for dataset in unique(datasets)
    ]
    handles.append(Line2D([], [], color=REFERENCE_COLOUR, linestyle=(0, (4, 3)), linewidth=0.8, label="without tuning"))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(4, len(handles)),
        frameon=False,
        fontsize=PRINT_FONT,
        handlelength=3.0,
        title="marks: the tuned scale of each seed",
        title_fontsize=PRINT_SMALL,
    )


def _by_condition(sweeps: Sequence[ScaleSweep]) -> dict[Condition, list[ScaleSweep]]:
    grouped: dict[Condition, list[ScaleSweep]] = {}
    for sweep in sweeps:
        grouped.setdefault(sweep.condition, []).append(sweep)
    return grouped
