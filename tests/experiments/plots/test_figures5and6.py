"""Figures 5 and 6 as drawn, from hand-made values."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text

from experiments.plots.canvas import PAGE_WIDTH, dataset_style, file_bytes
from experiments.plots.figure5 import (
    ClassTerm,
    ExampleSheet,
    PurityExample,
    draw_examples,
    example_caption,
)
from experiments.plots.figure6 import ScaleSweep, draw_scales, scale_caption, untuned_notes
from experiments.results.statistics import Condition
from tests.experiments.pictures import assert_nothing_is_cut, curves_by_colour, visible_panels

CONDITION = Condition("digits", 0.4, 0.6)


def example(*, is_id: bool, judged_id: bool, weight: float | None = 0.25, grey: int = 100) -> PurityExample:
    terms = tuple(
        ClassTerm(name=name, prob=prob, not_q=0.5, weight=weight)
        for name, prob in (("cat", 0.8), ("a class with a very long name", 0.15), ("dog", 0.05))
    )
    return PurityExample(
        pixels_HW3=np.full((8, 8, 3), grey, dtype=np.uint8), class_name="cat", is_id=is_id, judged_id=judged_id,
        id_score=terms[0].product, ood_score=0.05 if judged_id else 0.9, terms=terms,
    )  # fmt: skip


def sheet(*examples: PurityExample) -> ExampleSheet:
    counts = {(True, True): 267, (True, False): 85, (False, True): 1, (False, False): 527}
    return ExampleSheet(
        condition=CONDITION, seed=3, logit_scale=2.5, is_tuned=True, num_classes=4, counts=counts, examples=examples
    )


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]


ALL_KINDS = [
    example(is_id=is_id, judged_id=judged, grey=grey)
    for is_id, judged, grey in (
        (True, False, 1), (True, True, 2), (False, True, 3), (False, False, 4), (True, True, 5), (False, False, 6),
    )
]  # fmt: skip


def test_id_images_stand_left_right_decisions_first() -> None:
    figure = draw_examples(sheet(*ALL_KINDS))
    places = {}
    for axes in figure.axes:
        for image in axes.get_images():
            assert isinstance(image, AxesImage)
            box = axes.get_position()
            places[int(np.asarray(image.get_array())[0, 0, 0])] = (round(box.x0, 2), -round(box.y0, 2))
    left, right = places[2][0], places[4][0]
    assert left < 0.5 < right
    in_reading_order = [
        grey for column in (left, right) for _, grey in sorted((y, g) for g, (x, y) in places.items() if x == column)
    ]
    assert in_reading_order == [2, 5, 1, 4, 6, 3]


def test_a_card_says_truth_decision_probabilities_and_scores() -> None:
    shown = texts(draw_examples(sheet(example(is_id=True, judged_id=True), example(is_id=False, judged_id=True))))
    assert shown.count("judged ID: right") == 1
    assert shown.count("judged ID: wrong") == 1
    assert {"$p_k$", "$1-q_k$", "$w_k$", "product", "0.800", "0.500", "0.250", "0.100"} <= set(shown)
    assert "ID score 0.100 > OOD score 0.050" in shown
    assert "a class with …" in shown


def test_without_visual_weights_there_is_no_such_column() -> None:
    shown = texts(draw_examples(sheet(example(is_id=False, judged_id=False, weight=None))))
    assert "$w_k$" not in shown
    assert "ID score 0.400 < OOD score 0.900" in shown


def test_bars_are_as_long_as_the_shares() -> None:
    figure = draw_examples(sheet(example(is_id=True, judged_id=True)))
    bars = [patch.get_width() for axes in figure.axes for patch in axes.patches if patch.get_facecolor()[0] < 0.5]
    whole = max(patch.get_width() for axes in figure.axes for patch in axes.patches)
    np.testing.assert_allclose(np.array(bars) / whole, [0.8, 0.5, 0.25, 0.15, 0.5, 0.25, 0.05, 0.5, 0.25], rtol=1e-6)


@pytest.mark.parametrize("examples", [ALL_KINDS, ALL_KINDS[:1], []])
def test_no_card_is_cut(examples: list[PurityExample]) -> None:
    figure = draw_examples(sheet(*examples))
    assert figure.get_figwidth() == PAGE_WIDTH
    assert_nothing_is_cut(figure)


def test_the_caption_counts_all_decisions() -> None:
    text = example_caption(sheet(), "demo")
    assert text.startswith("Figure 5. The purity step before the first query, digits mismatch 40 %, OOD 60 %, seed 3, ")
    assert "logit scale 2.5 (tuned on the labels)" in text
    assert "ID judged ID 267, ID judged OOD 85, OOD judged ID 1, OOD judged OOD 527. Run: demo." in text


def sweep(dataset: str = "digits", seed: int = 0, *, tuned: bool = True) -> ScaleSweep:
    scales = np.array([0.1, 1.0, 10.0, 100.0])
    return ScaleSweep(
        condition=Condition(dataset, 0.4, 0.6), seed=seed, scales_T=scales,
        labelled_T=np.array([0.5, 0.6, 0.9, 0.7]) + seed / 100, pool_T=np.array([0.5, 0.6, 0.8, 0.7]) + seed / 100,
        tuned=(10.0 + seed, 0.9, 0.8) if tuned else None, fixed_scale=10.0,
    )  # fmt: skip


def test_curves_are_means_over_seeds_and_marks_lie_at_the_tuned_scales() -> None:
    left, right = visible_panels(draw_scales([sweep(seed=seed) for seed in range(3)]))
    assert [panel.get_title() for panel in (left, right)] == ["labelled images", "unlabelled pool"]
    lines = [np.asarray(line.get_xydata()) for line in right.lines]
    np.testing.assert_allclose(lines[0], [[0.1, 0.51], [1, 0.61], [10, 0.81], [100, 0.71]])
    colour = dataset_style("digits").colour
    np.testing.assert_allclose(curves_by_colour(right)[colour], [[10, 0.8], [11, 0.8], [12, 0.8]])
    np.testing.assert_allclose(curves_by_colour(left)[colour], [[10, 0.9], [11, 0.9], [12, 0.9]])
    assert left.get_xscale() == "log"
    assert len(right.collections) == 1
    assert (10.0, 10.0) in [tuple(line.get_xdata()) for line in right.lines]  # the scale without tuning


def test_each_data_set_has_its_curve_and_name() -> None:
    figure = draw_scales([sweep("cifar10"), sweep("tiny-imagenet"), sweep("folder:/somewhere/of/my-birds")])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "cifar10",
        "tiny-imagenet",
        "my-birds",
        "without tuning",
    ]
    assert legend.get_title().get_text() == "marks: the tuned scale of each seed"
    assert len({dataset_style(name).colour for name in ("digits", "cifar10", "cifar100", "tiny-imagenet")}) == 4
    assert_nothing_is_cut(figure)


def test_what_was_not_tuned_is_named() -> None:
    sweeps = [sweep(tuned=False), sweep(seed=1)]
    assert untuned_notes(sweeps) == (
        "Not tuned (switched off, or one kind of image is not labelled yet): digits seed 0",
    )
    assert untuned_notes(sweeps[1:]) == ()
    assert "digits mismatch 40 %, OOD 60 %, 2 seeds" in scale_caption(sweeps, "demo")
    assert curves_by_colour(visible_panels(draw_scales(sweeps[:1]))[0]) == {}


def test_equal_values_give_equal_bytes() -> None:
    first, second = (file_bytes(draw_examples(sheet(*ALL_KINDS[:2])), "png", dpi=40) for _ in range(2))
    assert first == second
    first, second = (file_bytes(draw_scales([sweep()]), "pdf") for _ in range(2))
    assert first == second
