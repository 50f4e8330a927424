"""The oracle: the only holder of hidden labels. It answers queries and counts what was spent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.imageset import IndexArray


@dataclass(frozen=True, slots=True, kw_only=True)
class PurityQuality:
    """How well a purity step told ID from OOD images; for records only, never shown to a strategy."""

    recall: float | None
    """Share of the unlabelled ID images that were judged ID; None if there are none."""
    precision: float | None
    """Share of the images judged ID that are ID; None if none was judged ID."""


class Oracle:
    """Answers for the training images of one trial."""

    def __init__(self, labels: NDArray[np.int64], *, num_id_classes: int) -> None:
        """`labels` (N,) are those of `OpenSetSplit.relabel`: 0..K-1 for ID classes, K for OOD, K = `num_id_classes`."""
        assert labels.ndim == 1, labels.shape
        assert np.all((labels >= 0) & (labels <= num_id_classes)), "labels must be relabelled to 0..K"
        self._labels = labels.astype(np.int64, copy=True)
        self._num_id_classes = num_id_classes
        self._asked = np.zeros(len(labels), dtype=bool)

    @property
    def num_spent(self) -> int:
        """Number of labels given out so far."""
        return int(self._asked.sum())

    def answer(self, idx: IndexArray) -> NDArray[np.int64]:
        """(Q,) int64 labels of the images `idx` (Q,): 0..K-1, or K for an OOD image. Each costs one label.

        Raises ValueError, and spends nothing, when an index is unknown or was asked before.
        """
        unknown = idx[(idx < 0) | (idx >= len(self._labels))]
        if len(unknown):
            raise ValueError(f"the oracle knows images 0..{len(self._labels) - 1}; it was asked for image {unknown[0]}")
        again = idx[self._asked[idx]]
        if len(again):
            raise ValueError(f"the oracle was asked for image {again[0]} before")
        if len(np.unique(idx)) != len(idx):
            raise ValueError("the oracle was asked for the same image twice in one query")
        self._asked[idx] = True
        return self._labels[idx]

    def judge(self, *, judged_id_idx: IndexArray, unlabelled_idx: IndexArray) -> PurityQuality:
        """Quality of a purity step that judged `judged_id_idx`, out of `unlabelled_idx`, to be ID. Costs no label."""
        assert np.all(np.isin(judged_id_idx, unlabelled_idx)), "only unlabelled images are judged"
        num_id = int((self._labels[unlabelled_idx] < self._num_id_classes).sum())
        num_right = int((self._labels[judged_id_idx] < self._num_id_classes).sum())
        return PurityQuality(
            recall=num_right / num_id if num_id else None,
            precision=num_right / len(judged_id_idx) if len(judged_id_idx) else None,
        )
