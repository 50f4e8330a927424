"""What every registered strategy must do, whatever it is."""

from __future__ import annotations

import numpy as np
import pytest

from strategies.base import PoolView, Selection, check_selection
from strategies.check import NUM_IMAGES, contract_cases, toy_view
from strategies.registry import STRATEGIES, find_strategy
from tests.strategies.views import select


@pytest.fixture(params=sorted(STRATEGIES))
def name(request: pytest.FixtureRequest) -> str:
    """Each registered strategy."""
    strategy: str = request.param
    return strategy


def kept(name: str, view: PoolView, budget: int, **how: bool) -> Selection:
    """What a strategy picks; fails unless it keeps the contract."""
    selection = select(name, view, budget, **how)
    return check_selection(selection, unlabelled_idx=view.unlabelled_idx, budget=budget, who=name)


LOOK_AT_NO_OUTPUT = (
    "random", "lfosa", "eoal", "e2oal", "e2oal-own", "bual", "ccal", "probcover", "probcover-pretrained",
    "typiclust", "neat-passive", "maxherding",
)  # fmt: skip
"""Strategies that look at no output of the round's classifier."""

CASES = {case: (view, budget) for case, view, budget in contract_cases()}


@pytest.mark.parametrize("case", CASES)
def test_every_case_of_the_contract(name: str, case: str) -> None:
    kept(name, *CASES[case])


def test_equal_arguments_give_equal_answers(name: str) -> None:
    first, second = (select(name, toy_view(), 9) for _ in range(2))
    np.testing.assert_array_equal(first.idx, second.idx)
    np.testing.assert_array_equal(first.scores, second.scores)


@pytest.mark.parametrize("verdict", [False, True])
def test_nothing_or_everything_predicted_id(name: str, verdict: bool) -> None:
    kept(name, toy_view(), 9, verdict=verdict)


def test_ties_go_to_the_lowest_index(name: str) -> None:
    if name == "random":
        pytest.skip("RANDOM ranks by nothing")
    view = toy_view(constant=True)
    picked = select(name, view, 9, verdict=True, constant=True).idx
    np.testing.assert_array_equal(picked, view.unlabelled_idx[:9])


def test_outputs_that_are_not_finite_are_named(name: str) -> None:
    view = toy_view()
    view.compute_outputs().logits_NK[2, 0] = np.nan
    if name in LOOK_AT_NO_OUTPUT:
        np.testing.assert_array_equal(select(name, view, 9).idx, select(name, toy_view(), 9).idx)
        return
    with pytest.raises(ArithmeticError, match=rf"index {view.unlabelled_idx[2]}\b"):
        select(name, view, 9, verdict=True)


def test_random_is_uniform() -> None:
    view = toy_view()
    counts = np.zeros(NUM_IMAGES)
    for seed in range(2000):
        counts[select("random", view, 7, seed=seed).idx] += 1
    expected = 2000 * 7 / len(view.unlabelled_idx)
    assert counts[view.unlabelled_idx].sum() == 14_000
    assert np.abs(counts[view.unlabelled_idx] / expected - 1).max() < 0.25  # four standard deviations


def test_an_unknown_strategy_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown strategy 'vlpur' \(did you mean 'vlpure'\?\)"):
        find_strategy("vlpur")
