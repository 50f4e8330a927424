"""Detection trials: the same labels for all detectors, stages as records, and a trial that goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from data.splits.draw import SplitSettings, count_data_split
from orchestrator.problem import check_budget, pose_problem
from orchestrator.settings.reading import make_trial
from orchestrator.settings.trial import TrialConfig
from orchestrator.trial.detection import labelling_order, run_detection
from strategies.purity.contract import PurityOptions, PurityRequest, PurityScores
from tests.experiments.purity_problem import scorer_of, ten_classes

CPU = torch.device("cpu")


def trial_of(**changes: Any) -> TrialConfig:
    settings: dict[str, Any] = {
        "dataset": "ten", "mismatch_ratio": 0.4, "ood_ratio": 0.5, "strategy": "vlpure", "seed": 0, "budget": 16,
        "rounds": 3, "detection": {"labels": (0, 10, 40)},
    }  # fmt: skip
    return make_trial(**(settings | changes))


def run(trial: TrialConfig, *, history: Any = (), scorer: Any = None) -> list[Any]:
    data = ten_classes()
    scorer = scorer or scorer_of(data)
    problem = pose_problem(trial, data)
    return run_detection(trial, problem, scorer, history=history, report=lambda record: None, device=CPU)


def test_the_labels_are_the_same_whatever_detector_and_budget() -> None:
    orders = [
        labelling_order(trial, pose_problem(trial, ten_classes()))
        for trial in (trial_of(), trial_of(budget=10), trial_of(purity=PurityOptions(detector="probe")))
    ]
    assert len(orders[0]) == 96  # 4 ID classes of 12 images, and as many OOD images
    for order in orders[1:]:
        np.testing.assert_array_equal(order, orders[0])
    other_seed = trial_of(seed=1)
    assert labelling_order(other_seed, pose_problem(other_seed, ten_classes())).tolist() != orders[0].tolist()


def test_a_stage_is_measured_on_the_images_that_are_not_labelled() -> None:
    asked: list[PurityRequest] = []

    class Fixed:
        last_request = None

        def score(self, request: PurityRequest) -> PurityScores:
            asked.append(request)
            labels = ten_classes().train.labels[request.unlabelled_idx]
            # All images of the first two ID classes are found, and half of the others' score is theirs.
            found = np.isin(labels, pose_problem(trial_of(), ten_classes()).split.id_classes[:2])
            return PurityScores(
                id_scores=found.astype(np.float32), ood_scores=np.full(len(found), 0.5, np.float32), is_id=found,
                logit_scale=3.0, is_tuned=False, labelled_accuracy=None,
            )  # fmt: skip

    records = run(trial_of(), scorer=Fixed())
    assert [(record.num_id + record.num_ood, record.round) for record in records] == [(0, 0), (10, 1), (40, 2)]
    assert [len(request.unlabelled_idx) for request in asked] == [96, 86, 56]
    order = labelling_order(trial_of(), pose_problem(trial_of(), ten_classes()))
    bought = np.concatenate([asked[1].labelled_id_idx, asked[1].labelled_ood_idx])
    assert sorted(bought.tolist()) == sorted(order[:10].tolist())
    # Of 48 ID images 24 are found, and no OOD image: recalls 1/2 and 1, and 1/2 + 1/2 * 1/2 of the pairs are in order.
    assert records[0].accuracy == 0.75
    assert records[0].diagnostics["auroc"] == 0.75
    assert records[0].diagnostics["purity_precision"] == 1.0
    assert records[0].diagnostics["purity_recall"] == 0.5


@pytest.mark.parametrize("detector", ["atd", "probe", "fused"])
def test_a_trial_goes_on_from_its_records(detector: str) -> None:
    trial = trial_of(purity=PurityOptions(detector=detector))
    whole = run(trial)
    part = run(trial.model_copy(update={"rounds": 1}))
    again = run(trial, history=part)
    assert [each.numbers() for each in again] == [each.numbers() for each in whole]
    strange = replace(part[0], pool_checksum="0" * 64)
    with pytest.raises(ValueError, match="the record of round 0 does not belong to ten"):
        run(trial, history=[strange])


def test_its_fingerprint_is_of_what_is_measured() -> None:
    def fingerprint(trial: TrialConfig) -> str:
        return trial.fingerprint(data_fingerprint="d", clipn_identity="c")

    base = fingerprint(trial_of())
    for same in ({"budget": 4}, {"rounds": 2}, {"recipe": {"steps": 7}}, {"strategy": "vlpure-ll"}):
        assert fingerprint(trial_of(**same)) == base, same
    for other in ({"seed": 1}, {"detection": {"labels": (0, 10, 41)}}, {"purity": {"detector": "probe"}}):
        assert fingerprint(trial_of(**other)) != base, other
    assert fingerprint(trial_of(detection=None)) != base


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "random"}, "detection: the strategy random has no purity step"),
        ({"rounds": 4}, r"rounds = 4, but detection.labels has 3 stage\(s\).*--rounds 3"),
        ({"detection": {"labels": (10, 0)}}, "detection.labels = .*ascending"),
        ({"detection": {"labels": ()}}, "detection.labels = .*at least 1 item"),
        ({"ood_ratio": 0.0}, "without unlabelled OOD images"),
    ],
)
def test_a_bad_setting_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trial_of(**changes)


def test_more_labels_than_images_are_refused_before_anything_is_computed() -> None:
    data, trial = ten_classes(), trial_of(detection={"labels": (0, 10, 96)})
    counts = count_data_split(data, SplitSettings(mismatch_ratio=0.4, ood_ratio=0.5, budget=16, seed=0))
    with pytest.raises(ValueError, match=r"detection\.labels asks for 96 labels, but there are only 96 images"):
        check_budget(trial, data, counts)
    check_budget(trial.model_copy(update={"rounds": 2}), data, counts)
