"""ID classes by name, every OOD image in the pool, and a share of the ID images at the start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.imageset import ArrayImages, DataSet, ImageSet, make_data_set
from data.registry import open_data_set
from data.splits.draw import SplitSettings, count_data_split, draw_data_split, labels_bought
from data.splits.named import checked_names, find_classes, parse_names, short_text, write_names
from data.splits.pinned import PINNED, pinned_classes
from data.splits.ratios import SplitCounts, draw_split
from tests.data.published_files import write_domainnet

SETTINGS: dict[str, Any] = {"mismatch_ratio": None, "ood_ratio": "all", "budget": 10, "seed": 3}


def _data(
    classes: tuple[str, ...] = ("ant", "bee", "cat", "_ood_"),
    *,
    name: str = "folder:toy",
    num_train: int = 20,
    test: tuple[int, ...] = (0, 1),
) -> DataSet:
    train = np.repeat(np.arange(len(classes)), num_train)
    sets = [
        ImageSet(images=ArrayImages(np.zeros((len(labels), 8, 8, 3), dtype=np.uint8)), labels=labels)
        for labels in (train, np.array(test))
    ]
    return make_data_set(name=name, class_names=classes, train=sets[0], test=sets[1], mean=(0.5,) * 3, std=(0.5,) * 3)


def test_named_classes_and_every_ood_image() -> None:
    settings = SplitSettings(**SETTINGS, id_classes=("bee", "ant"))
    split = draw_data_split(_data(), settings)
    assert split.id_classes.tolist() == [0, 1]
    # 40 of the 80 images are OOD, and so are 5 of the 10 that start labelled.
    assert (len(split.initial_id_idx), len(split.initial_ood_idx), len(split.unlabelled_idx)) == (5, 5, 70)
    assert split.initial_id_idx.max() < 40 <= split.initial_ood_idx.min()
    assert count_data_split(_data(), settings) == SplitCounts(
        num_id_classes=2, initial_id=5, initial_ood=5, unlabelled_id=35, unlabelled_ood=35
    )


def test_an_ood_ratio_thins_the_images_of_the_other_classes() -> None:
    counts = count_data_split(_data(), SplitSettings(**(SETTINGS | {"ood_ratio": 0.2}), id_classes=("ant", "bee")))
    assert (counts.unlabelled_id, counts.unlabelled_ood) == (32, 8)


def test_the_classes_that_the_seed_draws_give_the_same_split_when_named() -> None:
    labels = np.repeat(np.arange(10), 30)
    drawn = draw_split(labels, num_classes=10, mismatch_ratio=0.3, ood_ratio=0.5, budget=20, seed=7)
    named = draw_split(
        labels, num_classes=10, mismatch_ratio=None, ood_ratio=0.5, budget=20, seed=7,
        id_classes=drawn.id_classes.tolist(),
    )  # fmt: skip
    assert named.unlabelled_idx.tolist() == drawn.unlabelled_idx.tolist()
    assert named.initial_id_idx.tolist() == drawn.initial_id_idx.tolist()


def test_share_at_the_start_is_of_id_images_only() -> None:
    settings = SplitSettings(**SETTINGS, id_classes=("ant", "bee"), initial_share=0.1)
    split = draw_data_split(_data(), settings)
    assert split.initial_id_idx.tolist() == [8, 25, 28, 36]
    assert len(split.initial_ood_idx) == 0
    assert split.unlabelled_idx.tolist() == [i for i in range(80) if i not in (8, 25, 28, 36)]
    counts = count_data_split(_data(), settings)
    assert counts == SplitCounts(num_id_classes=2, initial_id=4, initial_ood=0, unlabelled_id=36, unlabelled_ood=40)
    assert labels_bought(_data(), counts, rounds=3, budget=10, initial_share=0.1) == 24


def test_full_supervision_labels_the_named_classes() -> None:
    settings = SplitSettings(**SETTINGS, id_classes=("ant", "bee"), initial_share=0.1, supervision="all")
    split = draw_data_split(_data(), settings)
    assert split.initial_id_idx.tolist() == list(range(40))
    assert count_data_split(_data(), settings).initial_id == 40


def test_domain(tmp_path: Path) -> None:
    data = open_data_set("domainnet-sketch", root=write_domainnet(tmp_path))
    names = (data.class_names[3], data.class_names[1])
    settings = SplitSettings(**SETTINGS, id_classes=names)
    split = draw_data_split(data, settings)
    assert split.id_classes.tolist() == sorted(split.id_classes.tolist(), key=lambda c: data.class_names[c])
    assert sorted(split.id_classes.tolist()) == [1, 3]
    assert sorted(data.train.labels[split.initial_id_idx].tolist()) == [1, 3]
    assert count_data_split(data, settings).initial_id == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id_classes": ("ant", "beee")}, "unknown class 'beee' (did you mean 'bee'?); known: bee, ant, cat, _ood_"),
        ({"id_classes": ("ant", "\u0441at")}, "unknown class '\u0441at' (did you mean 'cat'?)"),
        ({"id_classes": ("ant", "cat")}, "the ID class 'cat' has no test images"),
        ({"id_classes": ("ant", "_ood_")}, "the class _ood_ holds OOD images only; it cannot be an ID class"),
        ({"mismatch_ratio": 0.5}, "the class 'cat' has no test images, so it can only be OOD"),
        (
            {"id_classes": ("ant", "bee"), "ood_ratio": 0.6},
            "OOD ratio 0.6 with these ID classes needs 60 OOD images for 40 ID images, but only 40 are present; lower "
            "the OOD ratio to at most 0.5 or take --ood-ratio all",
        ),
        (
            {"id_classes": ("ant", "bee"), "initial_share": 0.04},
            "initial_share 0.04 of 40 ID images is 1; take a share that gives at least one image for each of the 2 ID",
        ),
    ],
)
def test_bad_classes_are_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    for split in (count_data_split, draw_data_split):
        with pytest.raises(ValueError, match=re.escape(message)):
            split(_data(), SplitSettings(**(SETTINGS | changes)))


def test_no_ood_image_is_refused() -> None:
    data = _data(("ant", "bee"))
    with pytest.raises(ValueError, match="all 2 classes are named as ID, so there is no OOD image"):
        count_data_split(data, SplitSettings(**SETTINGS, id_classes=("ant", "bee")))


def test_a_name_that_two_classes_have_is_refused() -> None:
    with pytest.raises(ValueError, match="two classes of the data set are called 'crane'"):
        find_classes(["crane", "owl"], ["crane", "owl", "crane"])


def test_names_are_compared_in_one_form() -> None:
    assert checked_names([" b", "e\u0301"]) == ("b", "\u00e9")
    assert find_classes(["\u00e9", "b"], ["e\u0301", "a", "b"]) == [2, 0]


def test_names_with_commas_are_read_back() -> None:
    names = parse_names('dog, "egret, white",cat')
    assert names == ("cat", "dog", "egret, white")
    assert parse_names(write_names(names)) == names
    for text in ("", "cat,,dog"):
        with pytest.raises(ValueError, match="a class name is empty"):
            parse_names(text)


def test_long_lists_are_shortened_but_never_alike() -> None:
    assert short_text(list("abcd")) == "a, b, c, d"
    first, second = short_text(list("abcdef")), short_text(list("abcdeg"))
    assert first.startswith("a, b, c and 3 more [")
    assert first != second


def test_pinned_classes() -> None:
    assert pinned_classes("cifar10", 3) == [2, 7, 8]
    assert all(len(set(order)) == len(order) for order in PINNED.values())
    data = _data(tuple("abcdefghij"), name="cifar10", num_train=40)
    settings = _pinned(0.2)
    assert draw_data_split(data, settings).id_classes.tolist() == [2, 8]
    for seed in (4, 5):
        assert draw_data_split(data, _pinned(0.2, seed=seed)).id_classes.tolist() == [2, 8]
    with pytest.raises(ValueError, match="is known for cifar10, cifar100, not for toy"):
        pinned_classes("toy", 2)
    with pytest.raises(ValueError, match="has 1 to 4 ID classes of cifar10, not 5; lower the mismatch ratio"):
        pinned_classes("cifar10", 5)


def _pinned(mismatch_ratio: float, seed: int = 3) -> SplitSettings:
    changes = {"mismatch_ratio": mismatch_ratio, "budget": 40, "class_draw": "open-set-annotation", "seed": seed}
    return SplitSettings(**(SETTINGS | changes))
