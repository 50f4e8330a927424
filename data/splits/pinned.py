"""The one order of classes that the official codes of the open-set annotation line draw ID classes from.

The published codes of EOAL, EAOA and E2OAL take the first K entries of a fixed list whatever the seed is; with it, our
numbers stand beside theirs on the same ID classes. Entries are class numbers in the data set's usual order, as many as
those papers use. Tiny-ImageNet is not here: their list numbers its classes in the order of the archive's `wnids.txt`,
not in the sorted order that every other code has, and repeats classes (of its first 80 entries, 78 are different).
"""

from __future__ import annotations

PINNED: dict[str, tuple[int, ...]] = {
    "cifar10": (8, 2, 7, 4),
    "cifar100": (
        27, 56, 53, 69, 57, 89, 77, 21, 37, 86, 51, 46, 30, 68, 49, 18, 20, 43, 54, 19,
        92, 31, 3, 82, 26, 12, 67, 17, 63, 55, 91, 62, 99, 38, 47, 50, 78, 24, 0, 44,
    ),
}  # fmt: skip


def pinned_classes(dataset: str, num_id_classes: int) -> list[int]:
    """The first ID classes of the data set's fixed order, ascending, as those codes number them.

    Raises ValueError for a data set without such an order, and for more classes than those papers use.
    """
    order = PINNED.get(dataset)
    if order is None:
        raise ValueError(
            f"class_draw = 'open-set-annotation' is known for {', '.join(PINNED)}, not for {dataset}; name its ID "
            "classes with --id-classes, or take class_draw=seed"
        )
    if not 1 <= num_id_classes <= len(order):
        raise ValueError(
            f"class_draw = 'open-set-annotation' has 1 to {len(order)} ID classes of {dataset}, not {num_id_classes}; "
            "lower the mismatch ratio"
        )
    return sorted(order[:num_id_classes])
