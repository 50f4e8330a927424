"""Ranks over conditions against SciPy, hand-worked values and published tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from experiments.plots.canvas import FILE_FORMATS, file_bytes
from experiments.plots.ranks import draw_penalties, draw_ranks
from experiments.results.overall import Ranking, critical_difference, middle_mean, rank_strategies
from experiments.results.statistics import Condition

CONDITIONS = [Condition("digits", 0.2, ratio) for ratio in (0.1, 0.2, 0.4, 0.6)]


def scores(values: dict[str, list[float]]) -> dict[Condition, dict[str, dict[int, float]]]:
    """One seed a condition: strategy -> its value in each condition."""
    return {
        condition: {name: {0: row[position]} for name, row in values.items()}
        for position, condition in enumerate(CONDITIONS)
    }


def ranking(**ranks: float) -> Ranking:
    """A ranking of which only ranks and the critical difference 1 matter."""
    return Ranking(conditions=(CONDITIONS[0],), ranks=ranks, friedman=1.0, p=0.5, critical_difference=1.0)


def test_friedman_is_scipys() -> None:
    values = {"a": [0.9, 0.8, 0.7, 0.9], "b": [0.5, 0.85, 0.6, 0.8], "c": [0.4, 0.3, 0.65, 0.8]}
    expected = stats.friedmanchisquare(*values.values())
    found = rank_strategies(scores(values), list(values))
    assert (found.friedman, found.p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-12)


def test_friedman_by_hand() -> None:
    # ranks 1 2 3 in all four conditions: 12 / (4 * 3 * 4) * (4^2 + 8^2 + 12^2) - 3 * 4 * 4 = 8
    values = {"a": [0.9] * 4, "b": [0.8] * 4, "c": [0.7] * 4}
    found = rank_strategies(scores(values), ["c", "a", "b"])
    assert found.friedman == pytest.approx(8.0)
    assert found.p == pytest.approx(math.exp(-4.0))  # chi-squared with 2 degrees of freedom
    assert list(found.ranks.items()) == [("a", 1.0), ("b", 2.0), ("c", 3.0)]


def test_friedman_without_a_difference_or_enough_data_is_not_known() -> None:
    assert math.isnan(rank_strategies(scores({"a": [0.5] * 4, "b": [0.5] * 4, "c": [0.5] * 4}), list("abc")).p)
    assert math.isnan(rank_strategies(scores({"a": [0.5] * 4, "b": [0.6] * 4}), list("ab")).p)


@pytest.mark.parametrize(("num_strategies", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (8, 3.031), (10, 3.164)])
def test_critical_difference_has_the_published_quantiles(num_strategies: int, q: float) -> None:
    # Demsar (2006), Table 5a: two-tailed Nemenyi test at 0.05
    expected = q * math.sqrt(num_strategies * (num_strategies + 1) / (6 * 14))
    assert critical_difference(num_strategies, 14) == pytest.approx(expected, abs=0.001)


def test_critical_difference_needs_something_to_compare() -> None:
    assert math.isnan(critical_difference(1, 5))
    assert math.isnan(critical_difference(3, 0))


def test_groups_are_the_largest_that_cannot_be_told_apart() -> None:
    assert ranking(a=1.0, b=1.5, c=1.9, d=2.6, e=4.0).groups() == [("a", "b", "c"), ("c", "d")]
    assert ranking(a=1.0, b=2.0, c=3.0).groups() == []  # a difference as large as the critical one is one
    assert ranking(a=1.0, b=1.1, c=1.2).groups() == [("a", "b", "c")]


def test_the_middle_mean_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for size in range(1, 30):
        values = rng.normal(size=size)
        assert middle_mean(values) == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-12)


def test_ranks_are_drawn_with_every_name_and_rank() -> None:
    figure = draw_ranks(ranking(vlpure=1.0, eoal=1.5, random=3.0))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"vlpure  1.00", "eoal  1.50", "3.00  random", "critical difference 1.00"} <= set(texts)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    for text in figure.axes[0].texts:
        box = text.get_window_extent(renderer)
        assert figure.bbox.contains(box.x0, box.y0), text.get_text()
        assert figure.bbox.contains(box.x1, box.y1), text.get_text()


def test_too_wide_a_critical_difference_is_said() -> None:
    wide = Ranking(conditions=(CONDITIONS[0],), ranks={"a": 1.0, "b": 2.0}, friedman=1, p=1, critical_difference=1.96)
    texts = [text.get_text() for text in draw_ranks(wide).axes[0].texts]
    assert "critical difference 1.96: wider than the scale" in texts


def test_nothing_to_rank_is_an_error() -> None:
    with pytest.raises(ValueError, match="two strategies and a condition"):
        draw_ranks(ranking(a=1.0))


def test_penalties_are_drawn_with_their_column_means() -> None:
    figure = draw_penalties(np.array([[0, 2.0, 0.5], [0, 0, 1.0], [0, 1.0, 0]]), ["a", "b", "c"], 2)
    panel, below = figure.axes
    assert [text.get_text() for text in panel.texts] == ["-", "2.00", "0.50", "0.00", "-", "1.00", "0.00", "1.00", "-"]
    assert [text.get_text() for text in below.texts] == ["0.00", "1.50", "0.75"]
    grey = panel.images[0].cmap(np.linspace(0, 1, 5))
    assert np.ptp(grey[:, :3], axis=1).max() < 0.01  # no colour


def test_equal_pictures_give_equal_bytes() -> None:
    for form in FILE_FORMATS:
        first, second = (file_bytes(draw_ranks(ranking(a=1.0, b=2.0)), form) for _ in range(2))
        assert first == second
