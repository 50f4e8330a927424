"""Trials of Table 9: how well a purity detector separates ID from OOD as labels are bought at random.

No classifier is trained. A stage is a round: its record has the balanced accuracy of the decision as `accuracy` and the
AUROC among its diagnostics, both on the images of the pool that are not labelled at that stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from data.pool import Pool
from models.clipn.quality import auroc
from models.device import peak_memory_mib
from orchestrator.ledger.records import RoundRecord
from orchestrator.problem import OpenSetProblem
from orchestrator.settings.trial import TrialConfig
from orchestrator.trial.classifier import stream_generator
from orchestrator.trial.environment import describe_environment
from strategies.base import IndexArray
from strategies.purity.contract import PurityRequest, PurityScorer, PurityScores


def run_detection(
    trial: TrialConfig,
    problem: OpenSetProblem,
    scorer: PurityScorer,
    *,
    history: Sequence[RoundRecord],
    report: Callable[[RoundRecord], None],
    device: torch.device,
) -> list[RoundRecord]:
    """Run the trial and return all its records: `history`, then the new ones, each passed to `report` at once.

    Raises ValueError if the history does not belong to the trial.
    """
    assert trial.detection is not None
    order = labelling_order(trial, problem)
    records = list(history[: trial.rounds])
    for record, num_labels in zip(records, trial.detection.labels, strict=False):
        if record.pool_checksum != _pool(problem, order, num_labels).checksum():
            raise ValueError(f"the record of round {record.round} does not belong to {trial.label}")
    for num_labels in trial.detection.labels[len(records) : trial.rounds]:
        pool = _pool(problem, order, num_labels)
        started = time.perf_counter()
        scores = scorer.score(_request(trial, problem, pool))
        seconds = round(time.perf_counter() - started, 4)
        record = RoundRecord(
            round=len(records),
            accuracy=_balanced_accuracy(problem, pool, scores),
            precision=None,
            num_id=len(pool.labelled_id_idx),
            num_ood=len(pool.labelled_ood_idx),
            queried_idx=[],  # the labels are drawn by the seed: nothing has to be kept to draw them again
            diagnostics=_diagnostics(problem, pool, scores),
            pool_checksum=pool.checksum(),
            seconds={"query": seconds, "train": 0.0, "evaluate": 0.0},
            peak_memory_mib=peak_memory_mib(device),
            environment=describe_environment(device),
            time_ms=time.time_ns() // 1_000_000,
        )
        report(record)
        records.append(record)
    return records


def labelling_order(trial: TrialConfig, problem: OpenSetProblem) -> IndexArray:
    """Images of the pool in the order of labelling, with those that start labelled in an ordinary trial.

    It depends on the seed and the split only, so that all detectors of a seed see the same labels, and each stage
    contains the labels of the one before.
    """
    split = problem.split
    everything = np.sort(np.concatenate([split.initial_id_idx, split.initial_ood_idx, split.unlabelled_idx]))
    return stream_generator(trial.seed, "labels for detection", 0).permutation(everything)


def _pool(problem: OpenSetProblem, order: IndexArray, num_labels: int) -> Pool:
    """Pool in which the first `num_labels` images of `order` are labelled."""
    labels = problem.split.relabel(problem.data.train.labels)
    bought = np.sort(order[:num_labels])
    is_id = labels[bought] < problem.num_id_classes
    return Pool(
        labelled_id_idx=bought[is_id], labelled_ood_idx=bought[~is_id], unlabelled_idx=np.sort(order[num_labels:])
    )


def _request(trial: TrialConfig, problem: OpenSetProblem, pool: Pool) -> PurityRequest:
    labels = problem.split.relabel(problem.data.train.labels)
    return PurityRequest(
        data_fingerprint=problem.data.fingerprint,
        class_names=problem.class_names,
        labelled_id_idx=pool.labelled_id_idx,
        labelled_id_labels=labels[pool.labelled_id_idx],
        labelled_ood_idx=pool.labelled_ood_idx,
        unlabelled_idx=pool.unlabelled_idx,
        options=trial.purity,
    )


def _is_id(problem: OpenSetProblem, pool: Pool) -> np.ndarray:
    """Mask of the unlabelled images that are ID. Raises ValueError if they are all of one kind."""
    labels = problem.split.relabel(problem.data.train.labels)
    is_id_N: np.ndarray = labels[pool.unlabelled_idx] < problem.num_id_classes
    if is_id_N.all() or not is_id_N.any():
        num = len(is_id_N)
        raise ValueError(f"detection.labels: the {num} images left are all of one kind; nothing can be told apart")
    return is_id_N


def _balanced_accuracy(problem: OpenSetProblem, pool: Pool, scores: PurityScores) -> float:
    is_id_N = _is_id(problem, pool)
    return float((scores.is_id[is_id_N].mean() + (~scores.is_id[~is_id_N]).mean()) / 2)


def _diagnostics(problem: OpenSetProblem, pool: Pool, scores: PurityScores) -> dict[str, float | int | bool | None]:
    is_id_N = _is_id(problem, pool)
    margin_N = scores.id_scores.astype(np.float64) - scores.ood_scores
    quality = problem.oracle().judge(
        judged_id_idx=pool.unlabelled_idx[scores.is_id], unlabelled_idx=pool.unlabelled_idx
    )
    return {
        "auroc": float(auroc(margin_N[is_id_N], margin_N[~is_id_N])),
        "logit_scale": scores.logit_scale,
        "scale_is_tuned": scores.is_tuned,
        "scale_accuracy": scores.labelled_accuracy,
        "num_judged_id": int(scores.is_id.sum()),
        "purity_precision": quality.precision,
        "purity_recall": quality.recall,
    }
