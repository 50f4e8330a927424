"""The split of DomainNet: Table 3 of the paper, and hand-made cases."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.splits.domain import count_domain_split, draw_domain_split
from data.splits.ratios import SplitCounts

GOLDEN = Path(__file__).parents[2] / "golden" / "splits"
NUM_CLASSES = 345


def _rows(name: str) -> list[dict[str, str]]:
    with (GOLDEN / name).open() as file:
        return list(csv.DictReader(file))


DOMAIN_SIZES = {
    row["dataset"].removeprefix("domainnet-"): int(row["num_train"])
    for row in _rows("table1.csv")
    if row["dataset"].startswith("domainnet-")
}
"""Training images of each domain, as the paper's Table 1 gives them."""
TABLE_3 = {
    row["domain"]: [int(value) for name, value in row.items() if name != "domain"] for row in _rows("table3.csv")
}
MISPRINT = {"painting": (400_816, 402_976)}
"""OOD images of the pool: what the paper prints, and what is left of all images."""


def _values(counts: SplitCounts) -> list[int]:
    return [
        *(counts.num_id_classes, counts.initial_id, counts.initial_ood, counts.unlabelled_id, counts.unlabelled_ood),
    ]


def test_the_six_domains_are_those_of_both_tables() -> None:
    assert set(DOMAIN_SIZES) == set(TABLE_3)
    assert sum(DOMAIN_SIZES.values()) == 409_832


def test_table_1_is_of_the_cleaned_version() -> None:
    """586,575 images, 345 classes; the first version of painting had duplicates."""
    rows = [row for row in _rows("table1.csv") if row["dataset"].startswith("domainnet-")]
    assert sum(int(row["num_train"]) + int(row["num_test"]) for row in rows) == 586_575
    assert {(row["num_classes"], row["image_size"]) for row in rows} == {("345", "224")}


@pytest.mark.parametrize("domain", sorted(TABLE_3))
def test_table_3_adds_up_to_all_training_images_but_for_one_misprint(domain: str) -> None:
    _, initial_id, initial_ood, unlabelled_id, unlabelled_ood = TABLE_3[domain]
    if domain in MISPRINT:
        printed, consistent = MISPRINT[domain]
        assert unlabelled_ood == printed
        assert printed != consistent
        unlabelled_ood = consistent
    assert initial_id + initial_ood + unlabelled_id + unlabelled_ood == sum(DOMAIN_SIZES.values())


def test_quickdraw_follows_from_its_equal_classes_alone() -> None:
    """350 training images in each of its 345 classes, so that any 50 classes give the row."""
    assert DOMAIN_SIZES["quickdraw"] == 350 * NUM_CLASSES
    num_other = sum(DOMAIN_SIZES.values()) - DOMAIN_SIZES["quickdraw"]
    for seed in range(5):
        counts = count_domain_split([350] * NUM_CLASSES, num_other=num_other, seed=seed)
        assert _values(counts) == TABLE_3["quickdraw"]


@pytest.mark.parametrize("domain", sorted(TABLE_3))
def test_table_3_from_the_published_counts(domain: str) -> None:
    """The paper gives no class sizes, so its ID images are spread evenly over the classes that seed 0 draws."""
    num_id = TABLE_3[domain][1] + TABLE_3[domain][3]
    drawn = np.random.RandomState(0).permutation(NUM_CLASSES)
    class_sizes = np.zeros(NUM_CLASSES, dtype=np.int64)
    for classes, num_images in ((drawn[:50], num_id), (drawn[50:], DOMAIN_SIZES[domain] - num_id)):
        class_sizes[classes] = num_images // len(classes)
        class_sizes[classes[: num_images % len(classes)]] += 1
    num_other = sum(DOMAIN_SIZES.values()) - DOMAIN_SIZES[domain]
    counts = count_domain_split(class_sizes.tolist(), num_other=num_other, seed=0)
    expected = TABLE_3[domain]
    if domain in MISPRINT:
        expected = [*expected[:-1], MISPRINT[domain][1]]
    assert _values(counts) == expected


def _labels() -> np.ndarray[Any, np.dtype[np.int64]]:
    """Six classes of 4, 0, 7, 1, 5 and 3 images, and 9 images of other domains, mixed."""
    return np.random.default_rng(1).permutation(np.repeat(np.arange(7), [4, 0, 7, 1, 5, 3, 9]))


@pytest.mark.parametrize("seed", range(6))
def test_one_image_of_each_id_class_starts_labelled(seed: int) -> None:
    labels = _labels()
    split = draw_domain_split(labels, num_classes=6, num_id_classes=3, seed=seed)
    assert sorted(labels[split.initial_id_idx].tolist()) == sorted(split.id_classes.tolist())
    assert len(split.initial_ood_idx) == 0
    together = np.sort(np.concatenate([split.initial_id_idx, split.unlabelled_idx]))
    assert together.tolist() == list(range(len(labels)))
    for idx in (split.id_classes, split.initial_id_idx, split.initial_ood_idx, split.unlabelled_idx):
        assert idx.dtype == np.int64
    assert np.all(np.diff(split.unlabelled_idx) > 0)
    relabelled = split.relabel(labels)
    assert set(relabelled[labels == 6].tolist()) == {3}
    class_sizes = np.bincount(labels, minlength=7)
    pool_labels = relabelled[split.unlabelled_idx]
    counts = count_domain_split(class_sizes[:6].tolist(), num_other=9, num_id_classes=3, seed=seed)
    assert _values(counts) == [3, 3, 0, int((pool_labels < 3).sum()), int((pool_labels == 3).sum())]


@pytest.mark.parametrize("seed", range(5))
def test_id_classes_are_the_first_of_the_legacy_permutation(seed: int) -> None:
    labels = np.repeat(np.arange(NUM_CLASSES + 1), 2)
    split = draw_domain_split(labels, num_classes=NUM_CLASSES, seed=seed)
    assert split.id_classes.tolist() == np.random.RandomState(seed).choice(NUM_CLASSES, 50, replace=False).tolist()


def test_split_is_pinned() -> None:
    """Drawn once and written down: a seed must go on meaning the same problem."""
    labels = np.repeat(np.arange(NUM_CLASSES + 1), 100)
    split = draw_domain_split(labels, num_classes=NUM_CLASSES, num_id_classes=5, seed=0)
    assert split.id_classes.tolist() == [142, 6, 60, 339, 54]
    assert split.initial_id_idx.tolist() == [643, 5445, 6055, 14258, 33918]


def test_classes_without_images_are_passed_over() -> None:
    order = np.random.RandomState(3).permutation(6).tolist()
    labels = _labels()
    split = draw_domain_split(labels, num_classes=6, num_id_classes=5, seed=3)
    assert split.id_classes.tolist() == [c for c in order if c != 1]


def test_more_id_classes_keep_the_ones_before() -> None:
    labels = np.repeat(np.arange(9), 20)
    few, more = (draw_domain_split(labels, num_classes=8, num_id_classes=k, seed=4) for k in (3, 6))
    assert more.id_classes[:3].tolist() == few.id_classes.tolist()
    assert set(few.initial_id_idx.tolist()) < set(more.initial_id_idx.tolist())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_id_classes": 0}, "the number of ID classes is 0; it must be in 1..5, the classes that have training"),
        ({"num_id_classes": 6}, "the number of ID classes is 6; it must be in 1..5"),
        ({"seed": -1}, "seed is -1; it must be in 0..4294967295"),
        ({"seed": 2**32}, "seed is 4294967296"),
    ],
)
def test_impossible_splits_are_refused(change: dict[str, int], message: str) -> None:
    arguments = {"num_id_classes": 3, "seed": 0} | change
    with pytest.raises(ValueError, match=re.escape(message)):
        draw_domain_split(_labels(), num_classes=6, **arguments)
    with pytest.raises(ValueError, match=re.escape(message)):
        count_domain_split([4, 0, 7, 1, 5, 3], num_other=9, **arguments)


def test_without_any_ood_image_is_refused() -> None:
    message = "the number of ID classes is 3, all classes of the domain, and there is no other domain"
    with pytest.raises(ValueError, match=message):
        count_domain_split([2, 2, 2], num_other=0, num_id_classes=3, seed=0)
    with pytest.raises(ValueError, match=message):
        draw_domain_split(np.repeat(np.arange(3), 2), num_classes=3, num_id_classes=3, seed=0)
    assert count_domain_split([2, 2, 2], num_other=1, num_id_classes=3, seed=0).unlabelled_ood == 1


def test_labels_beyond_the_other_domains_are_refused() -> None:
    with pytest.raises(ValueError, match="labels go up to 4, but there are 3 classes and the other domains"):
        draw_domain_split(np.arange(5), num_classes=3, num_id_classes=2, seed=0)
