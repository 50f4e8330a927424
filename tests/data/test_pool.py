"""The pool's pure update, by hand."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from data.pool import Pool
from data.splits.ratios import draw_split


def _pool(labelled_id: list[int], labelled_ood: list[int], unlabelled: list[int]) -> Pool:
    parts = [np.array(part, dtype=np.int64) for part in (labelled_id, labelled_ood, unlabelled)]
    return Pool(labelled_id_idx=parts[0], labelled_ood_idx=parts[1], unlabelled_idx=parts[2])


def test_move_sorts_images_into_their_sets_and_leaves_the_old_pool() -> None:
    before = _pool([3, 8], [5], [0, 1, 4, 9])
    after = before.move(np.array([9, 1, 4]), np.array([True, False, True]))
    assert after.labelled_id_idx.tolist() == [3, 4, 8, 9]
    assert after.labelled_ood_idx.tolist() == [1, 5]
    assert after.unlabelled_idx.tolist() == [0]
    assert before.unlabelled_idx.tolist() == [0, 1, 4, 9]
    assert after.unlabelled_idx.dtype == after.labelled_id_idx.dtype == np.int64


def test_moving_nothing_changes_nothing() -> None:
    pool = _pool([0], [], [1])
    nothing = pool.move(np.empty(0, dtype=np.int64), np.empty(0, dtype=bool))
    assert nothing.checksum() == pool.checksum()


@pytest.mark.parametrize(
    ("queried", "message"),
    [
        ([7], "image 7 was queried, but it is not in the unlabelled pool"),
        ([3], "image 3"),
        ([1, 1], "same image twice"),
    ],
)
def test_a_query_outside_the_pool_is_refused(queried: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _pool([3], [], [0, 1]).move(np.array(queried), np.ones(len(queried), dtype=bool))


def test_answers_must_fit_the_query() -> None:
    with pytest.raises(ValueError, match=r"\(2,\) queried indices, but \(1,\) answers"):
        _pool([3], [], [0, 1]).move(np.array([0, 1]), np.array([True]))


@pytest.mark.parametrize("parts", [([2, 1], [], []), ([1, 1], [], []), ([1], [1], []), ([], [4], [3, 4])])
def test_a_pool_is_sorted_distinct_and_disjoint(parts: tuple[list[int], list[int], list[int]]) -> None:
    with pytest.raises(AssertionError):
        _pool(*parts)


def test_checksum_tells_the_sets_apart() -> None:
    pools = [_pool([0], [1], [2]), _pool([0], [2], [1]), _pool([0, 1], [], [2]), _pool([0], [1], [])]
    assert len({pool.checksum() for pool in pools}) == 4
    assert pools[0].checksum() == _pool([0], [1], [2]).checksum()
    # Written out, since records hold it: the length of each set and its indices as 8 little-endian bytes.
    content = b"".join(b"1:" + number.to_bytes(8, "little") for number in (0, 1, 2))
    assert pools[0].checksum() == hashlib.sha256(content).hexdigest()


def test_pool_starts_from_the_split() -> None:
    split = draw_split(np.repeat(np.arange(4), 8), num_classes=4, mismatch_ratio=0.5, ood_ratio=0.2, budget=5, seed=0)
    pool = Pool.from_split(split)
    assert pool.labelled_id_idx is split.initial_id_idx
    assert pool.labelled_ood_idx is split.initial_ood_idx
    assert pool.unlabelled_idx is split.unlabelled_idx
