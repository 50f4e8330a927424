"""Advice of the plan works when it is followed: one ID class, and more labels than there are images."""

from __future__ import annotations

import re
from typing import Any

import pytest

from orchestrator.plan import plan_trials
from orchestrator.settings.reading import make_trial


def refusal(**changes: Any) -> str | None:
    """Why the plan refuses a trial of the digits; None if it does not."""
    settings = {"mismatch_ratio": 0.4, "ood_ratio": 0.4, "rounds": 3, "budget": 20, "strategy": "random", "seed": 0}
    try:
        plan_trials([make_trial(dataset="digits", **(settings | changes))], None)
    except ValueError as error:
        return str(error)
    return None


def test_a_single_id_class_is_refused_with_a_ratio_that_gives_two() -> None:
    said = refusal(mismatch_ratio=0.1)
    assert said is not None
    assert said.endswith("gives 1 ID class, so accuracy is always 1; raise the mismatch ratio to 0.2 or more")
    assert refusal(mismatch_ratio=0.2) is None


@pytest.mark.parametrize(("rounds", "budget"), [(10, 300), (400, 20), (2, 400)])
def test_fewer_rounds_or_a_smaller_budget_as_advised_are_accepted(rounds: int, budget: int) -> None:
    said = refusal(rounds=rounds, budget=budget)
    assert said is not None
    fewer, smaller = (
        int(found[1]) if (found := re.search(rf"--{name} to at most (\d+)", said)) else None
        for name in ("rounds", "budget")
    )
    assert fewer is not None
    assert refusal(rounds=fewer, budget=budget) is None
    assert "labels, but there are only" in (refusal(rounds=fewer + 1, budget=budget) or "")
    if rounds == 400:  # 2 labels a round would be too few for the first set
        assert smaller is None
        return
    assert smaller is not None
    assert refusal(rounds=rounds, budget=smaller) is None
    assert "labels, but there are only" in (refusal(rounds=rounds, budget=smaller + 1) or "")
