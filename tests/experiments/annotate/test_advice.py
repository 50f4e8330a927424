"""When stopping is reasonable."""

from __future__ import annotations

import pytest

from experiments.annotate.advice import Advice


def advice(*changed: float, found: int = 300, left_high: float = 500.0) -> Advice:
    return Advice(
        left=left_high / 2, left_low=0.0, left_high=left_high, found=found, changed=changed, right=None, labelled=found
    )


@pytest.mark.parametrize(
    ("known", "may_stop"),
    [
        (advice(0.019, 0.0, 0.01), True),
        (advice(0.02, 0.0, 0.01), False),
        (advice(0.0, 0.0), False),
        (advice(0.5, 0.5, 0.5, found=96, left_high=5.0), True),
        (advice(0.5, 0.5, 0.5, found=95, left_high=5.0), False),
        (advice(0.5, found=0, left_high=0.0), False),
    ],
)
def test_three_settled_rounds_or_hardly_anything_left(known: Advice, may_stop: bool) -> None:
    assert known.may_stop == may_stop
