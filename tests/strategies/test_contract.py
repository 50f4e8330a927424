"""What every registered strategy must do, whatever it is."""

from __future__ import annotations

import numpy as np
import pytest

from strategies.base import PoolView, Selection
from strategies.registry import STRATEGIES, find_strategy
from tests.strategies.views import NUM_IMAGES, make_view, select


@pytest.fixture(params=sorted(STRATEGIES))
def name(request: pytest.FixtureRequest) -> str:
    """Each registered strategy."""
    strategy: str = request.param
    return strategy


def check(selection: Selection, view: PoolView, count: int) -> None:
    assert selection.idx.dtype == np.int64
    assert selection.idx.shape == selection.scores.shape == (count,)
    assert len(set(selection.idx.tolist())) == count
    assert set(selection.idx.tolist()) <= set(view.unlabelled_idx.tolist())
    assert np.isfinite(selection.scores).all()
    for reason in selection.reasons.values():
        assert reason.shape == (count,)
        assert np.isfinite(reason).all()


@pytest.mark.parametrize("budget", [1, 7, 49, 1000])
def test_right_count_distinct_and_inside_the_pool(name: str, budget: int) -> None:
    view = make_view()
    check(select(name, view, budget), view, min(budget, len(view.unlabelled_idx)))


def test_equal_arguments_give_equal_answers(name: str) -> None:
    first, second = (select(name, make_view(), 9) for _ in range(2))
    np.testing.assert_array_equal(first.idx, second.idx)
    np.testing.assert_array_equal(first.scores, second.scores)


def test_a_class_without_labels(name: str) -> None:
    view = make_view(labels=(0, 0, 1))
    check(select(name, view, 9), view, 9)


def test_no_labelled_ood(name: str) -> None:
    view = make_view(num_ood=0)
    check(select(name, view, 9), view, 9)


@pytest.mark.parametrize("verdict", [False, True])
def test_nothing_or_everything_predicted_id(name: str, verdict: bool) -> None:
    view = make_view()
    check(select(name, view, 9, verdict=verdict), view, 9)


def test_ties_go_to_the_lowest_index(name: str) -> None:
    if name == "random":
        pytest.skip("RANDOM ranks by nothing")
    view = make_view(constant=True)
    picked = select(name, view, 9, verdict=True, constant=True).idx
    np.testing.assert_array_equal(picked, view.unlabelled_idx[:9])


def test_a_pool_of_one(name: str) -> None:
    view = make_view()
    view = view.restricted_to(np.arange(len(view.unlabelled_idx)) == 4)
    check(select(name, view, 9), view, 1)


def test_outputs_that_are_not_finite_are_named(name: str) -> None:
    view = make_view()
    view.compute_outputs().logits_NK[2, 0] = np.nan
    if name in (
        "random",
        "lfosa",
        "eoal",
        "ccal",
        "probcover",
        "probcover-pretrained",
    ):  # they look at no output of the classifier
        np.testing.assert_array_equal(select(name, view, 9).idx, select(name, make_view(), 9).idx)
        return
    with pytest.raises(ArithmeticError, match=rf"index {view.unlabelled_idx[2]}\b"):
        select(name, view, 9, verdict=True)


def test_random_is_uniform() -> None:
    view = make_view()
    counts = np.zeros(NUM_IMAGES)
    for seed in range(2000):
        counts[select("random", view, 7, seed=seed).idx] += 1
    expected = 2000 * 7 / len(view.unlabelled_idx)
    assert counts[view.unlabelled_idx].sum() == 14_000
    assert np.abs(counts[view.unlabelled_idx] / expected - 1).max() < 0.25  # four standard deviations


def test_an_unknown_strategy_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown strategy 'vlpur' \(did you mean 'vlpure'\?\)"):
        find_strategy("vlpur")
