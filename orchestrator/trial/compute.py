"""Run one trial in this process, for `trial.py` and for each Ray worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data.console import to_stderr
from data.imageset import DataSet
from data.registry import open_data_set
from models.classifier.fit import StepProgress
from models.classifier.inputs import FeatureRows
from models.clipn.features import VisionLanguageTowers, open_vision_language
from models.contrastive.encoder import ContrastiveFeatures
from models.contrastive.recipe import Method
from models.device import Machine, open_machine
from orchestrator.ledger.classifiers import ClassifierStore
from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial
from orchestrator.problem import OpenSetProblem, pose_problem
from orchestrator.settings.grid import RunSettings
from orchestrator.settings.trial import TrialConfig
from orchestrator.trial.detection import run_detection
from orchestrator.trial.purity_scorer import LocalPurityScorer, TrialScorer, bank_name
from orchestrator.trial.trajectory import Report, Trajectory
from strategies.purity.contract import PurityScorer
from strategies.registry import FrozenFeatures, Services, find_strategy


@lru_cache(maxsize=4)
def cached_data_set(name: str, root: Path | None, skip_bad_images: bool) -> DataSet:
    """Open the data set, once per process: workers are reused for many trials of the same data."""
    return open_data_set(name, root=root, skip_bad_images=skip_bad_images)


def compute_trial(
    planned: PlannedTrial,
    *,
    scorer: PurityScorer | None,
    history: Sequence[RoundRecord],
    report: Report,
    classifiers: Path | None,
    run: RunSettings,
    progress: StepProgress | None = None,
) -> list[RoundRecord]:
    """Compute a trial from the end of `history` and return all its records; `report` is called with each new one.

    Raises ValueError if the data on this machine is not the data that the trial was planned with.
    """
    machine = open_machine(
        cpus=run.cpus_per_trial,
        gpus=run.gpus_per_trial,
        deterministic=run.deterministic,
        plain_steps=run.plain_steps,
        no_compile=run.no_compile,
    )
    if scorer is not None:
        scorer = TrialScorer(scorer, planned.trial.clipn)
    if planned.trial.detection is not None:
        assert scorer is not None, "a detection trial was started without a scorer"
        problem = pose_problem(planned.trial, _data_of(planned))
        return run_detection(planned.trial, problem, scorer, history=history, report=report, device=machine.device)
    trajectory = _trajectory(planned, scorer=scorer, classifiers=classifiers, machine=machine, progress=progress)
    return trajectory.run(history, report)


def initial_features(
    planned: PlannedTrial,
    idx: NDArray[np.int64],
    *,
    cpus: int,
    gpus: float,
    progress: StepProgress | None = None,
) -> NDArray[np.float32]:
    """Features (N, D) of the training images `idx` in the round-0 classifier that the strategies of a seed share.

    That is the one without a strategy's head; it is trained here, since a finished run keeps none. Raises as
    `compute_trial`.
    """
    plain = replace(planned, trial=planned.trial.model_copy(update={"strategy": "random"}))
    machine = open_machine(cpus=cpus, gpus=gpus)
    trajectory = _trajectory(plain, scorer=None, classifiers=None, machine=machine, progress=progress)
    return trajectory.initial_outputs(idx).features_ND


def _trajectory(
    planned: PlannedTrial,
    *,
    scorer: PurityScorer | None,
    classifiers: Path | None,
    machine: Machine,
    progress: StepProgress | None,
) -> Trajectory:
    """Make the loop of a trial, with the data and the encoders that it needs."""
    trial, data = planned.trial, _data_of(planned)
    problem, device = pose_problem(trial, data), machine.device
    entry = find_strategy(trial.strategy)
    services = Services(
        scorer=scorer,
        purity=trial.purity,
        options=trial.options,
        contrastive=lambda method: _encoder(trial, problem, method, device),
        pretrained=lambda: FrozenFeatures(scorer=_given(scorer), data_fingerprint=data.fingerprint),
    )
    return Trajectory(
        trial,
        problem,
        entry.build(services),
        target=None if entry.target is None else entry.target(services),
        machine=machine,
        classifiers=ClassifierStore(classifiers, planned.fingerprint),
        features=_features(trial, data, device),
        class_features_KD=_class_features(trial, problem, device),
        scorer=scorer if trial.uses_scorer else None,
        progress=progress,
    )


def _given(scorer: PurityScorer | None) -> PurityScorer:
    assert scorer is not None, "a strategy that uses pre-trained features was built without a scorer"
    return scorer


def _data_of(planned: PlannedTrial) -> DataSet:
    """Data set of the trial. Raises ValueError if it is not the one that the trial was planned with."""
    trial = planned.trial
    data = cached_data_set(trial.dataset, trial.data_root, trial.on_bad_image == "skip")
    # Another copy on a worker's machine would give other records under the same fingerprint.
    if data.fingerprint != planned.data_fingerprint:
        raise ValueError(f"data set {trial.dataset} on this machine differs from the one the grid was planned with")
    return data


def _features(trial: TrialConfig, data: DataSet, device: torch.device) -> tuple[FeatureRows, FeatureRows] | None:
    """Training and test features that a linear head reads; None for a classifier of pixels."""
    if trial.recipe.encoder is None:
        return None
    from models.classifier.frozen import frozen_features  # open_clip and timm, only for those who have an encoder

    return frozen_features(
        data,
        trial.recipe.encoder,
        clipn=trial.clipn,
        device=device,
        progress=to_stderr,
        crops=trial.recipe.smallest_crop is not None,
    )


def _class_features(trial: TrialConfig, problem: OpenSetProblem, device: torch.device) -> NDArray[np.float32] | None:
    """Text features that zero-shot compares images with; None for a classifier that is trained."""
    if trial.recipe.network != "zero-shot":
        return None
    towers = VisionLanguageTowers(problem.data, trial.clipn, to_stderr, device=str(device))
    return towers.yes_features(problem.class_names)


def _encoder(trial: TrialConfig, problem: OpenSetProblem, method: Method, device: torch.device) -> ContrastiveFeatures:
    """Frozen encoder of the trial's data set, or of its pool."""
    recipe, split = trial.options.contrastive, problem.split
    pool_idx = np.concatenate([split.initial_id_idx, split.initial_ood_idx, split.unlabelled_idx])
    return ContrastiveFeatures(
        problem.data.train.images,
        method,
        recipe,
        device=device,
        progress=to_stderr,
        pool_idx=pool_idx if recipe.pool_only else None,
    )


def local_scorer(
    trials: Sequence[TrialConfig],
    *,
    cpus: int,
    gpus: float,
    progress: Callable[[str], None] | None = None,
    deterministic: bool = False,
) -> LocalPurityScorer | None:
    """Scorer in this process for the data sets of the trials that use one; None if none does.

    First trains the stand-in CLIPN and computes features that are not in the cache; `progress` gets a line for each.
    `deterministic`: equal seeds give equal answers on a GPU too.
    """
    # The last of a name counts: that with a captioner, which serves detectors that read no captions too.
    asking = sorted((t for t in trials if t.uses_scorer), key=lambda t: t.uses_captioner)
    if not asking:
        return None
    # Before the first tensor: cuBLAS reads its setting for determinism when it is first used.
    device = open_machine(cpus=cpus, gpus=gpus, deterministic=deterministic).device
    needed = {}
    for trial in asking:
        data = cached_data_set(trial.dataset, trial.data_root, trial.on_bad_image == "skip")
        needed[bank_name(data.fingerprint, trial.clipn)] = data, trial.clipn
    vision_languages = {
        name: open_vision_language(data, source, device=str(device), progress=progress)
        for name, (data, source) in needed.items()
    }
    return LocalPurityScorer(vision_languages, device)
