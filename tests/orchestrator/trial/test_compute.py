"""compute_trial: what it makes of a trial's settings, and how the process computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from data.registry import open_data_set
from models import device
from models.classifier.crops import CropBatches
from models.classifier.outputs import ClassifierOutputs
from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial
from orchestrator.settings.grid import RunSettings
from orchestrator.settings.reading import make_trial
from orchestrator.trial import compute as local
from orchestrator.trial import trajectory
from orchestrator.trial.trajectory import Trajectory


def planned_of(recipe: dict[str, Any], strategy: str = "conf", rounds: int = 2) -> PlannedTrial:
    trial = make_trial(
        dataset="digits", mismatch_ratio=0.2, ood_ratio=0.6, strategy=strategy, seed=0, rounds=rounds, budget=20,
        recipe=recipe,
    )  # fmt: skip
    return PlannedTrial(trial=trial, fingerprint="f" * 64, data_fingerprint=open_data_set("digits").fingerprint)


def compute(recipe: dict[str, Any], *, strategy: str = "conf", rounds: int = 2, **how: Any) -> list[RoundRecord]:
    planned = planned_of(recipe, strategy, rounds)
    return local.compute_trial(
        planned,
        scorer=None,
        history=[],
        report=lambda record: None,
        classifiers=None,
        run=RunSettings(**how),
    )


TINY = {"width": 2, "steps": 4, "batch_size": 8, "flip": False, "crop_padding": 1}


@pytest.mark.parametrize("deterministic", [False, True])
def test_on_a_cpu_the_gpu_flags_change_nothing(deterministic: bool) -> None:
    given = compute(TINY, deterministic=deterministic, plain_steps=True)
    assert [record.numbers() for record in given] == [record.numbers() for record in compute(TINY)]
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_flags_reach_the_arithmetic_and_the_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, bool]] = []
    trained: list[bool] = []
    fit = Trajectory._fit

    def spy(self: Trajectory, *arguments: Any) -> Any:
        trained.append(self._machine.plain_steps)
        return fit(self, *arguments)

    monkeypatch.setattr(
        device, "use_arithmetic", lambda where, *, deterministic: told.append((where.type, deterministic))
    )
    monkeypatch.setattr(Trajectory, "_fit", spy)
    compute(TINY, rounds=1, deterministic=True, plain_steps=True)
    compute(TINY, rounds=1)
    assert told == [("cpu", True), ("cpu", False)]
    assert trained == [True, False]


@pytest.mark.parametrize("strategy", ["conf", "ll"])
def test_initial_features_are_those_that_a_plain_strategy_first_sees(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[NDArray[np.int64], ClassifierOutputs]] = []
    predict = trajectory.predict

    def spy(network: nn.Module, images: Any, idx: NDArray[np.int64], **how: Any) -> ClassifierOutputs:
        outputs = predict(network, images, idx, **how)
        seen.append((idx, outputs))
        return outputs

    monkeypatch.setattr(trajectory, "predict", spy)
    compute(TINY)  # CONF: the test images, then the pool, then the test images
    idx, outputs = seen[1]
    features = local.initial_features(planned_of(TINY, strategy), idx, cpus=1, gpus=0)
    np.testing.assert_array_equal(features, outputs.features_ND)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["conf", "lfosa"])
def test_a_head_on_crops_of_clipns_tower(strategy: str, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classifier and detector see crops in training, the stored features of whole images otherwise."""
    monkeypatch.setenv("VLPURE_CACHE", str(shared_cache))
    cropped: list[int] = []
    augment = CropBatches.augment

    def spy(self: CropBatches, picked: torch.Tensor) -> torch.Tensor:
        cropped.append(len(picked))
        return augment(self, picked)

    monkeypatch.setattr(CropBatches, "augment", spy)
    # The stand-in's features are short, hence the rate.
    recipe = {"name": "paper-clip-linear-crops", "steps": 40, "batch_size": 16, "learning_rate": 0.5}
    records = compute(recipe, strategy=strategy)
    assert cropped[:40] == [16] * 40
    assert (len(cropped) > 80) == (strategy == "lfosa")  # two classifiers, and LfOSA's detector
    assert records[-1].accuracy > 0.8
    count = len(cropped)
    again = compute(recipe, strategy=strategy)
    assert [record.numbers() for record in again] == [record.numbers() for record in records]
    stored = compute(recipe | {"smallest_crop": None}, strategy=strategy)
    assert len(cropped) == 2 * count
    assert np.abs(stored[0].accuracy - records[0].accuracy) < 0.2
