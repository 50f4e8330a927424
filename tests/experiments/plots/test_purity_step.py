"""What Figures 5 and 6 are made of, against the scorer and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from experiments.plots.purity_step import (
    PLOTTED_SCALES,
    PurityStep,
    _best_terms,
    example_sheet,
    first_purity_step,
    scale_sweep,
    typical_places,
)
from orchestrator.problem import pose_problem
from strategies.purity.contract import PurityOptions
from tests.experiments.purity_problem import NAMES, scorer_of, ten_classes, trial_of, use_ten_classes


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> PurityStep:
    data = use_ten_classes(monkeypatch)
    return first_purity_step(trial_of(), scorer_of(data))


def test_the_first_request_is_that_of_the_trials_problem(step: PurityStep) -> None:
    split = pose_problem(trial_of(), ten_classes()).split
    np.testing.assert_array_equal(step.request.labelled_id_idx, split.initial_id_idx)
    np.testing.assert_array_equal(step.request.labelled_ood_idx, split.initial_ood_idx)
    np.testing.assert_array_equal(step.request.unlabelled_idx, split.unlabelled_idx)
    is_id = np.isin(ten_classes().train.labels[split.unlabelled_idx], split.id_classes)
    np.testing.assert_array_equal(step.is_id_N, is_id)
    np.testing.assert_array_equal(
        [NAMES.index(step.request.class_names[label]) for label in step.request.labelled_id_labels],
        ten_classes().train.labels[split.initial_id_idx],
    )


@pytest.mark.parametrize("visual_similarity", [True, False])
def test_the_terms_of_an_example_give_its_scores(monkeypatch: pytest.MonkeyPatch, visual_similarity: bool) -> None:
    data = use_ten_classes(monkeypatch)
    trial = trial_of(purity=PurityOptions(visual_similarity=visual_similarity))
    step = first_purity_step(trial, scorer_of(data))
    sheet = example_sheet(step)
    assert sheet.examples
    for example in sheet.examples:
        assert example.id_score == pytest.approx(example.terms[0].product, rel=1e-5)
        assert example.judged_id == (example.id_score > example.ood_score)
        assert [term.product for term in example.terms] == sorted((t.product for t in example.terms), reverse=True)
        assert (example.terms[0].weight is not None) == visual_similarity
        index = int(example.pixels_HW3[0, 0, 0])  # an image is as bright as its index
        assert example.class_name == NAMES[data.train.labels[index]]
        position = int(np.flatnonzero(step.request.unlabelled_idx == index)[0])
        assert example.is_id == step.is_id_N[position]
        assert example.ood_score == step.scores.ood_scores[position]


def test_all_terms_together_give_the_ood_score(step: PurityStep) -> None:
    # K = 4 classes and three terms shown: the fourth is at least 0, so OOD * K is at most 1 minus the three.
    for example in example_sheet(step).examples:
        joint = sum(term.prob * term.not_q for term in example.terms)
        assert example.ood_score * 4 <= 1 - joint + 1e-6
        assert len(example.terms) == 3


def test_the_terms_shown_are_those_of_the_largest_products() -> None:
    terms = _best_terms(
        ["a", "b", "c", "d"],
        torch.tensor([0.4, 0.3, 0.2, 0.1]),
        torch.tensor([0.5, 0.5, 1.0, 1.0]),
        torch.tensor([0.1, 1.0, 1.0, 1.0]),
    )  # products 0.02, 0.15, 0.2, 0.1
    assert [term.name for term in terms] == ["c", "b", "d"]


def test_the_counts_are_of_the_whole_pool(step: PurityStep) -> None:
    sheet = example_sheet(step)
    assert sum(sheet.counts.values()) == len(step.is_id_N)
    assert sheet.counts[True, False] == int((step.is_id_N & ~step.scores.is_id).sum())
    assert sheet.counts[False, True] == int((~step.is_id_N & step.scores.is_id).sum())
    for is_id, judged_id in sheet.counts:
        shown = [e for e in sheet.examples if (e.is_id, e.judged_id) == (is_id, judged_id)]
        assert len(shown) == min(2, sheet.counts[is_id, judged_id])


@pytest.mark.parametrize(("count", "places"), [(0, []), (1, [0]), (2, [0, 1]), (3, [1, 2]), (9, [3, 6]), (10, [3, 6])])
def test_examples_are_neither_the_clearest_nor_the_closest(count: int, places: list[int]) -> None:
    assert typical_places(count) == places


def test_a_sweep_is_the_balanced_accuracy_of_the_scorers_own_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    data = use_ten_classes(monkeypatch)
    scorer = scorer_of(data, noise=0.6)
    sweep = scale_sweep(first_purity_step(trial_of(ood_ratio=0.6), scorer))  # more OOD images than ID images
    assert tuple(sweep.scales_T) == PLOTTED_SCALES
    for scale in (0.5, 3.0, 25.0):
        fixed = trial_of(ood_ratio=0.6, purity=PurityOptions(self_temperature=False, fixed_scale=scale))
        step = first_purity_step(fixed, scorer)
        right = step.scores.is_id == step.is_id_N
        expected = (right[step.is_id_N].mean() + right[~step.is_id_N].mean()) / 2
        assert sweep.pool_T[PLOTTED_SCALES.index(scale)] == pytest.approx(expected, abs=1e-12)
    assert sweep.pool_T.max() > sweep.pool_T.min()


def test_the_tuned_scale_is_the_scorers_and_the_best_on_the_labelled_images(step: PurityStep) -> None:
    sweep = scale_sweep(step)
    assert sweep.tuned is not None
    assert sweep.labelled_T is not None
    scale, on_labels, on_pool = sweep.tuned
    assert scale == step.scores.logit_scale
    assert on_labels == pytest.approx(step.scores.labelled_accuracy)
    assert on_labels >= sweep.labelled_T.max()
    right = step.scores.is_id == step.is_id_N
    assert on_pool == pytest.approx((right[step.is_id_N].mean() + right[~step.is_id_N].mean()) / 2)


def test_without_tuning_there_is_no_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    data = use_ten_classes(monkeypatch)
    trial = trial_of(purity=PurityOptions(self_temperature=False))
    sweep = scale_sweep(first_purity_step(trial, scorer_of(data)))
    assert sweep.tuned is None
    assert sweep.labelled_T is not None
    assert sweep.fixed_scale == 10.0


def test_the_plotted_scales_are_some_of_those_tried() -> None:
    assert len(PLOTTED_SCALES) == 190
    assert PLOTTED_SCALES[:2] == (0.1, 0.2)
    assert PLOTTED_SCALES[99:102] == (10.0, 11.0, 12.0)
    assert PLOTTED_SCALES[-1] == 100.0
