"""The pool: which training images are labelled ID, labelled OOD and unlabelled."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.imageset import IndexArray
from data.splits.ratios import OpenSetSplit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """Three disjoint sets of training images; each is sorted, distinct, int64."""

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
        """The pool a trial starts from."""
        return cls(
            labelled_id_idx=split.initial_id_idx,
            labelled_ood_idx=split.initial_ood_idx,
            unlabelled_idx=split.unlabelled_idx,
        )

    def move(self, queried_idx: IndexArray, is_id: NDArray[np.bool_]) -> Pool:
        """The pool after the oracle's answers: each queried image leaves the unlabelled ones for ID or OOD.

        Args:
            queried_idx: (Q,) distinct indices of unlabelled images, in any order.
            is_id: (Q,) True where the image is of an ID class.

        Raises ValueError when a queried index is repeated or not unlabelled, or the lengths differ.
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
        """64 hex digits that identify the three sets."""
        digest = hashlib.sha256()
        for part in (self.labelled_id_idx, self.labelled_ood_idx, self.unlabelled_idx):
            digest.update(f"{len(part)}:".encode())
            digest.update(np.ascontiguousarray(part, dtype="<i8").data)
        return digest.hexdigest()
