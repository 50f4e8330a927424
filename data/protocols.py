"""The split of a data set by the protocol it asks for, for those who do not care which one that is."""

from __future__ import annotations

from data.domain_split import NUM_ID_CLASSES, count_domain_split, draw_domain_split
from data.imageset import DataSet
from data.splits import OpenSetSplit, SplitCounts, count_split, draw_split


def draw_data_split(
    data: DataSet,
    *,
    mismatch_ratio: float,
    ood_ratio: float,
    budget: int,
    seed: int,
    num_id_classes: int = NUM_ID_CLASSES,
) -> OpenSetSplit:
    """The open-set split of the data set's training images.

    Protocol "ratios" reads `mismatch_ratio`, `ood_ratio` and `budget` (`data.splits.draw_split`), protocol "domain"
    reads `num_id_classes` (`data.domain_split.draw_domain_split`). Raises ValueError as these do.
    """
    labels, num_classes = data.train.labels, data.num_classes
    if data.split_protocol == "domain":
        return draw_domain_split(labels, num_classes=num_classes, num_id_classes=num_id_classes, seed=seed)
    return draw_split(
        labels, num_classes=num_classes, mismatch_ratio=mismatch_ratio, ood_ratio=ood_ratio, budget=budget, seed=seed
    )


def count_data_split(
    data: DataSet,
    *,
    mismatch_ratio: float,
    ood_ratio: float,
    budget: int,
    seed: int,
    num_id_classes: int = NUM_ID_CLASSES,
) -> SplitCounts:
    """The counts of `draw_data_split`, quickly and with every check. Raises ValueError as it does."""
    class_sizes = data.train.class_sizes(data.num_classes).tolist()
    if data.split_protocol == "domain":
        num_other = len(data.train) - sum(class_sizes)
        return count_domain_split(class_sizes, num_other=num_other, num_id_classes=num_id_classes, seed=seed)
    return count_split(class_sizes, mismatch_ratio=mismatch_ratio, ood_ratio=ood_ratio, budget=budget, seed=seed)


def labels_bought(data: DataSet, counts: SplitCounts, *, rounds: int, budget: int) -> int:
    """How many labels a trial buys in all: the first labelled set counts as the first round's.

    That set holds `budget` images under protocol "ratios", one an ID class under protocol "domain".
    """
    first = counts.initial_id if data.split_protocol == "domain" else budget
    return first + (rounds - 1) * budget
