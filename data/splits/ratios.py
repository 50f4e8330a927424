"""Open-set splits: which classes are ID, which images start labelled, which are in the pool.

Splits are drawn exactly as in the paper's official code, so that a seed means the same
problem as in the paper. This is the one place that uses NumPy's legacy generator and Python's `random`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.imageset import IndexArray

OodRatio = float | Literal["all"]
"""Share of OOD images among all images used, in [0, 1); "all": every OOD image is used, whatever the share."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenSetSplit:
    """ID classes and the three index sets that a trial starts from; the sets are sorted, disjoint, int64."""

    id_classes: NDArray[np.int64]
    """(K,) original class of each ID class in the order drawn: entry j becomes ID class j."""
    initial_id_idx: IndexArray
    """Training images of ID classes that start labelled."""
    initial_ood_idx: IndexArray
    """Training images of OOD classes that start labelled (as OOD)."""
    unlabelled_idx: IndexArray
    """The pool: ID and OOD together. OOD images beyond the OOD ratio are in no set."""

    @property
    def num_id_classes(self) -> int:
        """K, the number of ID classes."""
        return len(self.id_classes)

    def relabel(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N,) int64 for original labels (N,): j for the j-th ID class, K for every OOD class."""
        return _relabel(labels, self.id_classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCounts:
    """Number of images in each part of an open-set split (Table 2 of the paper)."""

    num_id_classes: int
    initial_id: int
    initial_ood: int
    unlabelled_id: int
    unlabelled_ood: int


def draw_split(
    labels: NDArray[np.int64],
    *,
    num_classes: int,
    mismatch_ratio: float | None,
    ood_ratio: OodRatio,
    budget: int,
    seed: int,
    id_classes: Sequence[int] | None = None,
    initial_share: float | None = None,
) -> OpenSetSplit:
    """The open-set split of the training images with these labels.

    Args:
        labels: (N,) original class of each training image, 0..num_classes-1.
        num_classes: C, the number of classes of the data set.
        mismatch_ratio: share of the classes that are ID, in (0, 1]; K = floor(C * mismatch_ratio).
        ood_ratio: share of OOD images among all images used, in [0, 1), or "all" for every OOD image.
        budget: size of the initial labelled set: int(budget * (1 - ood_ratio)) ID images, in proportion to the classes,
            and int(budget * ood_ratio) OOD images.
        seed: 0..2**32-1; decides the whole draw.
        id_classes: the ID classes, distinct, in order, in place of those that the seed draws; `mismatch_ratio` is not
            read then.
        initial_share: the initial labelled set is this share of the ID images, drawn uniformly, without OOD images, in
            place of `budget` images.

    If the budget's ID part covers all ID images, all of them are labelled and there is no OOD image and no pool
    ("full-shot", Table 6). Raises ValueError as `count_split` does.
    """
    class_sizes = np.bincount(labels, minlength=num_classes).tolist()
    if len(class_sizes) != num_classes:
        raise ValueError(f"labels go up to {len(class_sizes) - 1}, but there are {num_classes} classes")
    counts = count_split(
        class_sizes,
        mismatch_ratio=mismatch_ratio,
        ood_ratio=ood_ratio,
        budget=budget,
        seed=seed,
        id_classes=id_classes,
        initial_share=initial_share,
    )
    chosen = _choose_id_classes(num_classes, counts.num_id_classes, seed, id_classes)
    is_id = np.isin(labels, chosen)
    id_idx, all_ood_idx = np.flatnonzero(is_id), np.flatnonzero(~is_id)
    nothing = np.empty(0, dtype=np.int64)
    if counts.unlabelled_id == 0:
        return OpenSetSplit(id_classes=chosen, initial_id_idx=id_idx, initial_ood_idx=nothing, unlabelled_idx=nothing)
    # The official code seeds both generators again here; the two samples below continue one stream, in this order.
    generator = random.Random(seed)
    kept_ood = generator.sample(all_ood_idx.tolist(), counts.initial_ood + counts.unlabelled_ood)
    if initial_share is None:
        # Stratified by the new labels: their order is the draw order, and the draw depends on it.
        new_labels = _relabel(labels[id_idx], chosen)
        pool_id_idx, initial_id_idx = (
            id_idx[part] for part in _draw_by_classes(new_labels, counts.unlabelled_id, counts.initial_id, seed)
        )
    else:
        initial_id_idx = np.array(generator.sample(id_idx.tolist(), counts.initial_id), dtype=np.int64)
        pool_id_idx = np.setdiff1d(id_idx, initial_id_idx)
    initial_ood = generator.sample(kept_ood, counts.initial_ood)
    pool_ood_idx = np.setdiff1d(np.array(kept_ood, dtype=np.int64), np.array(initial_ood, dtype=np.int64))
    return OpenSetSplit(
        id_classes=chosen,
        initial_id_idx=np.sort(initial_id_idx),
        initial_ood_idx=np.sort(np.array(initial_ood, dtype=np.int64)),
        unlabelled_idx=np.sort(np.concatenate([pool_id_idx, pool_ood_idx])),
    )


def count_split(
    class_sizes: Sequence[int],
    *,
    mismatch_ratio: float | None,
    ood_ratio: OodRatio,
    budget: int,
    seed: int,
    id_classes: Sequence[int] | None = None,
    initial_share: float | None = None,
) -> SplitCounts:
    """The counts of `draw_split` from the number of training images of each class alone.

    Arguments as for `draw_split`. Raises ValueError, with the numbers, for ratios outside their range, ratios that give
    no ID class or no OOD class, more OOD images needed than present, and a budget or an initial share that is too large
    or too small for the draw of the initial set.
    """
    num_id_classes = _checked_num_id_classes(len(class_sizes), mismatch_ratio, ood_ratio, id_classes)
    if budget < 1:
        raise ValueError(f"budget is {budget}; it must be at least 1")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; it must be in 0..4294967295")
    id_sizes = [class_sizes[c] for c in _choose_id_classes(len(class_sizes), num_id_classes, seed, id_classes)]
    num_id = sum(id_sizes)
    num_ood_present = sum(class_sizes) - num_id
    if ood_ratio == "all":
        num_ood, ratio = num_ood_present, num_ood_present / sum(class_sizes)
    else:
        num_ood, ratio = round(num_id * ood_ratio / (1 - ood_ratio)), ood_ratio
    # The float arithmetic is the official code's: int(10 * (1 - 0.9)) is 0, and stays so.
    initial_id, initial_ood = int(budget * (1 - ratio)), int(budget * ratio)
    if initial_share is not None:
        initial_id, initial_ood = _checked_initial_share(initial_share, num_id, num_id_classes), 0
    if num_id <= initial_id:
        return SplitCounts(
            num_id_classes=num_id_classes, initial_id=num_id, initial_ood=0, unlabelled_id=0, unlabelled_ood=0
        )
    if num_ood > num_ood_present:
        chosen, other = f"mismatch ratio {mismatch_ratio}", "lower the mismatch ratio"
        if id_classes is not None:
            chosen, other = "these ID classes", "take --ood-ratio all"
        raise ValueError(
            f"OOD ratio {ood_ratio} with {chosen} needs {num_ood} OOD images for {num_id} ID "
            f"images, but only {num_ood_present} are present; lower the OOD ratio to at most "
            f"{math.floor(100 * num_ood_present / (num_id + num_ood_present)) / 100} or {other}"
        )
    if initial_share is None:
        _check_draw_by_classes(id_sizes, initial_id=initial_id, budget=budget, ood_ratio=ratio)
    assert initial_ood <= num_ood, (initial_ood, num_ood)
    return SplitCounts(
        num_id_classes=num_id_classes,
        initial_id=initial_id,
        initial_ood=initial_ood,
        unlabelled_id=num_id - initial_id,
        unlabelled_ood=num_ood - initial_ood,
    )


def _checked_initial_share(share: float, num_id: int, num_id_classes: int) -> int:
    """Size of an initial set that is a share of the ID images; at least one image per ID class on average."""
    # Rounded first: the float 0.29 x 100 is 28.999..., and 29 images are meant.
    initial_id = math.floor(round(share * num_id, 6))
    if not num_id_classes <= initial_id < num_id:
        raise ValueError(
            f"initial_share {share:g} of {num_id} ID images is {initial_id}; take a share that gives at least one "
            f"image for each of the {num_id_classes} ID classes and leaves some unlabelled"
        )
    return initial_id


def _relabel(labels: NDArray[np.int64], id_classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) position of each label (N,) in `id_classes` (K,); K if it is not there."""
    relabelled = np.full(len(labels), len(id_classes), dtype=np.int64)
    for new_label, original in enumerate(id_classes):
        relabelled[labels == original] = new_label
    return relabelled


def _draw_by_classes(
    labels: NDArray[np.int64], num_first: int, num_second: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of a first and a second part of the labels (N,) 0..K-1, each with the classes in proportion.

    Draws exactly as scikit-learn's `train_test_split(..., stratify=labels, random_state=seed)`. `num_first` +
    `num_second` = N.
    """
    # Our own copy, because importing scikit-learn costs a second in every process that draws a split.
    generator = np.random.RandomState(seed)
    sizes = np.bincount(labels)
    first_sizes = _proportional_sizes(sizes, num_first, generator)
    second_sizes = _proportional_sizes(sizes - first_sizes, num_second, generator)
    first: list[int] = []
    second: list[int] = []
    for label, (num_in_first, num_in_second) in enumerate(zip(first_sizes, second_sizes, strict=True)):
        shuffled = np.flatnonzero(labels == label)[generator.permutation(sizes[label])]
        first.extend(shuffled[:num_in_first])
        second.extend(shuffled[num_in_first : num_in_first + num_in_second])
    return generator.permutation(first), generator.permutation(second)


def _proportional_sizes(sizes_K: NDArray[np.int64], total: int, generator: np.random.RandomState) -> NDArray[np.int64]:
    """(K,) sizes that sum to `total`, in proportion to `sizes_K`; ties of the largest remainders are drawn."""
    exact_K = sizes_K / sizes_K.sum() * total
    rounded_K = np.floor(exact_K)
    missing, remainders_K = int(total - rounded_K.sum()), exact_K - rounded_K
    for remainder in np.unique(remainders_K)[::-1]:
        if missing <= 0:
            break
        tied = np.flatnonzero(remainders_K == remainder)
        chosen = generator.choice(tied, size=min(len(tied), missing), replace=False)
        rounded_K[chosen] += 1
        missing -= len(chosen)
    proportional_K: NDArray[np.int64] = rounded_K.astype(np.int64)
    return proportional_K


def _draw_id_classes(num_classes: int, num_id_classes: int, seed: int) -> NDArray[np.int64]:
    """(K,) ID classes in the order drawn: the first K of the seed's legacy permutation."""
    return np.random.RandomState(seed).choice(num_classes, num_id_classes, replace=False).astype(np.int64)


def _choose_id_classes(
    num_classes: int, num_id_classes: int, seed: int, id_classes: Sequence[int] | None
) -> NDArray[np.int64]:
    """(K,) the ID classes in order: the given ones, else the seed's."""
    if id_classes is not None:
        return np.array(id_classes, dtype=np.int64)
    return _draw_id_classes(num_classes, num_id_classes, seed)


def _checked_num_id_classes(
    num_classes: int, mismatch_ratio: float | None, ood_ratio: OodRatio, id_classes: Sequence[int] | None
) -> int:
    """K, the number of the given ID classes, or floor(C * mismatch_ratio), after checking the ratios."""
    if ood_ratio != "all" and not 0 <= ood_ratio < 1:
        raise ValueError(f"OOD ratio is {ood_ratio}; it must be at least 0 and below 1, or all")
    if id_classes is not None:
        if len(id_classes) == num_classes and ood_ratio != 0:
            raise ValueError(
                f"all {num_classes} classes are named as ID, so there is no OOD image; name fewer classes or set the "
                "OOD ratio to 0"
            )
        return len(id_classes)
    if mismatch_ratio is None or not 0 < mismatch_ratio <= 1:
        raise ValueError(f"mismatch ratio is {mismatch_ratio}; it must be above 0 and at most 1")
    num_id_classes = math.floor(num_classes * mismatch_ratio)
    if num_id_classes == 0:
        raise ValueError(
            f"mismatch ratio {mismatch_ratio} of {num_classes} classes gives no ID class; use "
            f"{ratio_of_classes(num_classes, min(2, num_classes))} or more"  # with one ID class accuracy is always 1
        )
    if num_id_classes == num_classes and ood_ratio != 0:
        raise ValueError(
            f"mismatch ratio {mismatch_ratio} makes all {num_classes} classes ID, so OOD ratio {ood_ratio} cannot be "
            "met; lower the mismatch ratio or set the OOD ratio to 0"
        )
    return num_id_classes


# The functions below compute advice for messages. Each value is tried with the official code's own float arithmetic
# before it is printed: 1/9 printed as 0.1111 is refused again, and so is ceil(51 / 0.68) = 75 (int(75 * 0.68) is 50).


def ratio_of_classes(num_classes: int, wanted: int) -> float:
    """The mismatch ratio of fewest digits that gives at least `wanted` ID classes, for 1 <= wanted <= num_classes."""
    for digits in range(1, 17):
        scale = 10**digits
        for step in (0, 1):  # rounding up may still fall short by a bit of the float
            ratio: float = (math.ceil(wanted * scale / num_classes) + step) / scale
            if math.floor(num_classes * ratio) == wanted and ratio <= 1:
                return ratio
    return wanted / num_classes


def _least_budget(num_id_classes: int, ood_ratio: float) -> int:
    """The smallest budget that buys an initial ID image for each class."""
    budget = math.ceil(num_id_classes / (1 - ood_ratio))
    while int(budget * (1 - ood_ratio)) < num_id_classes:
        budget += 1
    return budget


def _most_budget(most_initial_id: int, ood_ratio: float) -> int:
    """The largest budget that buys at most that many initial ID images."""
    budget = math.ceil((most_initial_id + 1) / (1 - ood_ratio)) + 1
    while int(budget * (1 - ood_ratio)) > most_initial_id:
        budget -= 1
    return budget


def _check_draw_by_classes(id_sizes: Sequence[int], *, initial_id: int, budget: int, ood_ratio: float) -> None:
    """Raise ValueError if scikit-learn's stratified draw would."""
    num_id_classes, num_id = len(id_sizes), sum(id_sizes)
    if initial_id < num_id_classes:
        raise ValueError(
            f"budget {budget} with OOD ratio {ood_ratio} buys {initial_id} initial ID images, fewer than the "
            f"{num_id_classes} ID classes; raise the budget to at least {_least_budget(num_id_classes, ood_ratio)}"
        )
    if num_id - initial_id < num_id_classes:
        most, least = _most_budget(num_id - num_id_classes, ood_ratio), _least_budget(num_id_classes, ood_ratio)
        advice = f"lower the budget to at most {most}"
        if most < least:
            advice = "no budget is possible with so few ID images; lower the mismatch ratio or add images"
        raise ValueError(
            f"budget {budget} with OOD ratio {ood_ratio} takes {initial_id} of {num_id} ID images and leaves "
            f"fewer than one for each of the {num_id_classes} ID classes; {advice}"
        )
    if min(id_sizes) < 2:
        raise ValueError(
            f"an ID class has only {min(id_sizes)} training images; every class needs at least 2 for the initial set "
            "to be drawn by classes"
        )
