"""A ledger of plausible curves, written as a grid would write it, without computing anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial, look_up
from orchestrator.settings.reading import make_trial
from orchestrator.settings.trial import TrialConfig
from tests.factories import make_record

STRATEGIES = ("random", "conf", "ll", "coreset", "mqnet", "lfosa", "eoal", "vlpure")
CONDITIONS = (("cifar10", 0.2, 0.2), ("cifar10", 0.2, 0.6), ("cifar10", 0.4, 0.2), ("cifar10", 0.4, 0.6))
PURITY = {"lfosa": 0.75, "eoal": 0.8, "mqnet": 0.65, "vlpure": 0.97}
"""Share of ID images that a strategy finds; the others find 1 - OOD ratio."""
START_MS = 1_760_000_000_000


def read_frame(path: Path) -> pd.DataFrame:
    """A frame as the program has it, from its CSV file, which heads the arms `strategy`."""
    return pd.read_csv(path).rename(columns={"strategy": "arm"})


def plan(trials: Sequence[TrialConfig], ledger: Ledger) -> list[PlannedTrial]:
    """The trials with what the ledger has of them; no data set is opened."""
    return [look_up(ledger, trial, fingerprint(trial), "data") for trial in trials]


def fingerprint(trial: TrialConfig) -> str:
    """Of a trial on some data."""
    return trial.fingerprint(data_fingerprint=trial.dataset, clipn_identity="clipn")


def grid(
    *,
    conditions: Sequence[tuple[str, float, float]] = CONDITIONS,
    strategies: Sequence[str] = STRATEGIES,
    seeds: Sequence[int] = range(5),
    **settings: Any,
) -> list[TrialConfig]:
    """All trials of a grid."""
    return [
        make_trial(
            dataset=dataset,
            mismatch_ratio=mismatch_ratio,
            ood_ratio=ood_ratio,
            strategy=strategy,
            seed=seed,
            **settings,
        )
        for seed in seeds
        for dataset, mismatch_ratio, ood_ratio in conditions
        for strategy in strategies
    ]


def write_ledger(folder: Path, trials: Sequence[TrialConfig]) -> Ledger:
    """A ledger that holds all rounds of `trials`."""
    ledger = Ledger(folder)
    for trial in trials:
        for record in records_of(trial):
            ledger.append(fingerprint(trial), trial.model_dump(mode="json"), record)
    return ledger


def records_of(trial: TrialConfig) -> list[RoundRecord]:
    """Records whose accuracy grows with the ID labels, with an offset a seed that all strategies share."""
    offset = float(np.random.default_rng(trial.seed).normal(0, 0.015))
    rng = np.random.default_rng([trial.seed, *map(ord, trial.strategy), round(100 * trial.ood_ratio)])
    num_id = round(trial.budget * (1 - trial.ood_ratio))
    num_ood = trial.budget - num_id
    records = []
    for number in range(trial.rounds):
        precision = None
        if number:
            share = PURITY.get(trial.strategy, 1 - trial.ood_ratio)
            found = round(trial.budget * min(1.0, max(0.0, share + float(rng.normal(0, 0.02)))))
            num_id, num_ood, precision = num_id + found, num_ood + trial.budget - found, found / trial.budget
        ceiling = 0.97 - 0.3 * trial.mismatch_ratio
        bonus = 0.01 if trial.strategy in ("conf", "vlpure") else 0.0
        accuracy = ceiling * (1 - math.exp(-(num_id + 400) / 1100)) + offset + bonus * (number > 0)
        records.append(_record(trial, number, accuracy + float(rng.normal(0, 0.004)), precision, num_id, num_ood))
    return records


def _record(
    trial: TrialConfig, number: int, accuracy: float, precision: float | None, num_id: int, num_ood: int
) -> RoundRecord:
    return make_record(
        number,
        accuracy=accuracy,
        precision=precision,
        num_id=num_id,
        num_ood=num_ood,
        queried_idx=[],
        diagnostics={"logit_scale": 12.5} if number and trial.uses_purity else {},
        pool_checksum=64 * "0",
        seconds={"query": 0.5 * (number > 0), "train": 12.0 + number, "evaluate": 0.25},
        environment={"device": "Some GPU", "threads": 2, "torch": "2.11.0", "python": "3.11.9", "gpus": 0.25},
        time_ms=START_MS + 60_000 * number,
    )
