"""BUAL: its losses and scores by hand, its patience, and the contract's corners."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.classifier.negative import complementary_labels, negative_loss
from strategies.base import Selection
from strategies.bual import Bual, Patience, balanced, confidences, rescaled
from strategies.check import toy_view, toy_workshop
from strategies.options import BualOptions
from tests.strategies.views import QUICK, select


def test_complementary_labels_are_never_the_own() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        labels = torch.arange(3).repeat(200)
        drawn = complementary_labels(labels, 3)
        assert not (drawn == labels).any()
        assert {(own, other) for own, other in zip(labels.tolist(), drawn.tolist(), strict=True)} == {
            (own, other) for own in range(3) for other in range(3) if own != other
        }
        free = complementary_labels(torch.full((600,), 3), 3)
        assert free.bincount(minlength=3).min() > 150
        assert not torch.equal(free, complementary_labels(torch.full((600,), 3), 3))


def test_the_negative_loss_by_hand() -> None:
    """p = (1/4, 3/4): -ln 3/4 and -ln 1/4; a p of 1 costs -ln 1e-5."""
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)], [0.0, 200.0]])
    assert negative_loss(logits[:2], torch.tensor([0, 1])).item() == pytest.approx(-math.log(3 / 16) / 2)
    assert negative_loss(logits[2:], torch.tensor([1])).item() == pytest.approx(-math.log(1e-5))


@pytest.mark.parametrize(
    ("measure", "wanted"),
    [("confidence", [0.5, 1.0]), ("margin", [0.25, 1.0]), ("entropy", [-1.5 * math.log(2), 0.0])],
)
def test_confidences_by_hand(measure: str, wanted: list[float]) -> None:
    np.testing.assert_allclose(confidences(np.array([[0.25, 0.5, 0.25], [0.0, 1.0, 0.0]]), measure), wanted)


def test_scores_by_hand() -> None:
    negative, positive, unknown = np.array([2.0, 4.0, 6.0]), np.array([9.0, 5.0, 1.0]), np.array([0.1, 0.2, 0.5])
    assert balanced(negative, positive, unknown, None).tolist() == [0.0, 0.5, 1.0]
    assert balanced(negative, positive, None, 0.5).tolist() == [0.5, 0.75, 1.0]
    assert balanced(negative, positive, unknown, 0.8).tolist() == [0.8, 0.425, 1.0]  # 0.25 * 0.5 + 0.8 * 0.75 * 0.5
    assert rescaled(np.array([3.0, 3.0 + 1e-8])).tolist() == [0.0, 0.0]


def test_patience_looks_at_the_set() -> None:
    patience = Patience(checks=2)
    sets = [[1, 2, 3], [3, 2, 1], [1, 2, 4], [4, 1, 2], [2, 1, 4]]
    assert [patience.is_out(np.array(each)) for each in sets] == [False, False, False, False, True]
    never = Patience(checks=None)
    assert not any(never.is_out(np.array([1])) for _ in range(9))
    # One image of 101 is less than 1 %, one of 100 is not.
    for num, same in ((101, True), (100, False)):
        patience = Patience(checks=1)
        patience.is_out(np.arange(num))
        assert patience.is_out(np.arange(1, num + 1)) == same


def test_one_class_is_refused() -> None:
    view = toy_view(labels=(0, 0, 0))
    one = replace(view, class_names=("a",), workshop=toy_workshop(view.images, num_classes=1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"BUAL needs two ID classes, .* there is one \(a\); raise the mismatch ratio"):
        select("bual", one, 3)


def test_the_precision_is_remembered_and_used() -> None:
    view = toy_view()
    strategy = Bual(QUICK.bual)
    picked = Selection(idx=view.unlabelled_idx[:4], scores=np.zeros(4))
    memory = strategy.learn(view, picked, np.array([0, 3, 2, 1]), np.random.default_rng(0))
    assert memory == {"precision": [0.75]}
    first = strategy.select(view, 9, np.random.default_rng(0))
    later = strategy.select(replace(view, memory=memory), 9, np.random.default_rng(0))
    assert first.scores.tolist() != later.scores.tolist()


def test_the_negative_training_ends_early_and_the_rest_fills_up() -> None:
    view = toy_view(num_ood=20)
    options = BualOptions(epochs=6, batch_size=64, check_every=2, learning_rate=1e-9)
    patient = Bual(options).select(view, 3, np.random.default_rng(0))
    assert patient.diagnostics["num_checks"] == 3
    hasty = Bual(options.model_copy(update={"patience": 1})).select(view, 3, np.random.default_rng(0))
    assert hasty.diagnostics["num_checks"] == 2


def test_what_the_detector_removes_fills_up_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images from the tenth on are removed, the last one being the least surely OOD."""
    view = toy_view()
    num = len(view.unlabelled_idx)
    strategy = Bual(QUICK.bual)
    monkeypatch.setattr(strategy, "_detect", lambda view: (1 - np.arange(num) / 100, np.arange(num) < 10))
    selection = strategy.select(view, 13, np.random.default_rng(0))
    assert sorted(selection.idx[:10].tolist()) == view.unlabelled_idx[:10].tolist()
    assert selection.idx[10:].tolist() == view.unlabelled_idx[[num - 1, num - 2, num - 3]].tolist()
    np.testing.assert_allclose(selection.scores[10:], -11 + (np.arange(num - 1, num - 4, -1) / 100))
    assert selection.diagnostics["num_filled"] == 3
    assert selection.judged_id_idx is not None
    assert selection.judged_id_idx.tolist() == view.unlabelled_idx[:10].tolist()


@pytest.mark.parametrize(("num_ood", "labels"), [(1, (0, 1, 2)), (0, (0,)), (12, (1, 2))])
def test_few_labels_of_a_kind(num_ood: int, labels: tuple[int, ...]) -> None:
    selection = select("bual", toy_view(num_ood=num_ood, labels=labels), 9)
    assert len(set(selection.idx.tolist())) == 9
