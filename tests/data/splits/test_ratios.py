"""Open-set splits against the official code's draws, Table 2, and hand-made cases."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data.splits.ratios import OpenSetSplit, SplitCounts, _draw_by_classes, count_split, draw_split, ratio_of_classes

GOLDEN = Path(__file__).parents[2] / "golden" / "splits"
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "splits.json").read_text())
CLASS_SIZES = {"cifar10": [5000] * 10, "cifar100": [500] * 100, "tiny-imagenet": [500] * 200}
BUDGETS = {"cifar10": 500, "cifar100": 500, "tiny-imagenet": 1000}


@pytest.fixture(scope="module")
def drawn() -> dict[str, NDArray[Any]]:
    """All arrays that the official code drew, by name."""
    with np.load(GOLDEN / "splits.npz") as arrays:
        return dict(arrays)


def test_class_sizes_are_those_of_table_1() -> None:
    with (GOLDEN / "table1.csv").open() as file:
        rows = {row["dataset"]: row for row in csv.DictReader(file)}
    for name, class_sizes in CLASS_SIZES.items():
        assert len(class_sizes) == int(rows[name]["num_classes"])
        assert sum(class_sizes) == int(rows[name]["num_train"])


def test_there_are_cases_of_every_size() -> None:
    assert len(CASES) == 75
    assert {case["num_classes"] for case in CASES} == {10, 100, 200}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"])
def test_split_is_the_one_of_the_official_code(case: dict[str, Any], drawn: dict[str, NDArray[Any]]) -> None:
    arguments = {name: value for name, value in case.items() if name != "key"}
    labels = drawn[f"labels_c{case['num_classes']}"].astype(np.int64)
    split = draw_split(labels, **arguments)
    assert split.id_classes.tolist() == drawn[f"{case['key']}_id_classes"].tolist()
    assert split.initial_id_idx.tolist() == drawn[f"{case['key']}_initial_id"].tolist()
    assert split.initial_ood_idx.tolist() == drawn[f"{case['key']}_initial_ood"].tolist()
    assert split.unlabelled_idx.tolist() == drawn[f"{case['key']}_unlabelled"].tolist()
    for idx in (split.id_classes, split.initial_id_idx, split.initial_ood_idx, split.unlabelled_idx):
        assert idx.dtype == np.int64


def _table2() -> list[dict[str, str]]:
    with (GOLDEN / "table2.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("row", _table2(), ids=lambda row: "-".join(list(row.values())[:3]))
def test_table_2_follows_from_class_sizes_alone(row: dict[str, str]) -> None:
    counts = count_split(
        CLASS_SIZES[row["dataset"]],
        mismatch_ratio=float(row["mismatch_ratio"]),
        ood_ratio=float(row["ood_ratio"]),
        budget=BUDGETS[row["dataset"]],
        seed=0,
    )
    expected = ("initial_id", "initial_ood", "unlabelled_id", "unlabelled_ood")
    assert [getattr(counts, name) for name in expected] == [int(row[name]) for name in expected]


def test_table_2_has_every_condition() -> None:
    assert len(_table2()) == 3 * 3 * 4


@pytest.mark.parametrize(
    ("seed", "first_four"),
    [(0, [2, 8, 4, 9]), (1, [2, 9, 6, 4]), (2, [4, 1, 5, 0]), (3, [5, 4, 1, 2]), (4, [3, 8, 4, 9])],
)
def test_id_classes_of_cifar10_are_nested(seed: int, first_four: list[int]) -> None:
    labels = np.repeat(np.arange(10), 30)
    for num_id_classes in (2, 3, 4):
        split = draw_split(
            labels, num_classes=10, mismatch_ratio=num_id_classes / 10, ood_ratio=0.2, budget=20, seed=seed
        )
        assert split.id_classes.tolist() == first_four[:num_id_classes]


def test_counts_of_uneven_classes_are_those_of_the_split() -> None:
    class_sizes = [7, 40, 12, 25, 33, 9, 60]
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(7), class_sizes))
    arguments: dict[str, Any] = {"mismatch_ratio": 0.5, "ood_ratio": 0.3, "budget": 15, "seed": 5}
    split = draw_split(labels, num_classes=7, **arguments)
    relabelled = split.relabel(labels)
    pool_labels = relabelled[split.unlabelled_idx]
    assert count_split(class_sizes, **arguments) == SplitCounts(
        num_id_classes=3,
        initial_id=len(split.initial_id_idx),
        initial_ood=len(split.initial_ood_idx),
        unlabelled_id=int((pool_labels < 3).sum()),
        unlabelled_ood=int((pool_labels == 3).sum()),
    )
    assert np.all(relabelled[split.initial_id_idx] < 3)
    assert np.all(relabelled[split.initial_ood_idx] == 3)
    together = np.concatenate([split.initial_id_idx, split.initial_ood_idx, split.unlabelled_idx])
    assert len(np.unique(together)) == len(together)


def test_relabel_follows_the_draw_order() -> None:
    nothing = np.empty(0, dtype=np.int64)
    split = OpenSetSplit(
        id_classes=np.array([4, 1]), initial_id_idx=nothing, initial_ood_idx=nothing, unlabelled_idx=nothing
    )
    assert split.relabel(np.array([0, 1, 2, 3, 4, 1])).tolist() == [2, 1, 2, 2, 0, 1]
    assert split.num_id_classes == 2


def test_budget_of_all_id_images_labels_them_and_leaves_no_pool() -> None:
    labels = np.repeat(np.arange(5), 4)
    split = draw_split(labels, num_classes=5, mismatch_ratio=0.4, ood_ratio=0, budget=8, seed=0)
    assert split.initial_id_idx.tolist() == np.flatnonzero(np.isin(labels, split.id_classes)).tolist()
    assert len(split.initial_id_idx) == 8
    assert (len(split.initial_ood_idx), len(split.unlabelled_idx)) == (0, 0)


def test_all_classes_id_without_ood_images() -> None:
    labels = np.repeat(np.arange(4), 5)
    split = draw_split(labels, num_classes=4, mismatch_ratio=1, ood_ratio=0, budget=8, seed=1)
    assert sorted(split.id_classes.tolist()) == [0, 1, 2, 3]
    assert np.bincount(labels[split.initial_id_idx]).tolist() == [2, 2, 2, 2]
    assert len(split.initial_ood_idx) == 0
    assert len(split.unlabelled_idx) == 12


def test_the_most_ood_images_that_there_are() -> None:
    counts = count_split([10] * 5, mismatch_ratio=0.4, ood_ratio=0.6, budget=10, seed=0)
    assert (counts.initial_ood, counts.unlabelled_ood) == (6, 24)


BAD = [
    ({"mismatch_ratio": 0.0}, "mismatch ratio is 0.0; it must be above 0 and at most 1"),
    ({"mismatch_ratio": 1.2}, "mismatch ratio is 1.2"),
    ({"mismatch_ratio": float("nan")}, "mismatch ratio is nan"),
    ({"ood_ratio": -0.1}, "OOD ratio is -0.1; it must be at least 0 and below 1"),
    ({"ood_ratio": 1.0}, "OOD ratio is 1.0"),
    ({"mismatch_ratio": 0.05}, "mismatch ratio 0.05 of 10 classes gives no ID class; use 0.2 or more"),
    ({"mismatch_ratio": 1.0}, "makes all 10 classes ID"),
    ({"mismatch_ratio": 0.5, "ood_ratio": 0.6}, "needs 75 OOD images for 50 ID images, but only 50 are present"),
    ({"budget": 0}, "budget is 0; it must be at least 1"),
    ({"budget": 2}, "buys 1 initial ID images, fewer than the 2 ID classes; raise the budget to at least 3"),
    (
        {"budget": 24},
        "leaves fewer than one for each of the 2 ID classes; lower the budget to at most 23",
    ),
    ({"seed": -1}, "seed is -1; it must be in 0..4294967295"),
    ({"seed": 2**32}, "seed is 4294967296"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_impossible_splits_are_refused_with_their_numbers(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"mismatch_ratio": 0.2, "ood_ratio": 0.2, "budget": 10, "seed": 0} | change
    with pytest.raises(ValueError, match=re.escape(message)):
        count_split([10] * 10, **arguments)
    with pytest.raises(ValueError, match=re.escape(message)):
        draw_split(np.repeat(np.arange(10), 10), num_classes=10, **arguments)


def test_suggested_ratio_and_budget_are_accepted() -> None:
    with pytest.raises(ValueError, match=r"lower the OOD ratio to at most 0\.5 "):
        count_split([10] * 10, mismatch_ratio=0.5, ood_ratio=0.6, budget=10, seed=0)
    assert count_split([10] * 10, mismatch_ratio=0.5, ood_ratio=0.5, budget=10, seed=0).unlabelled_ood == 45
    assert count_split([10] * 10, mismatch_ratio=0.2, ood_ratio=0.2, budget=3, seed=0).initial_id == 2


ADVICE = re.compile(r"(take|raise the budget to at least|lower the budget to at most|at most) ([\d.]+)")


def follow(sizes: list[int], arguments: dict[str, Any]) -> list[str]:
    """The messages met on the way, each with its advice followed, until the split is accepted or has no number."""
    arguments, met = dict(arguments), list[str]()
    while True:
        try:
            count_split(sizes, **arguments, seed=0)
        except ValueError as error:
            said = ADVICE.search(str(error))
            met.append(str(error))
            if said is None:
                return met
            number = float(said[2].rstrip("."))
            if "budget" in said[1]:
                arguments["budget"] = int(number)
            else:
                arguments["ood_ratio" if "OOD ratio to at most" in str(error) else "mismatch_ratio"] = number
            assert len(met) < 6, met
        else:
            return met


def test_a_mismatch_ratio_that_is_advised_is_accepted() -> None:
    advised = {}
    for num_classes in range(3, 201):
        (said,) = follow([9] * num_classes, {"mismatch_ratio": 0.5 / num_classes, "ood_ratio": 0.0, "budget": 400})[:1]
        advised[num_classes] = float(said.split()[-3])
        assert math.floor(num_classes * advised[num_classes]) == 2, said
    assert {n: advised[n] for n in (3, 9, 10, 13, 49, 100, 200)} == {
        3: 0.7, 9: 0.3, 10: 0.2, 13: 0.2, 49: 0.05, 100: 0.02, 200: 0.01,
    }  # fmt: skip


def test_a_ratio_of_classes_gives_as_many_as_wanted() -> None:
    assert (ratio_of_classes(100, 29), ratio_of_classes(100, 30)) == (0.291, 0.3)  # 100 * 0.29 is 28.999...
    for num_classes in range(2, 120):
        for wanted in range(1, num_classes + 1):
            assert math.floor(num_classes * ratio_of_classes(num_classes, wanted)) == wanted


def test_a_budget_that_is_advised_is_accepted() -> None:
    for num_id in range(2, 60):
        for hundredths in range(0, 95, 7):
            ratio = hundredths / 100
            sizes = [40] * num_id + [40 * num_id] * 20
            arguments = {"mismatch_ratio": (num_id + 0.5) / len(sizes), "ood_ratio": ratio}
            sizes = [max(sizes)] * len(sizes)  # whichever classes the seed draws
            for budget in (1, int((num_id * max(sizes) - 1) / (1 - ratio))):
                met = follow(sizes, {**arguments, "budget": budget})
                assert len([line for line in met if "budget" in line]) <= 1, met
    with pytest.raises(ValueError, match="raise the budget to at least 76"):
        count_split([100] * 102, mismatch_ratio=0.5, ood_ratio=0.32, budget=10, seed=0)
    assert count_split([100] * 102, mismatch_ratio=0.5, ood_ratio=0.32, budget=76, seed=0).initial_id == 51


def test_advice_on_uneven_classes_ends_somewhere() -> None:
    generator = np.random.default_rng(5)
    ends = Counter[int]()
    for _ in range(3000):
        sizes = generator.integers(2, 30, int(generator.integers(3, 30))).tolist()
        arguments = {
            "mismatch_ratio": float(generator.uniform(0.01, 0.99)),
            "ood_ratio": float(generator.integers(0, 100) / 100),
            "budget": int(generator.integers(1, 400)),
        }
        met = follow(sizes, arguments)
        kinds = [re.sub(r"[\d.]+", "", line) for line in met]
        assert len(set(kinds)) == len(kinds), met  # the same line never comes twice
        ends[len(met)] += 1
    assert ends[0] > 300
    assert ends[1] > 300


def test_whatever_passes_the_check_can_be_drawn() -> None:
    generator = np.random.default_rng(3)
    num_drawn = 0
    for seed in range(200):
        class_sizes = generator.integers(0, 12, int(generator.integers(2, 9))).tolist()
        arguments: dict[str, Any] = {
            "mismatch_ratio": float(generator.uniform(0.1, 1)),
            "ood_ratio": float(generator.choice([0, 0.1, 0.4, 0.7])),
            "budget": int(generator.integers(1, 25)),
            "seed": seed,
        }
        try:
            counts = count_split(class_sizes, **arguments)
        except ValueError:
            continue
        labels = np.repeat(np.arange(len(class_sizes)), class_sizes)
        split = draw_split(labels, num_classes=len(class_sizes), **arguments)
        assert len(split.unlabelled_idx) == counts.unlabelled_id + counts.unlabelled_ood
        num_drawn += 1
    assert num_drawn > 30


def test_class_with_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="an ID class has only 1 training images"):
        count_split([1, 9, 9], mismatch_ratio=1, ood_ratio=0, budget=6, seed=0)


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="labels go up to 4, but there are 3 classes"):
        draw_split(np.arange(5), num_classes=3, mismatch_ratio=0.5, ood_ratio=0.2, budget=2, seed=0)


def test_draws_by_classes_are_scikit_learns() -> None:
    from sklearn.model_selection import train_test_split

    generator = np.random.default_rng(0)
    for case in range(300):
        num_classes = int(generator.integers(1, 12))
        sizes = generator.integers(2, 60, num_classes) if case % 2 else np.full(num_classes, generator.integers(2, 60))
        labels = generator.permutation(np.repeat(np.arange(num_classes), sizes))
        num_second = int(generator.integers(num_classes, len(labels) - num_classes + 1))
        seed = int(generator.integers(2**32))
        expected = train_test_split(np.arange(len(labels)), test_size=num_second, stratify=labels, random_state=seed)
        drawn = _draw_by_classes(labels, len(labels) - num_second, num_second, seed)
        assert [part.tolist() for part in drawn] == [part.tolist() for part in expected], (case, sizes, num_second)
