"""CONF: golden order of the reference, by hand, and what happens near certainty."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from strategies.base import highest_first
from strategies.uncertainty import least_confidence

GOLDEN = Path(__file__).parents[1] / "golden" / "conf.npz"


def test_golden_scores_and_order() -> None:
    with np.load(GOLDEN) as golden:
        scores = least_confidence(golden["logits"])
        np.testing.assert_allclose(scores, golden["uncertainty"], atol=2e-6)
        np.testing.assert_array_equal(highest_first(scores, len(scores)), golden["order"])


def test_by_hand() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.9, 0.05, 0.05]], dtype=np.float64))
    np.testing.assert_allclose(least_confidence(logits), [0.5, 0.1])


def test_order_is_kept_where_confidence_rounds_to_one() -> None:
    scores = least_confidence(np.array([[60.0, 0.0], [50.0, 0.0]]))
    assert 0 < scores[0] < scores[1] < 1e-20


def test_large_logits_do_not_overflow() -> None:
    np.testing.assert_allclose(least_confidence(np.array([[1e4, 1e4]], dtype=np.float32)), [0.5])


def test_ties_go_to_the_lowest_position() -> None:
    assert highest_first(np.array([1.0, 2.0, 2.0, 1.0]), 3).tolist() == [1, 2, 0]
