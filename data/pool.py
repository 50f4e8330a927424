"""The pool (which training images are labelled ID, labelled OOD and unlabelled) and the oracle.

The oracle is the only holder of hidden labels. It answers queries and counts the labels spent.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.imageset import IndexArray
from data.splits.ratios import OpenSetSplit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """The three disjoint sets of training images of a trial; each is sorted, distinct, int64."""

    labelled_id_idx: IndexArray
    labelled_ood_idx: IndexArray
    unlabelled_idx: IndexArray

    def __post_init__(self) -> None:
        """Check order and disjointness."""
        parts = (self.labelled_id_idx, self.labelled_ood_idx, self.unlabelled_idx)
        for part in parts:
            assert part.dtype == np.int64, part.dtype
            assert part.ndim == 1, part.shape
            assert np.all(np.diff(part) > 0), "indices of a pool must be sorted and distinct"
        together = np.concatenate(parts)
        assert len(np.unique(together)) == len(together), "the three sets of a pool must be disjoint"

    @classmethod
    def from_split(cls, split: OpenSetSplit) -> Pool:
        """The pool that a trial starts from."""
        return cls(
            labelled_id_idx=split.initial_id_idx,
            labelled_ood_idx=split.initial_ood_idx,
            unlabelled_idx=split.unlabelled_idx,
        )

    def move(self, queried_idx: IndexArray, is_id: NDArray[np.bool_]) -> Pool:
        """The pool after the oracle's answers: each queried image leaves the unlabelled ones for ID or OOD.

        Args:
            queried_idx: (Q,) distinct indices of unlabelled images, in any order.
            is_id: (Q,) True if the image is of an ID class.

        Raises ValueError if a queried index is repeated or not unlabelled, or if the lengths differ.
        """
        if queried_idx.shape != is_id.shape or queried_idx.ndim != 1:
            raise ValueError(f"{queried_idx.shape} queried indices, but {is_id.shape} answers")
        if len(np.unique(queried_idx)) != len(queried_idx):
            raise ValueError("a query holds the same image twice")
        outside = queried_idx[~np.isin(queried_idx, self.unlabelled_idx)]
        if len(outside):
            raise ValueError(f"image {outside[0]} was queried, but it is not in the unlabelled pool")
        answers = np.asarray(is_id, dtype=bool)
        return Pool(
            labelled_id_idx=np.union1d(self.labelled_id_idx, queried_idx[answers]).astype(np.int64),
            labelled_ood_idx=np.union1d(self.labelled_ood_idx, queried_idx[~answers]).astype(np.int64),
            unlabelled_idx=np.setdiff1d(self.unlabelled_idx, queried_idx).astype(np.int64),
        )

    def checksum(self) -> str:
        """SHA-256 (64 hex digits) of the three sets."""
        # Lengths are hashed too: else an index could move from the end of one set to the start of the next unnoticed.
        digest = hashlib.sha256()
        for part in (self.labelled_id_idx, self.labelled_ood_idx, self.unlabelled_idx):
            digest.update(f"{len(part)}:".encode())
            digest.update(np.ascontiguousarray(part, dtype="<i8").data)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class PurityQuality:
    """Recall and precision of a purity step; for records only, never shown to a strategy."""

    recall: float | None
    """Share of the unlabelled ID images that were judged ID; None if there are none."""
    precision: float | None
    """Share of the images judged ID that are ID; None if none was judged ID."""


class Oracle:
    """Holder of the hidden labels of one trial's training images; it answers queries and counts their cost."""

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

    def recall(self, labelled_id_idx: IndexArray) -> float:
        """Share of the ID images of the training set that are among those labelled ID. Costs no label."""
        return len(labelled_id_idx) / int((self._labels < self._num_id_classes).sum())

    def answer(self, idx: IndexArray) -> NDArray[np.int64]:
        """(Q,) int64 labels of the images `idx` (Q,): 0..K-1, or K for an OOD image. Each costs one label.

        Raises ValueError, and spends nothing, if an index is unknown or was asked before.
        """
        unknown = idx[(idx < 0) | (idx >= len(self._labels))]
        if len(unknown):
            raise ValueError(f"the oracle has images 0..{len(self._labels) - 1}; it was asked for image {unknown[0]}")
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
