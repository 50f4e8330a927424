"""The interface of a query strategy: the view it gets, the selection it returns, and the check of that selection.

Shapes: N unlabelled images, K ID classes, Q images queried.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.imageset import Images
from models.classifier.outputs import ClassifierOutputs

if TYPE_CHECKING:
    from models.classifier.workshop import Workshop  # torch, which planning does without

IndexArray = NDArray[np.int64]
Diagnostic = float | int | bool | None
Memory = Mapping[str, Sequence[float]]
"""Data that a strategy keeps from one query to the next: named lists of numbers, small enough for a record."""


class StrategyError(ValueError):
    """A strategy broke its contract or failed inside. It would do so again, so a trial with it is never retried."""


class OutputsNotFinite(ArithmeticError):
    """The classifier's outputs hold NaN or infinity, which is not the fault of the strategy that asks for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """Everything a strategy may know: pixels, the labels bought so far, and this round's classifier; no hidden label.

    Its arrays are read-only: the trial and the strategy's own next call look at the same ones. The functions given to
    it close over the network, the images and the indices only (`tests/orchestrator/trial/test_hidden_labels.py` walks
    every path from a view).
    """

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
    """Word for the kind of picture, for prompts ("sketch"); None if the data set has no domains."""
    compute_outputs: Callable[[], ClassifierOutputs]
    """Classifier outputs of all unlabelled images; computed at the first call, remembered afterwards."""
    compute_labelled_outputs: Callable[[], ClassifierOutputs]
    """Classifier outputs of the labelled ID images, in the order of `labelled_id_idx`."""
    workshop: Workshop
    """Trains and runs networks that the strategy itself needs."""
    memory: Memory = field(default_factory=dict)
    """Data that the strategy learnt from the query before (`LearningStrategy.learn`); empty before the first."""

    def __post_init__(self) -> None:
        """Make the index arrays read-only, without touching the caller's."""
        for name in ("labelled_id_idx", "labelled_id_labels", "labelled_ood_idx", "unlabelled_idx"):
            # A view of each array: the flag of the caller's own array must stay as it is.
            array = getattr(self, name).view()
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def pick(self, positions: IndexArray, scores_N: NDArray[np.floating]) -> Selection:
        """Return the selection of the images at `positions` (Q,) of `unlabelled_idx`, most wanted first.

        `scores_N` are the scores of all N unlabelled images. Raises ValueError for another number of scores. Positions
        in the pool and indices of images are easily mixed up; a strategy that ends with this call cannot mix them up.
        """
        if len(scores_N) != len(self.unlabelled_idx):
            raise ValueError(
                f"pick() takes a score for each of the {len(self.unlabelled_idx)} unlabelled images, not "
                f"{len(scores_N)} scores"
            )
        return Selection(idx=self.unlabelled_idx[positions], scores=scores_N[positions].astype(np.float64))

    def outputs(self) -> ClassifierOutputs:
        """Checked result of `compute_outputs()`. Raises OutputsNotFinite naming the images with non-finite values."""
        return checked_outputs(self.compute_outputs(), self.unlabelled_idx, "unlabelled")

    def labelled_outputs(self) -> ClassifierOutputs:
        """Checked result of `compute_labelled_outputs()`, in the order of `labelled_id_idx`. Raises as `outputs()`."""
        return checked_outputs(self.compute_labelled_outputs(), self.labelled_id_idx, "labelled")

    def restricted_to(self, keep: NDArray[np.bool_]) -> PoolView:
        """Copy of this view with fewer unlabelled images: those for which `keep` (N,) is True."""
        return replace(
            self, unlabelled_idx=self.unlabelled_idx[keep], compute_outputs=lambda: self.compute_outputs().rows(keep)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The images to be labelled, most wanted first."""

    idx: IndexArray
    """(Q,) distinct members of `unlabelled_idx`; Q = min(budget, N)."""
    scores: NDArray[np.float64]
    """(Q,) values the strategy ranked by, in the order of `idx`, in a unit that the strategy chooses."""
    judged_id_idx: IndexArray | None = None
    """The unlabelled images judged ID; None if the strategy does not judge."""
    purity: NDArray[np.floating] | None = None
    """(Q,) ID minus OOD score of each queried image, in the order of `idx`; None without a purity step."""
    diagnostics: Mapping[str, Diagnostic] = field(default_factory=dict)
    """Numbers for the record, such as the logit scale."""


def checked_outputs(outputs: ClassifierOutputs, idx: IndexArray, kind: str) -> ClassifierOutputs:
    """The outputs of the images `idx`, made read-only.

    Raises OutputsNotFinite naming the images whose values are not finite.
    """
    parts = [outputs.logits_NK, outputs.features_ND]
    if outputs.predicted_losses_N is not None:
        parts.append(outputs.predicted_losses_N[:, None])
    finite_N = np.all([np.isfinite(part).all(axis=1) for part in parts], axis=0)
    if not finite_N.all():
        bad = idx[~finite_N]
        raise OutputsNotFinite(
            f"the classifier gives values that are not finite for {len(bad)} of {len(idx)} "
            f"{kind} images (the first has index {bad[0]}); its training diverged, or the image is damaged"
        )
    for part in (outputs.logits_NK, outputs.features_ND, outputs.predicted_losses_N):
        if part is not None:
            part.flags.writeable = False
    return outputs


class Strategy(ABC):
    """An acquisition function: picks the unlabelled images to be labelled next."""

    @abstractmethod
    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return min(budget, N) distinct unlabelled images, most wanted first; equal arguments give equal answers."""


class LearningStrategy(Strategy):
    """A strategy that learns from the oracle's answers for its next query."""

    @abstractmethod
    def learn(self, view: PoolView, selection: Selection, answers_Q: IndexArray, rng: np.random.Generator) -> Memory:
        """Return what to remember, given the answers (0..K-1, K for OOD) in the order of `selection.idx`.

        `view` is the one that the selection was made from. The result goes into the round's record and comes back in
        the next view, so that a resumed trial goes on as if it had not been stopped.
        """


def highest_first(scores_N: NDArray[np.floating], count: int) -> IndexArray:
    """Positions of the `count` largest scores, largest first; ties go to the lowest position."""
    # A stable sort of the negated scores: reversing an ascending sort would give ties to the highest position.
    return np.argsort(-scores_N, kind="stable")[:count].astype(np.int64)


def check_selection(selection: object, *, unlabelled_idx: IndexArray, budget: int, who: str) -> Selection:
    """Return `selection` if it keeps the contract; the trial checks before it buys, the contract suite in every case.

    The contract: exactly min(budget, N) distinct int64 indices of `unlabelled_idx`, a finite score for each, judged
    images out of the same pool, diagnostics that a record can hold. Raises a StrategyError that begins with `who` and
    states what was returned and what was due.
    """
    if not isinstance(selection, Selection):
        raise StrategyError(f"{who}: select() returned {_kind(selection)}; a strategies.base.Selection was due")
    due = min(budget, len(unlabelled_idx))
    _check_indices(selection.idx, unlabelled_idx, f"{who}: idx")
    # A plug-in that bought three labels too many per round was once ranked second in Table 4.
    if len(selection.idx) != due:
        raise StrategyError(
            f"{who}: returned {len(selection.idx)} images to label; exactly {due} were due (the budget is {budget}, "
            f"and {len(unlabelled_idx)} images are unlabelled)"
        )
    scores: object = selection.scores
    if not isinstance(scores, np.ndarray) or scores.shape != (due,) or scores.dtype.kind not in "fiu":
        raise StrategyError(f"{who}: scores is {_kind(scores)}; an array of {due} numbers, one for each image, was due")
    if not np.isfinite(scores).all():
        bad = np.flatnonzero(~np.isfinite(scores))
        raise StrategyError(
            f"{who}: {len(bad)} of {due} scores are not finite (the first is {scores[bad[0]]}, of image "
            f"{selection.idx[bad[0]]}); finite scores were due"
        )
    purity: Any = selection.purity  # of a plug-in, that may be anything
    if purity is not None:
        is_vector = isinstance(purity, np.ndarray) and purity.shape == (due,) and purity.dtype.kind in "fiu"
        if not is_vector or not np.isfinite(purity).all():
            raise StrategyError(f"{who}: purity is {_kind(purity)}; an array of {due} finite numbers or None was due")
    if selection.judged_id_idx is not None:
        _check_indices(selection.judged_id_idx, unlabelled_idx, f"{who}: judged_id_idx")
    diagnostics: object = selection.diagnostics
    if not isinstance(diagnostics, Mapping):
        raise StrategyError(f"{who}: diagnostics is {_kind(diagnostics)}; names with a number each were due")
    for name, value in diagnostics.items():
        is_number = isinstance(value, int | float) and math.isfinite(value)
        if not isinstance(name, str) or not (value is None or is_number):
            raise StrategyError(
                f"{who}: diagnostics[{name!r}] is {_kind(value)}; a finite Python number, a bool or None was due"
            )
    return selection


def check_memory(memory: object, *, who: str) -> Memory:
    """Return `memory` if it is named lists of finite numbers. Raises a StrategyError that begins with `who`."""
    if not isinstance(memory, Mapping) or not all(isinstance(name, str) for name in memory):
        raise StrategyError(f"{who}: learn() returned {_kind(memory)}; names with a list of numbers each were due")
    for name, values in memory.items():
        try:
            is_finite = all(math.isfinite(value) for value in values)
        except (TypeError, OverflowError):
            is_finite = False
        if not is_finite:
            raise StrategyError(
                f"{who}: learn() returned {_kind(values)} as {name!r}; a list of finite numbers was due"
            )
    return memory


def _check_indices(idx: object, unlabelled_idx: IndexArray, who: str) -> None:
    """Raise StrategyError unless `idx` is a vector of distinct int64 members of `unlabelled_idx`."""
    if not isinstance(idx, np.ndarray) or idx.ndim != 1 or idx.dtype != np.int64:
        raise StrategyError(
            f"{who} is {_kind(idx)}; a vector of int64 was due (an empty list of picks becomes float64: "
            "np.array(picks, dtype=np.int64))"
        )
    outside = idx[~np.isin(idx, unlabelled_idx)]
    if len(outside):
        raise StrategyError(
            f"{who} holds {len(outside)} images that are not unlabelled (the first is {outside[0]}); indices out of "
            "view.unlabelled_idx were due, not positions in it (view.pick(positions, scores) turns these into indices)"
        )
    images, counts = np.unique(idx, return_counts=True)
    if len(images) != len(idx):
        raise StrategyError(f"{who} holds image {images[counts > 1][0]} more than once; distinct images were due")


def _kind(value: object) -> str:
    """Describe a value in a few words, for a message."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} with shape {value.shape}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:60] + '...'}"
