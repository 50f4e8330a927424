"""Figures 7 to 11 as drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from experiments.plots.canvas import (
    COLUMN_WIDTH,
    PAGE_WIDTH,
    STYLES,
    FileFormat,
    dress_panel,
    file_bytes,
    new_figure,
    style_of,
)
from experiments.plots.figures7to11 import draw_page
from experiments.plots.rounds import Page, round_pages
from tests.experiments.pictures import assert_nothing_is_cut, curves_by_colour, dashed_heights, visible_panels
from tests.experiments.plots.test_rounds import GRID, frames


def one_page(
    number: int,
    *,
    datasets: Sequence[str] = ("digits",),
    ood_ratios: Sequence[float] = (0.2, 0.6),
    strategies: Iterable[str] = ("random", "vlpure"),
    num_seeds: int = 3,
) -> Page:
    """The page of a grid at one mismatch ratio, with the references; all cells have equal numbers."""
    seeds = [[0.3, 0.4 + seed / 10, 0.5] for seed in range(num_seeds)]
    cells = [(dataset, 0.2, ood, name, seeds) for dataset, ood, name in product(datasets, ood_ratios, strategies)]
    for dataset in datasets:
        cells.append((dataset, 0.2, 0.0, "full-data", [[0.9]] * num_seeds))
        cells.append((dataset, 0.2, 0.0, "id-only", [[0.3, 0.5, 0.7]] * num_seeds))
    (page,) = round_pages(number, *frames(*cells))
    return page


def test_curves_have_the_strategies_colours_and_the_pages_points() -> None:
    figure = draw_page(round_pages(10, *frames(*GRID))[0])
    left, right = visible_panels(figure)
    assert [panel.get_title() for panel in (left, right)] == ["OOD 20 %", "OOD 60 %"]
    assert left.get_ylabel() == "digits\ntest accuracy"
    lines = curves_by_colour(right)
    assert set(lines) == {style_of(name).colour for name in ("random", "vlpure", "id-only")}
    np.testing.assert_allclose(lines[style_of("id-only").colour], [[0, 0.4], [1, 0.7], [2, 0.8]])
    np.testing.assert_allclose(lines[style_of("vlpure").colour], [[0, 0.3], [1, 0.6], [2, 0.8]])
    assert dashed_heights(left) == pytest.approx([0.925])


def test_bands_are_drawn_from_three_seeds_up() -> None:
    assert [len(panel.collections) for panel in visible_panels(draw_page(one_page(7, num_seeds=2)))] == [0, 0]
    panels = visible_panels(draw_page(one_page(7)))
    assert [len(panel.collections) for panel in panels] == [2, 2]
    corners = np.concatenate([path.vertices for path in panels[0].collections[0].get_paths()])
    # precision of round 1: 0.5, 0.6, 0.7; half the width 4.302653 * 0.1 / sqrt(3)
    assert corners[:, 1].max() == pytest.approx(0.6 + 0.2484138, abs=1e-6)


def test_nothing_is_cut_on_a_page_of_the_papers_grid() -> None:
    page = one_page(
        10,
        datasets=("cifar10", "cifar100", "tiny-imagenet"),
        ood_ratios=(0.1, 0.2, 0.4, 0.6),
        strategies=STYLES,
        num_seeds=2,
    )
    figure = draw_page(page)
    assert figure.get_figwidth() == PAGE_WIDTH
    assert_nothing_is_cut(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*STYLES, "id-only", "full-data"]


@pytest.mark.parametrize("number", [7, 8, 9, 11])
def test_nothing_is_cut_on_a_small_page(number: int) -> None:
    assert_nothing_is_cut(draw_page(one_page(number, ood_ratios=(0.6,))))


def test_one_column_of_panels_takes_one_column_of_the_page() -> None:
    assert draw_page(one_page(8, ood_ratios=(0.6,))).get_figwidth() == COLUMN_WIDTH


def test_the_legend_names_each_curve_once_and_what_is_dashed() -> None:
    (legend,) = draw_page(one_page(10)).legends
    assert [text.get_text() for text in legend.get_texts()] == ["random", "vlpure", "id-only", "full-data"]
    assert legend.get_title().get_text() == "lines: mean over 3 seeds; bands: 95 % t-interval of the mean"
    colours = [to_hex(str(handle.get_color())).upper() for handle in legend.get_lines()]
    assert colours[:-1] == [style_of(name).colour for name in ("random", "vlpure", "id-only")]
    (legend,) = draw_page(one_page(7)).legends
    assert [text.get_text() for text in legend.get_texts()] == ["random", "vlpure", "1 - OOD ratio"]


def test_axes_have_limits_that_can_be_compared() -> None:
    precision = visible_panels(draw_page(one_page(7)))
    assert {panel.get_ylim() for panel in precision} == {(-0.02, 1.04)}
    trials, rounds = frames(*GRID[:3])
    left, right = visible_panels(draw_page(round_pages(8, trials, rounds)[0]))
    assert left.get_ylim() == right.get_ylim()


def test_labels_of_ticks_are_the_ticks_whatever_the_range() -> None:
    figure, panel = panel_of([0.815, 0.98])
    dress_panel(panel, tick_size=7)
    figure.canvas.draw()
    low, high = panel.get_ylim()
    ticks = [value for value in panel.get_yticks() if low <= value <= high]
    labels = [label.get_text() for label in panel.get_yticklabels()]
    said = [float(text.removesuffix("%")) for text in labels if low <= float(text.removesuffix("%")) / 100 <= high]
    np.testing.assert_allclose(said, 100 * np.array(ticks), atol=1e-9)


def panel_of(heights: Sequence[float]) -> tuple[Figure, Axes]:
    """A panel with a line through these heights."""
    figure = new_figure(COLUMN_WIDTH, 2.5)
    panel = figure.subplots()
    panel.plot(heights)
    return figure, panel


@pytest.mark.parametrize("file_format", ["png", "pdf"])
def test_equal_pages_give_equal_bytes(file_format: FileFormat) -> None:
    first, second = (file_bytes(draw_page(one_page(11)), file_format, dpi=50) for _ in range(2))
    assert first == second
    assert first.startswith({"png": b"\x89PNG", "pdf": b"%PDF"}[file_format])
