"""POAL: the fronts against their definition, ranks, and what decides within a front."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.classifier.outputs import ClassifierOutputs
from strategies.check import toy_view
from strategies.poal import front_scores, likeness, pareto_fronts, ranks
from tests.strategies.views import select


def fronts_by_definition(points: np.ndarray) -> list[int]:
    """Fronts peeled one after the other."""
    fronts, left, number = np.full(len(points), -1), np.arange(len(points)), 0
    while len(left):
        kept = points[left]
        beaten = [((kept >= each).all(axis=1) & (kept > each).any(axis=1)).any() for each in kept]
        fronts[left[~np.array(beaten)]] = number
        left, number = left[np.array(beaten)], number + 1
    return fronts.tolist()


def test_fronts_by_hand() -> None:
    first, second = np.array([3.0, 1, 2, 1, 3, 3, 0]), np.array([1.0, 3, 2, 2, 1, 0, 0])
    assert pareto_fronts(first, second).tolist() == [0, 0, 0, 1, 0, 1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_fronts_are_those_of_the_definition(seed: int) -> None:
    points = np.random.default_rng(seed).integers(8 if seed else 1000, size=(150, 2)).astype(np.float64)
    assert pareto_fronts(points[:, 0], points[:, 1]).tolist() == fronts_by_definition(points)


def test_ranks_and_likeness() -> None:
    assert ranks(np.array([5.0, 1.0, 5.0, 9.0])).tolist() == [0.25, 0.0, 0.25, 0.75]
    rng = np.random.default_rng(0)
    labelled = rng.normal(size=(40, 2)).astype(np.float32)
    labels = np.repeat([0, 2], 20)
    labelled[labels == 2] += 20
    scores = likeness(np.array([[0, 0], [20, 20], [10, 10], [40, 40]], dtype=np.float32), labelled, labels, 3)
    assert scores.argsort().tolist()[:2] == [3, 2]
    assert (scores[:2] > -1).all()
    none = likeness(labelled, labelled[:0], labels[:0], 3)
    assert none.tolist() == [0.0] * 40


def test_the_query_takes_fronts_in_turn() -> None:
    view = toy_view()
    num = len(view.unlabelled_idx)
    features = np.full((num, 8), 50.0, dtype=np.float32)
    logits = np.tile(np.array([9.0, 0, 0], dtype=np.float32), (num, 1))
    logits[[4, 30]] = 0  # the least certain ones
    features[30], features[9] = 5.0, 0.0  # 30 beats 4 in likeness; 9 is the most alike
    outputs = ClassifierOutputs(logits_NK=logits, features_ND=features)
    seen = replace(view, compute_outputs=lambda: outputs)
    assert select("poal", seen, 3).idx.tolist() == view.unlabelled_idx[[30, 9, 4]].tolist()
    selection = select("poal", seen, 49)
    assert selection.idx[3:].tolist() == view.unlabelled_idx[[i for i in range(49) if i not in (30, 9, 4)]].tolist()
    assert np.ceil(-selection.scores[:4]).tolist() == [0, 0, 1, 2]


def test_within_a_front_both_ranks_count() -> None:
    """Ranks 4, 3, 2, 1, 0 of 5 in doubt and 0, 0, 2, 3, 4 in likeness; image 1 is beaten by image 0."""
    doubt, alike = np.array([4.0, 3.0, 2.0, 1.0, 0.0]), np.array([0.0, 0.0, 3.0, 4.0, 5.0])
    fronts = pareto_fronts(doubt, alike)
    assert fronts.tolist() == [0, 1, 0, 0, 0]
    scores = front_scores(doubt, alike)
    np.testing.assert_allclose(scores, [0.4, -1 + 0.3, 0.4, 0.4, 0.4])
