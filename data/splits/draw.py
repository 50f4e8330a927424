"""The split of a data set by its own split protocol, for callers that need not know which one it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from data.imageset import DataSet
from data.splits.domain import NUM_ID_CLASSES, count_domain_split, draw_domain_split
from data.splits.ratios import OpenSetSplit, SplitCounts, count_split, draw_split

Supervision = Literal["budget", "all", "none"]
"""Images labelled at the start: those of the first budget, with a pool (active learning); every ID image, without a
pool (full supervision); no image, without a pool (zero-shot)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSettings:
    """Settings that decide a split under every split protocol.

    Protocol "ratios" reads `mismatch_ratio`, `ood_ratio` and `budget` (`data.splits.ratios.draw_split`), protocol
    "domain" reads `num_id_classes` (`data.splits.domain.draw_domain_split`). With a supervision other than "budget" the
    ID classes are the same, and `ood_ratio` and `budget` are not read.
    """

    mismatch_ratio: float
    """Share of the classes that are ID, in (0, 1)."""
    ood_ratio: float
    """Share of OOD images in the unlabelled data, in [0, 1)."""
    budget: int
    """Number of images labelled at the start."""
    seed: int
    num_id_classes: int = NUM_ID_CLASSES
    supervision: Supervision = "budget"

    def fully_supervised(self, num_images: int) -> SplitSettings:
        """The settings with the same ID classes and no pool, by the official code's full-shot rule (protocol 1.1): a
        budget that covers all ID images."""
        return replace(self, ood_ratio=0.0, budget=num_images, supervision="budget")


def draw_data_split(data: DataSet, settings: SplitSettings) -> OpenSetSplit:
    """The open-set split of the data set's training images. Raises ValueError as the protocol's own function does."""
    labels, num_classes = data.train.labels, data.num_classes
    if settings.supervision != "budget":
        split = draw_data_split(data, settings.fully_supervised(len(labels)))
        nothing = np.empty(0, dtype=np.int64)
        is_labelled = np.isin(labels, split.id_classes) & (settings.supervision == "all")
        return OpenSetSplit(
            id_classes=split.id_classes,
            initial_id_idx=np.flatnonzero(is_labelled).astype(np.int64),
            initial_ood_idx=nothing,
            unlabelled_idx=nothing,
        )
    if data.split_protocol == "domain":
        return draw_domain_split(
            labels, num_classes=num_classes, num_id_classes=settings.num_id_classes, seed=settings.seed
        )
    return draw_split(
        labels,
        num_classes=num_classes,
        mismatch_ratio=settings.mismatch_ratio,
        ood_ratio=settings.ood_ratio,
        budget=settings.budget,
        seed=settings.seed,
    )


def count_data_split(data: DataSet, settings: SplitSettings) -> SplitCounts:
    """The counts of `draw_data_split`, quickly and with every check. Raises ValueError as it does."""
    if settings.supervision != "budget":
        counts = count_data_split(data, settings.fully_supervised(len(data.train)))
        return SplitCounts(
            num_id_classes=counts.num_id_classes,
            initial_id=counts.initial_id + counts.unlabelled_id if settings.supervision == "all" else 0,
            initial_ood=0,
            unlabelled_id=0,
            unlabelled_ood=0,
        )
    class_sizes = data.train.class_sizes(data.num_classes).tolist()
    if data.split_protocol == "domain":
        num_other = len(data.train) - sum(class_sizes)
        return count_domain_split(
            class_sizes, num_other=num_other, num_id_classes=settings.num_id_classes, seed=settings.seed
        )
    return count_split(
        class_sizes,
        mismatch_ratio=settings.mismatch_ratio,
        ood_ratio=settings.ood_ratio,
        budget=settings.budget,
        seed=settings.seed,
    )


def labels_bought(data: DataSet, counts: SplitCounts, *, rounds: int, budget: int) -> int:
    """Number of labels that a trial buys in total; the initial labelled set counts as the first round's.

    That set holds `budget` images under protocol "ratios", one per ID class under protocol "domain".
    """
    first = counts.initial_id if data.split_protocol == "domain" else budget
    return first + (rounds - 1) * budget
