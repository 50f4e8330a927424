"""AUBC by both rules, and the summary of a trial, by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.ledger.records import RoundRecord, aubc, aubc_paper, cumulative_precision, query_precision, summarise


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


def test_cumulative_precision(make_record: Callable[..., RoundRecord]) -> None:
    first = make_record(0, num_id=8, num_ood=12)
    assert cumulative_precision(first, first) is None
    assert cumulative_precision(first, make_record(2, num_id=38, num_ood=22)) == 0.75


def test_summary_of_a_trial(make_record: Callable[..., RoundRecord]) -> None:
    summary = summarise([make_record(0), make_record(1, precision=0.5), make_record(2, precision=1.0)])
    assert summary.aubc == pytest.approx(0.6)
    assert summary.aubc_paper == pytest.approx(0.4)
    assert summary.last_accuracy == 0.7
    assert summary.mean_precision == 0.75
    assert summarise([make_record(0)]).mean_precision is None
