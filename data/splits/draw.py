"""The split of a data set by its own split protocol, for callers that need not know which one it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from data.imageset import DataSet
from data.splits.domain import NUM_ID_CLASSES, count_domain_split, draw_domain_split
from data.splits.named import find_classes
from data.splits.pinned import pinned_classes
from data.splits.ratios import OodRatio, OpenSetSplit, SplitCounts, count_split, draw_split

OOD_ONLY = "_ood_"
"""Class of an image folder that holds images of any OOD classes together; it is never an ID class."""

ClassDraw = Literal["seed", "open-set-annotation"]
"""Draw of the ID classes for a mismatch ratio: by the seed, or the first of a fixed order (`data.splits.pinned`)."""
Supervision = Literal["budget", "all", "none"]
"""Images labelled at the start: those of the first budget, with a pool (active learning); every ID image, without a
pool (full supervision); no image, without a pool (zero-shot)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSettings:
    """Settings that decide a split under every split protocol.

    Protocol "ratios" reads `mismatch_ratio`, `ood_ratio` and `budget` (`data.splits.ratios.draw_split`), protocol
    "domain" reads `num_id_classes` (`data.splits.domain.draw_domain_split`). With a supervision other than "budget" the
    ID classes are the same, and `ood_ratio` and `budget` are not read. Under both, `id_classes` replaces what says how
    many classes are ID.
    """

    mismatch_ratio: float | None
    """Share of the classes that are ID, in (0, 1); None if `id_classes` names them."""
    ood_ratio: OodRatio
    """Share of OOD images in the unlabelled data, in [0, 1), or "all" for every OOD image."""
    budget: int
    """Number of images labelled at the start."""
    seed: int
    num_id_classes: int = NUM_ID_CLASSES
    supervision: Supervision = "budget"
    id_classes: tuple[str, ...] | None = None
    """Names of the ID classes; None: the seed draws them."""
    initial_share: float | None = None
    """Share of the ID images that are labelled at the start, in place of `budget` images."""
    class_draw: ClassDraw = "seed"

    def fully_supervised(self, num_images: int) -> SplitSettings:
        """The settings with the same ID classes and no pool, by the official code's full-shot rule: a
        budget that covers all ID images."""
        return replace(self, ood_ratio=0.0, budget=num_images, supervision="budget", initial_share=None)


def _id_classes(data: DataSet, settings: SplitSettings) -> list[int] | None:
    """Numbers of the named ID classes; None if the seed draws them.

    Raises ValueError for unknown names, and for classes without test images that are, or may be, ID.
    """
    sizes = data.test.class_sizes(data.num_classes)
    if settings.id_classes is not None:
        named = find_classes(settings.id_classes, data.class_names)
        for number in named:
            if data.class_names[number] == OOD_ONLY:
                raise ValueError(f"the class {OOD_ONLY} holds OOD images only; it cannot be an ID class")
            if not sizes[number]:
                raise ValueError(
                    f"the ID class '{data.class_names[number]}' has no test images, so its accuracy cannot be "
                    "measured; add some, or name other classes"
                )
        return named
    ood_only = [name for name, size in zip(data.class_names, sizes, strict=True) if not size or name == OOD_ONLY]
    # Only image folders are made with such classes on purpose; a part of a published data set runs as it always did.
    if ood_only and data.name.startswith("folder:"):
        raise ValueError(
            f"the class '{ood_only[0]}' has no test images, so it can only be OOD, but a mismatch ratio may draw it as "
            "ID; name the ID classes with --id-classes, or give every class test images"
        )
    if settings.class_draw != "seed" and data.split_protocol == "ratios":
        assert settings.mismatch_ratio is not None
        return pinned_classes(data.name, math.floor(data.num_classes * settings.mismatch_ratio))
    return None


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
    id_classes = _id_classes(data, settings)
    if data.split_protocol == "domain":
        return draw_domain_split(
            labels,
            num_classes=num_classes,
            num_id_classes=settings.num_id_classes,
            seed=settings.seed,
            id_classes=id_classes,
        )
    return draw_split(
        labels,
        num_classes=num_classes,
        mismatch_ratio=settings.mismatch_ratio,
        ood_ratio=settings.ood_ratio,
        budget=settings.budget,
        seed=settings.seed,
        id_classes=id_classes,
        initial_share=settings.initial_share,
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
    id_classes = _id_classes(data, settings)
    if data.split_protocol == "domain":
        num_other = len(data.train) - sum(class_sizes)
        return count_domain_split(
            class_sizes,
            num_other=num_other,
            num_id_classes=settings.num_id_classes,
            seed=settings.seed,
            id_classes=id_classes,
        )
    return count_split(
        class_sizes,
        mismatch_ratio=settings.mismatch_ratio,
        ood_ratio=settings.ood_ratio,
        budget=settings.budget,
        seed=settings.seed,
        id_classes=id_classes,
        initial_share=settings.initial_share,
    )


def labels_bought(
    data: DataSet, counts: SplitCounts, *, rounds: int, budget: int, initial_share: float | None = None
) -> int:
    """Number of labels that a trial buys in total; the initial labelled set counts as the first round's.

    That set holds `budget` images under protocol "ratios" (with `initial_share`, that share of the ID images), one per
    ID class under protocol "domain".
    """
    is_other = data.split_protocol == "domain" or initial_share is not None
    first = counts.initial_id if is_other else budget
    return first + (rounds - 1) * budget
