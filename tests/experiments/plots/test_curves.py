"""The curves and the picture of a hand-made grid."""

from __future__ import annotations

import io
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from experiments.plots.canvas import STYLES, style_of
from experiments.plots.curves import cell_curves, curves_png, draw_curves
from experiments.results.statistics import CellKey
from tests.experiments.synthetic import read_frame

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "reporting"


@pytest.fixture
def rounds() -> pd.DataFrame:
    """The golden grid's rounds: OOD ratio 0.6 with one seed that stopped early, 0.2 unfinished."""
    return read_frame(GOLDEN / "rounds.csv")


def visible_panels(figure: Figure) -> list[Axes]:
    """The panels with curves, precision and accuracy, band by band."""
    return [panel for subfigure in figure.subfigs for panel in subfigure.axes if panel.get_visible()]


def curve_lines(panel: Axes) -> dict[str, np.ndarray]:
    """Colour -> (R, 2) points of each curve with points; the reference line has no marker."""
    return {
        to_hex(str(line.get_color())).upper(): np.asarray(line.get_xydata())
        for line in panel.lines
        if line.get_marker() != "None" and len(line.get_xydata())
    }


def test_a_curve_is_the_mean_over_the_seeds_that_got_to_the_end(rounds: pd.DataFrame) -> None:
    curves = cell_curves(rounds, "accuracy")
    random = curves[CellKey("digits", 0.2, 0.6, "random")]
    assert random.rounds == (0, 1, 2)
    assert [value.mean for value in random.estimates] == pytest.approx([0.52, 0.63, 0.74])
    # sd 0.04 at round 2: 4.302653 * 0.04 / sqrt(3)
    assert random.estimates[2].half_width == pytest.approx(0.0993655, abs=1e-7)
    vlpure = curves[CellKey("digits", 0.2, 0.6, "vlpure")]
    assert vlpure.num_seeds == 2
    assert [value.mean for value in vlpure.estimates] == pytest.approx([0.51, 0.72, 0.92])


def test_where_no_seed_got_to_the_end_the_curve_stops_with_the_first(rounds: pd.DataFrame) -> None:
    curve = cell_curves(rounds, "accuracy")[CellKey("digits", 0.2, 0.2, "vlpure")]
    assert curve.rounds == (0,)
    assert curve.num_seeds == 2
    assert curve.estimates[0].mean == pytest.approx(0.65)


def test_precision_starts_with_the_first_query(rounds: pd.DataFrame) -> None:
    curve = cell_curves(rounds, "precision")[CellKey("digits", 0.2, 0.6, "vlpure")]
    assert curve.rounds == (1, 2)
    assert [value.mean for value in curve.estimates] == pytest.approx([0.925, 0.95])


def test_panels_show_the_curves_in_the_strategies_colours(rounds: pd.DataFrame) -> None:
    panels = visible_panels(draw_curves(rounds))
    assert [panel.get_title() for panel in panels] == [
        "digits\nmismatch 20 %, OOD 20 %",
        "digits\nmismatch 20 %, OOD 60 %",
        "",
        "",
    ]
    lines = curve_lines(panels[3])
    assert set(lines) == {STYLES["random"].colour, STYLES["vlpure"].colour}
    np.testing.assert_allclose(lines[STYLES["vlpure"].colour], [[0, 0.51], [1, 0.72], [2, 0.92]])
    np.testing.assert_allclose(curve_lines(panels[1])[STYLES["random"].colour], [[1, 0.4], [2, 0.4]])


def test_the_dashed_line_is_one_minus_the_ood_ratio(rounds: pd.DataFrame) -> None:
    panels = visible_panels(draw_curves(rounds))
    heights = [
        [float(np.asarray(line.get_ydata())[0]) for line in panel.lines if line.get_marker() == "None"]
        for panel in panels
    ]
    assert heights == [[pytest.approx(0.8)], [pytest.approx(0.4)], [], []]


def test_bands_are_the_intervals_cut_at_one_and_absent_for_fewer_than_three_seeds(rounds: pd.DataFrame) -> None:
    _, precision_60, accuracy_20, accuracy_60 = visible_panels(draw_curves(rounds))
    assert len(accuracy_60.collections) == 1  # vlpure has two seeds there
    corners = np.concatenate([path.vertices for path in accuracy_60.collections[0].get_paths()])
    assert corners[:, 1].max() == pytest.approx(0.74 + 0.0993655, abs=1e-7)
    assert len(accuracy_20.collections) == 0
    assert len(precision_60.collections) == 1
    high = rounds.assign(accuracy=rounds["accuracy"] + 0.2)
    (band,) = visible_panels(draw_curves(high))[3].collections
    assert np.concatenate([path.vertices for path in band.get_paths()])[:, 1].max() == 1.0  # 0.94 + 0.0994


@pytest.mark.parametrize("num_conditions", [1, 4])
def test_nothing_is_cut_and_the_legend_is_beside_the_data(rounds: pd.DataFrame, num_conditions: int) -> None:
    one = rounds[rounds["ood_ratio"] == 0.6]
    eight = pd.concat([one[one["arm"] == "random"].assign(arm=name) for name in STYLES])
    frame = pd.concat([eight.assign(ood_ratio=0.1 * number) for number in range(1, num_conditions + 1)])
    figure = draw_curves(frame)
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    whole = figure.bbox
    assert [text.get_text() for text in legend.get_texts()] == [*STYLES, "1 - OOD ratio"]
    boxes = [box, *(panel.get_tightbbox() for panel in visible_panels(figure))]
    for each in boxes:
        assert each is not None
        assert each.x0 >= whole.x0 - 1
        assert each.x1 <= whole.x1 + 1
        assert each.y0 >= whole.y0 - 1
        assert each.y1 <= whole.y1 + 1
    for panel_box in boxes[1:]:
        assert panel_box is not None
        assert box.y1 <= panel_box.y0


def test_many_conditions_stand_in_bands(rounds: pd.DataFrame) -> None:
    one = rounds[(rounds["ood_ratio"] == 0.6) & (rounds["arm"] == "random")]
    frame = pd.concat(
        [one.assign(mismatch_ratio=mismatch, ood_ratio=ood) for mismatch in (0.2, 0.4) for ood in (0.1, 0.2, 0.6)]
    )
    figure = draw_curves(frame.iloc[: 5 * len(one)])
    assert len(figure.subfigs) == 1
    figure = draw_curves(frame)
    assert len(figure.subfigs) == 2
    titles = [panel.get_title().splitlines()[1] for panel in visible_panels(figure) if panel.get_title()]
    assert titles == [f"mismatch {mismatch} %, OOD {ood} %" for mismatch in (20, 40) for ood in (10, 20, 60)]


def test_the_legend_says_over_how_many_seeds(rounds: pd.DataFrame) -> None:
    def line(frame: pd.DataFrame) -> str:
        (legend,) = draw_curves(frame).legends
        return legend.get_title().get_text()

    assert line(rounds) == "lines: mean over 1 to 3 seeds; bands: 95 % t-interval of the mean, from 3 seeds up"
    assert line(rounds[rounds["seed"] < 2]) == "lines: mean over 1 to 2 seeds; no bands: drawn from 3 seeds up"
    assert line(rounds[rounds["seed"] == 0]) == "lines: one seed, no interval"
    assert line(rounds[rounds["arm"] == "random"].query("ood_ratio == 0.6")).startswith("lines: mean over 3 seeds;")


def test_a_grid_that_is_at_its_first_round_can_be_drawn(rounds: pd.DataFrame) -> None:
    figure = draw_curves(rounds[rounds["round"] == 0])
    assert curve_lines(visible_panels(figure)[0]) == {}
    assert len(curve_lines(visible_panels(figure)[3])) == 2


def test_equal_frames_give_equal_bytes(rounds: pd.DataFrame) -> None:
    first = curves_png(rounds)
    assert first == curves_png(rounds)
    with Image.open(io.BytesIO(first)) as picture:
        assert picture.size == (1020, 855)  # 6.8 x 5.7 inches of 150 dots


def test_no_round_is_an_error(rounds: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="no round to draw"):
        draw_curves(rounds.iloc[:0])


def test_the_papers_strategies_differ_in_colour_and_in_marker() -> None:
    for first, second in combinations(STYLES.values(), 2):
        assert first.colour != second.colour
        assert first.marker != second.marker


def test_another_strategy_keeps_its_style_from_run_to_run() -> None:
    style = style_of("badge")
    assert style == style_of("badge")
    command = "from experiments.plots.canvas import style_of; print(style_of('badge'))"
    outcomes = [
        subprocess.run(
            [sys.executable, "-c", command], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert all(left == right for left, right in pairwise([*outcomes, repr(style)]))


def test_the_modules_load_quickly_because_libraries_wait_until_they_are_used() -> None:
    command = (
        "import sys, experiments.pages.files; "
        "print(sorted({'pandas', 'scipy', 'matplotlib', 'torch', 'ray', 'mlflow'} & set(sys.modules)))"
    )
    outcome = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "[]"
