"""Which trials each figure stands on."""

from __future__ import annotations

import argparse

import pytest

from experiments.plots.plan import FIGURES, figure_numbers, plan_figure
from experiments.presets import ARMS
from orchestrator.settings.grid import GridConfig

GRID = GridConfig(
    datasets=("digits", "cifar10"), mismatch_ratios=(0.2, 0.4), ood_ratios=(0.2, 0.6), seeds=(3, 1),
    strategies=("random", "vlpure"), arms=ARMS,
)  # fmt: skip


def arms_of(number: int) -> dict[str, int]:
    """Arm -> number of trials to run."""
    counts: dict[str, int] = {}
    for each in plan_figure(number, GRID, {}).trials:
        counts[each.arm] = counts.get(each.arm, 0) + 1
    return counts


def test_curves_need_all_conditions_and_seeds_and_their_references() -> None:
    cells = {"random": 16, "vlpure": 16}  # 2 data sets x 2 x 2 ratios x 2 seeds
    assert arms_of(7) == cells
    assert arms_of(8) == arms_of(9) == cells | {"full-data": 8}  # whatever the OOD ratio
    assert arms_of(10) == cells | {"full-data": 8, "id-only": 8}
    assert arms_of(11) == {"vlpure": 16, "vlpure-no-visual": 16}


def test_references_that_the_user_names_are_no_curves_of_their_own() -> None:
    grid = GRID.model_copy(update={"strategies": ("random", "id-only", "full-data")})
    assert {each.arm for each in plan_figure(7, grid, {}).trials} == {"random"}
    assert {each.arm for each in plan_figure(12, grid, {}).trials} == {"random"}


def test_the_purity_figures_run_nothing_and_look_at_the_largest_ratios() -> None:
    five, six = plan_figure(5, GRID, {}), plan_figure(6, GRID, {})
    assert five.trials == six.trials == ()
    assert [(each.trial.dataset, each.trial.seed) for each in five.studied] == [("digits", 3), ("cifar10", 3)]
    assert len(six.studied) == 4
    for each in (*five.studied, *six.studied):
        assert (each.trial.strategy, each.trial.mismatch_ratio, each.trial.ood_ratio) == ("vlpure", 0.4, 0.6)


def test_the_query_map_is_of_one_condition_and_seed() -> None:
    plan = plan_figure(12, GRID, {})
    assert [(each.arm, each.trial.dataset, each.trial.seed) for each in plan.trials] == [
        ("random", "digits", 3), ("vlpure", "digits", 3), ("random", "cifar10", 3), ("vlpure", "cifar10", 3),
    ]  # fmt: skip
    assert plan.studied == ()
    assert len(plan_figure(12, GRID, {}, embedding="clipn").studied) == 2


def test_figures_have_trials_in_common() -> None:
    assert set(plan_figure(7, GRID, {}).trials) < set(plan_figure(10, GRID, {}).trials)
    assert set(plan_figure(12, GRID, {}).trials) < set(plan_figure(7, GRID, {}).trials)


def test_a_pool_without_ood_images_is_not_asked_of_a_data_set_without_ratios() -> None:
    grid = GRID.model_copy(update={"datasets": ("domainnet-real",)})
    assert {each.arm for each in plan_figure(10, grid, {}).trials} == {"random", "vlpure", "full-data"}


@pytest.mark.parametrize("number", [5, 6])
def test_only_atd_is_explained(number: int) -> None:
    with pytest.raises(ValueError, match=r"purity.detector = 'mcm': figures 5 and 6 .* --figure"):
        plan_figure(number, GRID, {"purity": {"detector": "mcm"}})
    assert plan_figure(12, GRID, {"purity": {"detector": "mcm"}}, embedding="clipn").studied


def test_numbers_of_figures() -> None:
    assert figure_numbers("all") == FIGURES == (5, 6, 7, 8, 9, 10, 11, 12)
    assert figure_numbers("12, 7,12") == (12, 7)
    for text in ("4", "8;9", "", "seven"):
        with pytest.raises(argparse.ArgumentTypeError, match="unknown figure"):
            figure_numbers(text)
