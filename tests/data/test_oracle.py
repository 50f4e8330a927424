"""What the oracle answers, counts and refuses."""

from __future__ import annotations

import numpy as np
import pytest

from data.pool import Oracle


def _oracle() -> Oracle:
    return Oracle(np.array([0, 2, 1, 2, 0, 1]), num_id_classes=2)


def test_answers_in_the_order_asked_and_counts() -> None:
    oracle = _oracle()
    assert oracle.num_spent == 0
    assert oracle.answer(np.array([3, 0, 2])).tolist() == [2, 0, 1]
    assert oracle.num_spent == 3
    assert oracle.answer(np.array([1])).tolist() == [2]
    assert oracle.num_spent == 4


@pytest.mark.parametrize(
    ("idx", "message"),
    [
        ([4, 0], "the oracle was asked for image 0 before"),
        ([4, 4], "same image twice in one query"),
        ([4, 6], r"has images 0\.\.5; it was asked for image 6"),
        ([-1], "asked for image -1"),
    ],
)
def test_wrong_questions_cost_nothing(idx: list[int], message: str) -> None:
    oracle = _oracle()
    oracle.answer(np.array([0]))
    with pytest.raises(ValueError, match=message):
        oracle.answer(np.array(idx))
    assert oracle.num_spent == 1
    assert oracle.answer(np.array([4])).tolist() == [0]


def test_changing_the_callers_labels_changes_no_answer() -> None:
    labels = np.array([0, 1])
    oracle = Oracle(labels, num_id_classes=1)
    labels[:] = 1
    assert oracle.answer(np.array([0])).tolist() == [0]


def test_quality_of_a_purity_step() -> None:
    oracle = _oracle()
    # Of the unlabelled images 0, 1, 2, 3, 4 three are ID (0, 2, 4); judged ID are 0, 1, 4, of which two are.
    quality = oracle.judge(judged_id_idx=np.array([0, 1, 4]), unlabelled_idx=np.array([0, 1, 2, 3, 4]))
    assert quality.recall == 2 / 3
    assert quality.precision == 2 / 3
    quality = oracle.judge(judged_id_idx=np.array([0]), unlabelled_idx=np.array([0, 1, 2, 3, 4]))
    assert (quality.recall, quality.precision) == (1 / 3, 1.0)
    assert oracle.num_spent == 0


def test_quality_without_candidates_is_not_a_number() -> None:
    nothing = np.empty(0, dtype=np.int64)
    quality = _oracle().judge(judged_id_idx=nothing, unlabelled_idx=np.array([1, 3]))
    assert quality.recall is None
    assert quality.precision is None


def test_only_unlabelled_images_are_judged() -> None:
    with pytest.raises(AssertionError):
        _oracle().judge(judged_id_idx=np.array([0]), unlabelled_idx=np.array([1, 2]))
