"""The small table that a terminal shows while a grid runs."""

from __future__ import annotations

from experiments.commands.live_table import MOST_ROWS, live_table
from orchestrator.ledger.records import TrialSummary
from orchestrator.plan import PlannedTrial
from tests.factories import make_planned


def summary(aubc: float, precision: float | None) -> TrialSummary:
    return TrialSummary(aubc=aubc, aubc_paper=aubc, last_accuracy=aubc, mean_precision=precision)


def grid(*ood_ratios: float) -> list[PlannedTrial]:
    return [
        make_planned(seed + 10 * int(10 * ood), strategy=name, ood_ratio=ood)
        for seed in range(2) for ood in ood_ratios for name in ("random", "vlpure")
    ]  # fmt: skip


def test_one_condition_with_precision() -> None:
    planned = grid(0.6)
    first, second = (p.fingerprint for p in planned if p.trial.strategy == "random")
    finished = {first: summary(0.9, 0.4), second: summary(0.8, None)}
    assert live_table(planned, finished) == [
        "        AUBC (trials)  precision",
        "random  85.0 (2 of 2)       40.0",
        "vlpure     - (0 of 2)          -",
        "percent, means over the trials finished so far",
    ]


def test_a_column_for_each_condition() -> None:
    planned = grid(0.2, 0.6)
    finished = {planned[1].fingerprint: summary(0.95, 1.0)}
    assert live_table(planned, finished) == [
        "                20/20       20/60",
        "random     - (0 of 2)  - (0 of 2)",
        "vlpure  95.0 (1 of 2)  - (0 of 2)",
        "percent, means over the trials finished so far: AUBC (trials)",
    ]


def test_nothing_before_the_first_trial_and_for_too_many_arms() -> None:
    assert live_table(grid(0.6), {}) == []
    many = [
        PlannedTrial(trial=make_planned().trial, fingerprint=str(n), data_fingerprint="d", arm=f"arm{n}")
        for n in range(MOST_ROWS + 1)
    ]
    assert len(live_table(many[:-1], {"0": summary(0.5, None)})) == MOST_ROWS + 2
    assert live_table(many, {"0": summary(0.5, None)}) == []
