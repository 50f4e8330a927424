"""Figure 12: where queried images lie in the plane, and how that is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from data.imageset import DataSet
from experiments.plots import figure12 as query_study
from experiments.plots.canvas import ID_COLOUR, OOD_COLOUR, file_bytes
from experiments.plots.figure12 import (
    Queries,
    QueryMap,
    draw_map,
    evenly_spaced,
    map_caption,
    missing_notes,
    plane,
    query_map,
)
from experiments.results.statistics import Condition
from orchestrator.plan import PlannedTrial
from orchestrator.problem import pose_problem
from tests.experiments.pictures import assert_nothing_is_cut, visible_panels
from tests.experiments.purity_problem import scorer_of, ten_classes, trial_of, use_ten_classes
from tests.factories import make_record


def planned(strategy: str, *queries: Sequence[int]) -> PlannedTrial:
    records = tuple(
        make_record(number, queried_idx=[int(index) for index in queried])
        for number, queried in enumerate(([], *queries))
    )
    return PlannedTrial(
        trial=trial_of(strategy=strategy), fingerprint=strategy, data_fingerprint=ten_classes().fingerprint,
        records=records,
    )  # fmt: skip


def clipn_features(data: DataSet) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    """A row a training image."""
    return partial(scorer_of(data).features, data.fingerprint)


@pytest.fixture
def pool() -> np.ndarray:
    """The unlabelled images of the trials."""
    return pose_problem(trial_of(), ten_classes()).split.unlabelled_idx


def test_positions_are_those_of_the_queried_images(monkeypatch: pytest.MonkeyPatch, pool: np.ndarray) -> None:
    data = use_ten_classes(monkeypatch)
    trials = [planned("random", pool[:4], pool[10:14]), planned("vlpure", pool[5:9]), planned("conf")]
    drawn = query_map(trials, clipn_features(data), embedded="features")
    assert drawn.num_pool == len(pool) == len(drawn.pool)
    np.testing.assert_array_equal(pool[drawn.queries["random"].shown], np.concatenate([pool[:4], pool[10:14]]))
    np.testing.assert_array_equal(pool[drawn.queries["vlpure"].shown], pool[5:9])
    assert drawn.missing == ("conf",)
    split = pose_problem(trial_of(), data).split
    is_id = np.isin(data.train.labels, split.id_classes)
    np.testing.assert_array_equal(drawn.is_id_P, is_id[pool])
    assert drawn.queries["vlpure"].num_id == is_id[pool[5:9]].sum()
    assert drawn.queries["random"].num_queried == 8


def test_a_large_pool_and_many_queries_are_drawn_in_part(monkeypatch: pytest.MonkeyPatch, pool: np.ndarray) -> None:
    data = use_ten_classes(monkeypatch)
    monkeypatch.setattr(query_study, "MOST_POOL", 20)
    monkeypatch.setattr(query_study, "MOST_QUERIED", 3)
    drawn = query_map([planned("random", pool[:8])], clipn_features(data), embedded="features")
    assert len(drawn.pool) == 20
    behind = np.random.default_rng(0).choice(pool, 20, replace=False)
    points = np.unique(np.concatenate([pool[[0, 4, 7]], behind]))
    assert len(points) > 20  # some queried images are not among those behind
    np.testing.assert_array_equal(points[drawn.pool], np.sort(behind))
    np.testing.assert_array_equal(points[drawn.queries["random"].shown], pool[[0, 4, 7]])
    assert drawn.queries["random"].num_queried == 8
    text = map_caption(drawn, "demo")
    assert "at most 3 a strategy are drawn" in text
    assert f"20 drawn at random of {len(pool)} images" in text


def test_the_plane_keeps_neighbours_together_and_repeats_itself() -> None:
    generator = np.random.default_rng(0)
    features = np.eye(10)[np.repeat(np.arange(3), 20)] + 0.05 * generator.normal(size=(60, 10))
    points = plane(features.astype(np.float32), seed=1)
    np.testing.assert_array_equal(points, plane(features.astype(np.float32), seed=1))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (distances.argmin(axis=1) // 20 == np.repeat(np.arange(3), 20)).all()


def test_evenly_spaced_keeps_first_and_last() -> None:
    np.testing.assert_array_equal(evenly_spaced(np.arange(10, 20), 4), [10, 13, 16, 19])
    np.testing.assert_array_equal(evenly_spaced(np.arange(3), 4), [0, 1, 2])


def hand_made(num_strategies: int = 2) -> QueryMap:
    points = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    queries = Queries(shown=np.array([1, 2]), num_id=5, num_queried=10)
    return QueryMap(
        condition=Condition("digits", 0.4, 0.6), seed=0, points_P2=points, is_id_P=np.array([True, True, False, False]),
        pool=np.arange(4), num_pool=4, queries=dict.fromkeys(map("strategy-{}".format, range(num_strategies)), queries),
        missing=("conf",), embedded="features of something",
    )  # fmt: skip


def test_id_and_ood_differ_in_colour_and_marker() -> None:
    panel, _ = visible_panels(draw_map(hand_made()))
    offsets = {
        to_hex(scatter.get_facecolor()[0]).upper(): np.asarray(scatter.get_offsets()).tolist()
        for scatter in panel.collections
    }
    assert offsets[ID_COLOUR] == [[1, 0]]
    assert offsets[OOD_COLOUR] == [[0, 1]]
    crosses, circles = (
        next(s for s in panel.collections if to_hex(s.get_facecolor()[0]).upper() == colour).get_paths()[0]
        for colour in (OOD_COLOUR, ID_COLOUR)
    )
    assert len(crosses.vertices) != len(circles.vertices)
    assert panel.get_title() == "strategy-0: 5 of 10 ID"


@pytest.mark.parametrize("num_strategies", [1, 4, 5, 8])
def test_no_panel_is_cut(num_strategies: int) -> None:
    figure = draw_map(hand_made(num_strategies))
    assert len(visible_panels(figure)) == num_strategies
    assert_nothing_is_cut(figure)


def test_the_caption_says_what_is_there_and_what_is_not() -> None:
    text = map_caption(hand_made(), "demo")
    assert "(all 4 images)" in text
    assert "One t-SNE embedding of features of something for all panels" in text
    assert text.endswith("Missing (no query yet): conf. Run: demo.\n")
    assert missing_notes(hand_made()) == ("Missing (no query yet): conf",)


def test_equal_maps_give_equal_bytes() -> None:
    assert file_bytes(draw_map(hand_made()), "png", dpi=50) == file_bytes(draw_map(hand_made()), "png", dpi=50)
