"""The split by the protocol that a data set asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.imageset import ArrayImages, DataSet, ImageSet, make_data_set
from data.registry import open_data_set
from data.splits.domain import draw_domain_split
from data.splits.draw import SplitSettings, count_data_split, draw_data_split, labels_bought
from data.splits.ratios import OpenSetSplit, SplitCounts, draw_split
from tests.data.published_files import write_domainnet

SETTINGS: dict[str, Any] = {"mismatch_ratio": 0.4, "ood_ratio": 0.5, "budget": 20, "num_id_classes": 2, "seed": 3}


def _sets(split: OpenSetSplit) -> list[list[int]]:
    return [
        *(split.id_classes.tolist(), split.initial_id_idx.tolist()),
        *(split.initial_ood_idx.tolist(), split.unlabelled_idx.tolist()),
    ]


def test_ratios() -> None:
    data = open_data_set("digits")
    expected = draw_split(data.train.labels, num_classes=10, mismatch_ratio=0.4, ood_ratio=0.5, budget=20, seed=3)
    assert _sets(draw_data_split(data, SplitSettings(**SETTINGS))) == _sets(expected)
    counts = count_data_split(data, SplitSettings(**SETTINGS))
    assert counts == SplitCounts(num_id_classes=4, initial_id=10, initial_ood=10, unlabelled_id=350, unlabelled_ood=350)
    assert labels_bought(data, counts, rounds=10, budget=20) == 200


def test_domain(tmp_path: Path) -> None:
    data = open_data_set("domainnet-sketch", root=write_domainnet(tmp_path))
    expected = draw_domain_split(data.train.labels, num_classes=4, num_id_classes=2, seed=3)
    assert _sets(draw_data_split(data, SplitSettings(**SETTINGS))) == _sets(expected)
    counts = count_data_split(data, SplitSettings(**SETTINGS))
    assert counts == SplitCounts(num_id_classes=2, initial_id=2, initial_ood=0, unlabelled_id=4, unlabelled_ood=66)
    assert labels_bought(data, counts, rounds=4, budget=20) == 62


@pytest.mark.parametrize("protocol", ["ratios", "domain"])
def test_label_of_other_domains_is_allowed_where_the_protocol_has_it(protocol: Any) -> None:
    def data_set(train: list[int], test: list[int]) -> DataSet:
        sets = [
            ImageSet(images=ArrayImages(np.zeros((len(labels), 8, 8, 3), dtype=np.uint8)), labels=np.array(labels))
            for labels in (train, test)
        ]
        return make_data_set(
            name="toy",
            class_names=("a", "b"),
            train=sets[0],
            test=sets[1],
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
            split_protocol=protocol,
        )

    assert data_set([0, 1], [1]).split_protocol == protocol
    with pytest.raises(AssertionError):
        data_set([0, 3], [1])
    with pytest.raises(AssertionError):
        data_set([0, 1], [2])
    if protocol == "domain":
        assert data_set([0, 2, 1, 2], [1]).train.class_sizes(2).tolist() == [1, 1]
    else:
        with pytest.raises(AssertionError):
            data_set([0, 2], [1])


def test_supervision_by_all_or_no_labels(tmp_path: Path) -> None:
    domain = open_data_set("domainnet-sketch", root=write_domainnet(tmp_path))
    for data, num_classes in ((open_data_set("digits"), 4), (domain, 2)):
        usual = draw_data_split(data, SplitSettings(**SETTINGS))
        is_id = np.flatnonzero(np.isin(data.train.labels, usual.id_classes)).tolist()
        for supervision, labelled in (("all", is_id), ("none", [])):
            # An OOD ratio that the data cannot give does not matter: no OOD image is drawn.
            settings: dict[str, Any] = SETTINGS | {"supervision": supervision, "ood_ratio": 0.99}
            assert _sets(draw_data_split(data, SplitSettings(**settings))) == [
                usual.id_classes.tolist(),
                labelled,
                [],
                [],
            ]
            assert count_data_split(data, SplitSettings(**settings)) == SplitCounts(
                num_id_classes=num_classes, initial_id=len(labelled), initial_ood=0, unlabelled_id=0, unlabelled_ood=0
            )


def test_an_ood_ratio_of_0_is_a_pool_of_id_images() -> None:
    data = open_data_set("digits")
    settings = SETTINGS | {"ood_ratio": 0.0}
    split = draw_data_split(data, SplitSettings(**settings))
    together = np.concatenate([split.initial_id_idx, split.unlabelled_idx])
    assert sorted(together) == np.flatnonzero(np.isin(data.train.labels, split.id_classes)).tolist()
    assert (len(split.initial_id_idx), len(split.initial_ood_idx)) == (20, 0)
    counts = count_data_split(data, SplitSettings(**settings))
    assert counts == SplitCounts(num_id_classes=4, initial_id=20, initial_ood=0, unlabelled_id=340, unlabelled_ood=0)
