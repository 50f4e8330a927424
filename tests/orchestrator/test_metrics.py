"""AUBC by both rules, and the summary of a trial, by hand."""

from __future__ import annotations

import pytest

from orchestrator.metrics import aubc, aubc_paper, query_precision


def test_constant_accuracy() -> None:
    assert aubc([0.8] * 10) == pytest.approx(0.8)
    assert aubc_paper([1.0] * 10) == pytest.approx(0.9)


def test_by_hand() -> None:
    # trapezoids 0.3, 0.5, 0.7
    assert aubc([0.2, 0.4, 0.6, 0.8]) == pytest.approx(0.5)
    assert aubc_paper([0.2, 0.4, 0.6, 0.8]) == pytest.approx(1.5 / 4)


def test_order_matters_only_at_the_ends() -> None:
    assert aubc([0.0, 0.5, 1.0, 0.0]) == pytest.approx(0.5)
    assert aubc([0.0, 1.0, 0.5, 0.0]) == pytest.approx(0.5)
    assert aubc([1.0, 0.5, 0.0, 0.0]) == pytest.approx(1.0 / 3)


def test_one_round() -> None:
    assert aubc([0.7]) == 0.7
    assert aubc_paper([0.7]) == 0.0


def test_precision() -> None:
    assert query_precision(15, 20) == 0.75
