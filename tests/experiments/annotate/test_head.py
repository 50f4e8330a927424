"""The linear head on frozen features."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from experiments.annotate import head as module
from experiments.annotate.head import fit_head


def test_without_labels_the_head_is_what_the_texts_say() -> None:
    start = np.array([[2.0, 0.0], [0.0, 2.0]], dtype=np.float32)
    head = fit_head(np.empty((0, 2), dtype=np.float32), np.empty(0, dtype=np.int64), start)
    rows = np.array([[1.0, 0.0], [0.6, 0.8]], dtype=np.float32)
    assert head.outputs(rows).logits_NK.tolist() == pytest.approx(np.array([[2.0, 0.0], [1.2, 1.6]]))
    assert head.probabilities(rows)[0].tolist() == pytest.approx([0.8808, 0.1192], abs=1e-4)
    assert head.right_L is None


def test_labels_of_two_classes_leave_a_third_to_its_text() -> None:
    rng = np.random.default_rng(0)
    rows = np.eye(3)[[0, 1] * 10] + 0.1 * rng.normal(size=(20, 3))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    start = 5 * np.eye(3, dtype=np.float32)
    head = fit_head(rows, np.array([0, 1] * 10), start)
    assert head.probabilities(np.eye(3, dtype=np.float32)).argmax(axis=1).tolist() == [0, 1, 2]


def test_it_is_the_penalised_logistic_regression_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRENGTHS", (40.0, 40.0, 40.0))
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 5)).astype(np.float32)
    classes = np.arange(60) % 3
    head = fit_head(rows, classes, np.zeros((3, 5), dtype=np.float32))
    # The biases are free there and hardly penalised here; 60 images of equal weight 1/60 with C = 40.
    theirs = LogisticRegression(C=40 / 60, tol=1e-8, max_iter=1000).fit(rows, classes)
    assert np.allclose(head.probabilities(rows), theirs.predict_proba(rows), atol=5e-3)


def test_accuracy_is_held_out() -> None:
    rng = np.random.default_rng(0)
    rows, classes = rng.normal(size=(40, 200)).astype(np.float32), np.arange(40) % 2
    head = fit_head(rows, classes, np.zeros((2, 200), dtype=np.float32))
    assert (head.outputs(rows).logits_NK.argmax(axis=1) == classes).all()  # learnt by heart
    assert head.right_L is not None
    assert 0.25 <= head.right_L.mean() <= 0.75
