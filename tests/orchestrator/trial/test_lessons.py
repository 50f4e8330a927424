"""A strategy that brings the round's classifier: judged by it, and going on with equal records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data.registry import open_data_set
from models.classifier.evidential import EvidentialClassifier
from models.device import Machine, use_threads
from orchestrator.ledger.classifiers import ClassifierStore
from orchestrator.ledger.records import RoundRecord
from orchestrator.problem import pose_problem
from orchestrator.settings.reading import make_trial
from orchestrator.trial.trajectory import Trajectory
from strategies.e2oal import E2oal, E2oalTarget
from strategies.options import E2oalOptions

TRIAL = make_trial(
    dataset="digits", mismatch_ratio=0.2, ood_ratio=0.6, strategy="e2oal-own", seed=0, rounds=3, budget=20,
    recipe={"name": "digits", "steps": 4},
)  # fmt: skip


def _rows(idx: NDArray[np.int64]) -> NDArray[np.float32]:
    pixels = open_data_set("digits").train.images.load(idx).reshape(len(idx), -1).astype(np.float32)
    features: NDArray[np.float32] = pixels / np.linalg.norm(pixels, axis=1, keepdims=True)
    return features


def _trajectory(folder: Path | None) -> Trajectory:
    use_threads(1)
    return Trajectory(
        TRIAL,
        pose_problem(TRIAL, open_data_set("digits")),
        E2oal(_rows, E2oalOptions(), is_own=True),
        target=E2oalTarget(_rows, temperature=1.0),
        machine=Machine(device=torch.device("cpu")),
        classifiers=ClassifierStore(folder, "f" * 64),
    )


def _numbers(records: list[RoundRecord]) -> list[dict[str, Any]]:
    return [record.numbers() for record in records]


@pytest.fixture(scope="module")
def complete() -> list[RoundRecord]:
    return _trajectory(None).run([], lambda record: None)


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("keeps_classifier", [True, False])
def test_a_stopped_trial_goes_on_to_equal_records(
    complete: list[RoundRecord], tmp_path: Path, last: int, keeps_classifier: bool
) -> None:
    class Stopped(Exception):
        pass

    kept: list[RoundRecord] = []

    def report(record: RoundRecord) -> None:
        kept.append(record)
        if record.round == last:
            raise Stopped

    folder = tmp_path if keeps_classifier else None
    with pytest.raises(Stopped):
        _trajectory(folder).run([], report)
    assert len(list(tmp_path.glob("*.pt"))) == keeps_classifier
    assert _numbers(_trajectory(folder).run(kept, lambda record: None)) == _numbers(complete)


def test_the_own_network_is_trained_on_ood_images_too_and_judged(complete: list[RoundRecord]) -> None:
    run = _trajectory(None)
    network = run._train(0)
    assert isinstance(network, EvidentialClassifier)
    assert network.evidence.out_features > network.num_known == 2
    assert run._accuracy(network) == complete[0].accuracy
    lesson = run._lesson(0)
    assert lesson is not None
    assert sorted(lesson.idx.tolist()) == sorted([*run._pool.labelled_id_idx, *run._pool.labelled_ood_idx])
    assert [record.memory.keys() for record in complete] == [set(), {"target"}, {"target"}]


def test_round_0_is_shared_only_with_the_same_lesson() -> None:
    run = _trajectory(None)
    lesson = run._lesson(0)
    assert lesson is not None

    def identity(of: Any) -> str:
        return run._plan.identity(of, data_fingerprint="d", inputs=None, device="cpu")

    assert identity(lesson) == identity(run._lesson(0)) != identity(None)
