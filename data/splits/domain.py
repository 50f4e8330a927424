"""Open-set splits of the protocol "domain" (DomainNet): some classes of one domain are ID, everything else is OOD.

Source: the paper's Table 3 and text; its official code has no such split. The ID
classes are the first of the seed's legacy permutation of all classes, as for the other data sets; the paper says
neither which it took nor how it drew the first image of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.splits.ratios import OpenSetSplit, SplitCounts

NUM_ID_CLASSES = 50
"""Number of ID classes in the paper, out of 345."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draw:
    """The choices that the seed decides."""

    id_classes: NDArray[np.int64]
    """(K,) ID classes in the order drawn."""
    first_images: list[int]
    """(K) for each ID class, the position of the image that starts labelled among its images in index order."""


def draw_domain_split(
    labels: NDArray[np.int64],
    *,
    num_classes: int,
    num_id_classes: int = NUM_ID_CLASSES,
    seed: int,
    id_classes: Sequence[int] | None = None,
) -> OpenSetSplit:
    """The open-set split of the training images with these labels: one image of each ID class starts labelled.

    Args:
        labels: (N,) 0..num_classes-1 for the images of the domain, num_classes for those of all other domains.
        num_classes: C, the number of classes of the data set.
        num_id_classes: K, in 1..C. Classes without a training image in the domain are skipped.
        seed: 0..2**32-1; fixes everything. A larger K adds classes and keeps the ones before it.
        id_classes: the ID classes, in order, in place of those that the seed draws; K is not read then.

    No OOD image starts labelled; all other images are in the pool. Raises ValueError as `count_domain_split`.
    """
    if len(labels) and labels.max() > num_classes:
        raise ValueError(f"labels go up to {labels.max()}, but there are {num_classes} classes and the other domains")
    class_sizes = np.bincount(labels, minlength=num_classes)[:num_classes].tolist()
    num_other = len(labels) - sum(class_sizes)
    count_domain_split(
        class_sizes, num_other=num_other, num_id_classes=num_id_classes, seed=seed, id_classes=id_classes
    )
    draw = _draw(class_sizes, num_id_classes, seed, id_classes)
    initial_id_idx = np.sort(
        [
            np.flatnonzero(labels == id_class)[position]
            for id_class, position in zip(draw.id_classes, draw.first_images, strict=True)
        ]
    ).astype(np.int64)
    return OpenSetSplit(
        id_classes=draw.id_classes,
        initial_id_idx=initial_id_idx,
        initial_ood_idx=np.empty(0, dtype=np.int64),
        unlabelled_idx=np.setdiff1d(np.arange(len(labels)), initial_id_idx).astype(np.int64),
    )


def count_domain_split(
    class_sizes: Sequence[int],
    *,
    num_other: int,
    num_id_classes: int = NUM_ID_CLASSES,
    seed: int,
    id_classes: Sequence[int] | None = None,
) -> SplitCounts:
    """The counts of `draw_domain_split` from numbers of training images alone (Table 3 of the paper).

    Args:
        class_sizes: number of training images of each class in the domain.
        num_other: number of training images of all other domains.
        num_id_classes, seed, id_classes: as for `draw_domain_split`.

    Raises ValueError for a seed or a number of ID classes outside their range, and if no OOD image is left.
    """
    draw = _draw(class_sizes, num_id_classes, seed, id_classes)
    num_id_classes = len(draw.id_classes)
    num_id = sum(class_sizes[id_class] for id_class in draw.id_classes)
    num_ood = sum(class_sizes) + num_other - num_id
    if num_ood == 0:
        raise ValueError(
            f"the number of ID classes is {num_id_classes}, all classes of the domain, and there is no other domain, "
            "so no image is OOD; lower the number of ID classes"
        )
    return SplitCounts(
        num_id_classes=num_id_classes,
        initial_id=num_id_classes,
        initial_ood=0,
        unlabelled_id=num_id - num_id_classes,
        unlabelled_ood=num_ood,
    )


def _draw(class_sizes: Sequence[int], num_id_classes: int, seed: int, id_classes: Sequence[int] | None = None) -> _Draw:
    """The draw of `draw_domain_split` from one legacy stream: a permutation of classes, then one number per class."""
    num_present = sum(size > 0 for size in class_sizes)
    if id_classes is not None and not all(class_sizes[c] for c in id_classes):
        raise ValueError("an ID class has no training image in the domain; name classes that have one")
    if id_classes is None and not 1 <= num_id_classes <= num_present:
        raise ValueError(
            f"the number of ID classes is {num_id_classes}; it must be in 1..{num_present}, the classes that have "
            "training images in the domain"
        )
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; it must be in 0..4294967295")
    generator = np.random.RandomState(seed)
    drawn = [c for c in generator.permutation(len(class_sizes)) if class_sizes[c]][:num_id_classes]
    drawn = drawn if id_classes is None else list(id_classes)
    return _Draw(
        id_classes=np.array(drawn, dtype=np.int64),
        first_images=[int(generator.randint(class_sizes[c])) for c in drawn],
    )
