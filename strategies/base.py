"""What every query strategy gets and gives.

Shapes: N unlabelled images, K ID classes, Q images queried.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.imageset import Images
from models.classifier.outputs import ClassifierOutputs

if TYPE_CHECKING:
    from models.classifier.workshop import Workshop  # torch, which planning does without

IndexArray = NDArray[np.int64]
Diagnostic = float | int | bool | None
Memory = Mapping[str, Sequence[float]]
"""What a strategy keeps from one query to the next: named lists of numbers, small enough for a record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """All a strategy may know: pixels, the labels bought so far, and this round's classifier; no hidden label."""

    images: Images
    """Pixels of the training images, by index."""
    data_fingerprint: str
    """Identifies the data set to a purity scorer."""
    class_names: tuple[str, ...]
    """The K ID classes; the label of an ID image is a position in it."""
    labelled_id_idx: IndexArray
    labelled_id_labels: IndexArray
    """The labels, 0..K-1, in the order of `labelled_id_idx`."""
    labelled_ood_idx: IndexArray
    unlabelled_idx: IndexArray
    """Sorted ascending, so that ties go to the lowest index."""
    domain: str | None = None
    """Word for the kind of picture, for prompts ("sketch"); None where the data set has no domains."""
    compute_outputs: Callable[[], ClassifierOutputs]
    """Classifier outputs of all unlabelled images; computed at the first call, remembered afterwards."""
    compute_labelled_outputs: Callable[[], ClassifierOutputs]
    """The same of the labelled ID images."""
    workshop: Workshop
    """Trains and runs networks of the strategy's own."""
    memory: Memory = field(default_factory=dict)
    """What the strategy learnt from the query before (`LearningStrategy.learn`); empty before the first."""

    def outputs(self) -> ClassifierOutputs:
        """`compute_outputs()`, checked: raises ArithmeticError naming the images for values that are not finite."""
        return checked_outputs(self.compute_outputs(), self.unlabelled_idx, "unlabelled")

    def labelled_outputs(self) -> ClassifierOutputs:
        """`compute_labelled_outputs()`, in the order of `labelled_id_idx`; checked as `outputs()`."""
        return checked_outputs(self.compute_labelled_outputs(), self.labelled_id_idx, "labelled")

    def restricted_to(self, keep: NDArray[np.bool_]) -> PoolView:
        """The same view of fewer unlabelled images: those where `keep` (N,) is True."""
        return replace(
            self, unlabelled_idx=self.unlabelled_idx[keep], compute_outputs=lambda: self.compute_outputs().rows(keep)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The images to be labelled, most wanted first."""

    idx: IndexArray
    """(Q,) distinct members of `unlabelled_idx`; Q = min(budget, N)."""
    scores: NDArray[np.float64]
    """(Q,) what the strategy ranked by, in the order of `idx`; the unit is the strategy's own."""
    reasons: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Named parts of the score, each (Q,), where a strategy has them."""
    judged_id_idx: IndexArray | None = None
    """The unlabelled images judged ID, where a strategy judges; None where it does not."""
    diagnostics: Mapping[str, Diagnostic] = field(default_factory=dict)
    """Numbers for the record, such as the logit scale."""


def checked_outputs(outputs: ClassifierOutputs, idx: IndexArray, kind: str) -> ClassifierOutputs:
    """The outputs of the images `idx`. Raises ArithmeticError naming the images whose values are not finite."""
    parts = [outputs.logits_NK, outputs.features_ND]
    if outputs.predicted_losses_N is not None:
        parts.append(outputs.predicted_losses_N[:, None])
    finite_N = np.all([np.isfinite(part).all(axis=1) for part in parts], axis=0)
    if not finite_N.all():
        bad = idx[~finite_N]
        raise ArithmeticError(
            f"the classifier gives values that are not finite for {len(bad)} of {len(idx)} "
            f"{kind} images (the first has index {bad[0]}); its training diverged, or the image is damaged"
        )
    return outputs


class Strategy(ABC):
    """An acquisition function: picks the unlabelled images to be labelled next."""

    @abstractmethod
    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """min(budget, N) distinct unlabelled images, most wanted first; equal arguments give equal answers."""


class LearningStrategy(Strategy):
    """A strategy that learns from the oracle's answers, for its next query."""

    @abstractmethod
    def learn(self, view: PoolView, selection: Selection, answers_Q: IndexArray, rng: np.random.Generator) -> Memory:
        """What to remember, given the answers (0..K-1, K for OOD) in the order of `selection.idx`.

        `view` is the one that the selection was made from. The result goes into the round's record and comes back in
        the next view, so that a trial that is continued goes on as if it had not been stopped.
        """


def highest_first(scores_N: NDArray[np.floating], count: int) -> IndexArray:
    """Positions of the `count` largest scores, largest first; ties go to the lowest position."""
    return np.argsort(-scores_N, kind="stable")[:count].astype(np.int64)
