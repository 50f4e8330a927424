"""What every query strategy gets and gives.

Shapes: N unlabelled images, K ID classes, Q images queried.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from data.imageset import Images
from models.outputs import ClassifierOutputs

IndexArray = NDArray[np.int64]
Diagnostic = float | int | bool | None


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
    compute_outputs: Callable[[], ClassifierOutputs]
    """Classifier outputs of all unlabelled images; computed at the first call, remembered afterwards."""

    def outputs(self) -> ClassifierOutputs:
        """`compute_outputs()`, checked: raises ArithmeticError naming the images for values that are not finite."""
        outputs = self.compute_outputs()
        finite = np.array([np.isfinite(outputs.logits_NK).all(axis=1), np.isfinite(outputs.features_ND).all(axis=1)])
        if not finite.all():
            bad = self.unlabelled_idx[~finite.all(axis=0)]
            raise ArithmeticError(
                f"the classifier gives values that are not finite for {len(bad)} of {len(self.unlabelled_idx)} "
                f"unlabelled images (the first has index {bad[0]}); its training diverged, or the image is damaged"
            )
        return outputs

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


class Strategy(ABC):
    """An acquisition function: picks the unlabelled images to be labelled next."""

    @abstractmethod
    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """min(budget, N) distinct unlabelled images, most wanted first; equal arguments give equal answers."""


def highest_first(scores_N: NDArray[np.floating], count: int) -> IndexArray:
    """Positions of the `count` largest scores, largest first; ties go to the lowest position."""
    return np.argsort(-scores_N, kind="stable")[:count].astype(np.int64)
