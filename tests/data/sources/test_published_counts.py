"""The counts that are known without files."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from data.sources.published_counts import PUBLISHED

TABLE1 = Path(__file__).parents[2] / "golden" / "splits" / "table1.csv"


def test_they_are_those_of_the_papers_table_1() -> None:
    with TABLE1.open(newline="") as file:
        rows = {row.pop("dataset"): {name: int(value) for name, value in row.items()} for row in csv.DictReader(file)}
    ours = {name: {field: getattr(each, field) for field in each.__slots__} for name, each in PUBLISHED.items()}
    assert ours == rows


def test_classes_of_equal_size() -> None:
    assert PUBLISHED["cifar100"].class_sizes() == [500] * 100
    with pytest.raises(AssertionError, match="not equally large"):
        PUBLISHED["domainnet-real"].class_sizes()
