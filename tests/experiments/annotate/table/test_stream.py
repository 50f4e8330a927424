"""The rows with the largest values of a stream, and what a pass over the shards counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.annotate.table.parquet import Shard, write_shard
from experiments.annotate.table.scoring import Best, Stream


def shard(number: int, num_rows: int) -> Shard:
    return Shard(number=number, path="", group=0, start=0, num_rows=num_rows)


def test_the_best_of_a_stream_are_those_of_all() -> None:
    rng = np.random.default_rng(0)
    values, keys = rng.integers(0, 20, (6, 50)).astype(float), rng.random((6, 50))
    best = Best(30)
    for number in range(6):
        best.add(number, np.arange(50), values[number], keys[number])
        assert len(best.values) == 30
    order = np.lexsort((-keys.ravel(), -values.ravel()))[:30]
    assert best.places.tolist() == [[place // 50, place % 50] for place in order.tolist()]


def test_a_pass_counts_what_has_no_answer(tmp_path: Path) -> None:
    folder, shards = str(tmp_path / "scores"), (shard(0, 3), shard(1, 2))
    for each, wanted, free in zip(shards, ([0.9, 0.5, 0.1], [0.6, 0.8]), ([0, 1, 1], [1, 1]), strict=True):
        write_shard(folder, each, {"wanted": np.array(wanted, dtype=np.float32), "free": np.array(free, dtype=bool)})
    stream = Stream(likely=Best(2), border=Best(1), drawn=Best(4))
    stream.read(folder, shards, 7)
    assert stream.num_free == 4
    assert stream.total == pytest.approx(2.0)
    assert stream.variance == pytest.approx(0.25 + 0.09 + 0.24 + 0.16)
    assert stream.likely.places.tolist() == [[1, 1], [1, 0]]
    assert stream.border.places.tolist() == [[0, 1]]
    assert sorted(stream.drawn.places.tolist()) == [[0, 1], [0, 2], [1, 0], [1, 1]]


def test_each_image_is_drawn_as_often_as_any_other(tmp_path: Path) -> None:
    folder, shards = str(tmp_path / "scores"), (shard(0, 10), shard(1, 30))
    for each in shards:
        wanted = np.linspace(0.1, 0.9, each.num_rows, dtype=np.float32)
        write_shard(folder, each, {"wanted": wanted, "free": np.ones(each.num_rows, dtype=bool)})
    counts = np.zeros(40)
    for seed in range(300):
        stream = Stream(likely=Best(1), border=Best(1), drawn=Best(4))
        stream.read(folder, shards, seed)
        counts[stream.drawn.places[:, 0] * 10 + stream.drawn.places[:, 1]] += 1
    # 300 * 4 / 40 = 30 expected each, with a deviation of 5.2.
    assert counts.min() > 12
    assert counts.max() < 50
    assert abs(counts[:10].sum() - 300) < 60
