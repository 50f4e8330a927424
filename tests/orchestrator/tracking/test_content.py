"""What a trial and a grid look like in MLflow."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial
from orchestrator.settings.reading import make_trial
from orchestrator.settings.trial import TrialConfig
from orchestrator.tracking.content import (
    GridCard,
    flat,
    grid_settings,
    grid_tags,
    round_metrics,
    trial_axes,
    trial_files,
    trial_metrics,
    trial_name,
    trial_params,
)

MakeRecord = Callable[..., RoundRecord]


def trial(**changes: Any) -> TrialConfig:
    values = {"dataset": "digits", "mismatch_ratio": 0.2, "ood_ratio": 0.6, "strategy": "conf", "seed": 3, "rounds": 3}
    return make_trial(**values | changes)


def planned(arm: str = "", **changes: Any) -> PlannedTrial:
    return PlannedTrial(trial=trial(**changes), fingerprint="f", data_fingerprint="d", arm=arm)


def test_axes_and_names() -> None:
    assert trial_axes(planned()) == {
        "dataset": "digits", "mismatch_ratio": "0.2", "ood_ratio": "0.6",
        "strategy": "conf", "arm": "conf", "seed": "3",
    }  # fmt: skip
    assert trial_axes(planned("no purity"))["arm"] == "no purity"
    assert trial_name(planned()) == "digits 0.2 0.6 conf 3"
    assert trial_name(planned("no purity")) == "digits 0.2 0.6 conf no purity 3"


def test_params_are_flat_typed_and_only_what_counts() -> None:
    params = trial_params(trial(recipe={"milestones": [0.5], "nesterov": True, "learning_rate": 0.1}))
    assert params["budget"] == "500"
    assert params["recipe.nesterov"] == "true"
    assert params["recipe.learning_rate"] == "0.1"
    assert params["recipe.milestones"] == "[0.5]"
    assert params["recipe.encoder"] == "null"
    assert params["strategy"] == "conf"
    assert not [name for name in params if name.startswith(("purity", "clipn", "options", "rounds", "data_root"))]


def test_params_of_strategies_with_settings() -> None:
    params = trial_params(trial(strategy="vlpure-ll"))
    assert params["purity.self_temperature"] == "true"
    assert params["clipn.model"] == "ViT-B-16"
    assert params["options.learning_loss.weight"] == "1.0"
    assert "options.mqnet.epochs" not in params


def test_a_change_that_keeps_the_fingerprint_keeps_the_params() -> None:
    """MLflow refuses a changed param; the ledger goes on with more rounds, or with images that lie elsewhere."""
    assert trial_params(trial(rounds=9, data_root="/elsewhere")) == trial_params(trial())


def test_metrics_of_a_round(make_record: MakeRecord) -> None:
    assert set(round_metrics(make_record(0), make_record(0))) == {
        "accuracy", "num_id", "num_ood", "seconds/query", "seconds/train", "seconds/evaluate",
    }  # fmt: skip
    metrics = round_metrics(make_record(0), make_record(2))
    assert metrics["logit_scale"] == 3.7
    assert metrics["cumulative_precision"] == 30 / 40


def test_metrics_come_in_the_order_of_rounds_and_the_summary_last(make_record: MakeRecord) -> None:
    records = [make_record(number) for number in range(3)]
    metrics = trial_metrics(records, start=0, rounds=3)
    assert [step for _, _, _, step in metrics] == sorted(step for _, _, _, step in metrics)
    accuracies = [(value, time_ms, step) for name, value, time_ms, step in metrics if name == "accuracy"]
    assert accuracies == [(r.accuracy, r.time_ms, r.round) for r in records]
    summary = {name: (value, time_ms, step) for name, value, time_ms, step in metrics[-4:]}
    assert summary == {
        "aubc": (pytest.approx(0.6), records[2].time_ms, 2),
        "aubc_paper": (pytest.approx(0.4), records[2].time_ms, 2),
        "last_accuracy": (0.7, records[2].time_ms, 2),
        "mean_precision": (0.75, records[2].time_ms, 2),
    }
    later = trial_metrics(records, start=2, rounds=4)
    assert {step for _, _, _, step in later} == {2}
    assert "aubc" not in {name for name, *_ in later}
    assert trial_metrics([], start=0, rounds=3) == []


def test_files_of_a_trial(make_record: MakeRecord) -> None:
    records = [make_record(0), make_record(1, queried_idx=[7, 2])]
    files = trial_files(trial(), records)
    assert files["queried_idx.csv"] == "round,rank,image\n1,0,7\n1,1,2\n"
    config = json.loads(files["config.json"])
    assert config["trial"]["rounds"] == 3
    assert config["environment"] == {"device": "abacus", "threads": 1}
    assert json.loads(files["records.json"])[1]["queried_idx"] == [7, 2]


def test_tags_of_a_grid() -> None:
    card = GridCard(title="Table 4 (demo)", table="table4", facts={"preset": "demo"})
    tags = grid_tags(card, [planned(seed=0), planned(seed=1), planned("no purity", seed=0)])
    assert tags["table"] == "table4"
    assert tags["preset"] == "demo"
    assert tags["grid.seed"] == "0, 1"
    assert tags["grid.arm"] == "conf, no purity"
    assert tags["grid.trials"] == "3"
    assert {"code.version", "code.source", "environment.python", "environment.ray"} <= set(tags)
    assert card.identity("abc") == "abc/table4"
    assert GridCard(title="t").identity("abc") == "abc"


def test_settings_of_a_grid() -> None:
    settings = json.loads(grid_settings([planned(seed=0), planned(seed=1), planned(seed=1, strategy="ll")]))
    assert settings["trials"] == 3
    assert settings["differing"] == {"strategy": ["conf", "ll"], "seed": [0, 1]}
    assert settings["shared"]["recipe.steps"] == 20000


def test_flat_settings() -> None:
    assert flat({"a": 1, "b": {"c": 2, "d": {"e": None}}}) == {"a": 1, "b.c": 2, "b.d.e": None}
