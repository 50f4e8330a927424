"""The problem that a trial poses: ID classes, initial pool and test images, the same for all strategies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from data.imageset import DataSet
from data.pool import Oracle
from data.splits.draw import count_data_split, draw_data_split, labels_bought
from data.splits.ratios import OpenSetSplit, SplitCounts
from orchestrator.settings.trial import TrialConfig
from strategies.base import IndexArray


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSetProblem:
    """One condition with one seed, drawn from a data set."""

    data: DataSet
    split: OpenSetSplit
    class_names: tuple[str, ...]
    """Names of the K ID classes, in the order drawn."""
    test_idx: IndexArray
    """Test images of ID classes."""
    test_labels: IndexArray
    """Labels of the test images, 0..K-1."""

    @property
    def num_id_classes(self) -> int:
        """Number of ID classes, K."""
        return len(self.class_names)

    def oracle(self) -> Oracle:
        """A fresh oracle: the only holder of the training images' labels."""
        return Oracle(self.split.relabel(self.data.train.labels), num_id_classes=self.num_id_classes)


def pose_problem(trial: TrialConfig, data: DataSet) -> OpenSetProblem:
    """Pose the trial's problem. Raises ValueError, with the numbers, if the data set cannot give it."""
    split = draw_data_split(data, trial.split)
    test_labels = split.relabel(data.test.labels)
    test_idx = np.flatnonzero(test_labels < len(split.id_classes)).astype(np.int64)
    return OpenSetProblem(
        data=data,
        split=split,
        class_names=tuple(data.class_names[c] for c in split.id_classes),
        test_idx=test_idx,
        test_labels=test_labels[test_idx],
    )


def check_budget(trial: TrialConfig, data: DataSet, counts: SplitCounts) -> None:
    """Raise ValueError if the rounds ask for more labels than there are images (initial set and pool together)."""
    if trial.supervision != "budget":
        return  # it buys nothing
    num_images = counts.initial_id + counts.initial_ood + counts.unlabelled_id + counts.unlabelled_ood
    if trial.detection is not None:
        wanted = trial.detection.labels[trial.rounds - 1]
        if wanted >= num_images:
            raise ValueError(
                f"{trial.label}: detection.labels asks for {wanted} labels, but there are only {num_images} images to "
                "label, and some must be left to judge; lower --rounds, or detection.labels"
            )
        return
    wanted = labels_bought(data, counts, rounds=trial.rounds, budget=trial.budget, initial_share=trial.initial_share)
    if wanted > num_images:
        advice = _advice(trial, data, counts, num_images) or "--rounds and --budget"
        raise ValueError(
            f"{trial.label}: {_spent(trial, counts)} = {wanted} labels, but there are only "
            f"{num_images} images to label; lower {advice}"
        )


def _spent(trial: TrialConfig, counts: SplitCounts) -> str:
    """The labels that a trial buys, as a product."""
    if trial.initial_share is None:
        return f"{trial.rounds} rounds x budget {trial.budget}"
    return f"{counts.initial_id} at the start + {trial.rounds - 1} queries x budget {trial.budget}"


def _advice(trial: TrialConfig, data: DataSet, counts: SplitCounts, num_images: int) -> str:
    """Advice on how far to lower rounds or budget, each with the other unchanged; only values that are accepted."""
    rounds, budget = trial.rounds, trial.budget
    bought = partial(labels_bought, data, counts, initial_share=trial.initial_share)
    first = bought(rounds=1, budget=budget)
    told = [f"--rounds to at most {1 + (num_images - first) // budget}"] if first <= num_images else []
    while budget and bought(rounds=rounds, budget=budget) > num_images:
        budget -= 1
    # Advice must be accepted when followed: the budget is tried before it is printed.
    if budget and _is_accepted(trial, data, budget):
        told.append(f"--budget to at most {budget}")
    return " or ".join(told)


def _is_accepted(trial: TrialConfig, data: DataSet, budget: int) -> bool:
    """Whether the data set can pose the problem with the given budget."""
    try:
        count_data_split(data, replace(trial.split, budget=budget))
    except ValueError:
        return False
    return True
