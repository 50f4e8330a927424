"""TypiClust by hand: which image of a cluster is typical, whose turn it is, and small, equal or missing points."""

from __future__ import annotations

import numpy as np
import pytest

from strategies.typiclust import BLOCK, round_the_clusters, typical_points, typicalities


def on_circle(*degrees: float) -> np.ndarray:
    """Unit rows (n, 2) at these angles."""
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.mark.parametrize("block", [BLOCK, 2, 1])
def test_typicality_is_one_over_the_mean_distance_within_the_cluster(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three points at 0, 60 and 180 degrees have chords 1, sqrt 3 and 2; the point at 61 is of another cluster.

    In small blocks a point must be told from its neighbours by its place in the cluster, not in the block.
    """
    monkeypatch.setattr("strategies.typiclust.BLOCK", block)
    points = np.stack([np.cos(np.deg2rad([0, 60, 180, 61])), np.sin(np.deg2rad([0, 60, 180, 61]))], axis=1)
    wanted = [2 / (1 + 2), 2 / (1 + 3**0.5), 2 / (2 + 3**0.5), 0.0]
    np.testing.assert_allclose(typicalities(points, np.array([7, 7, 7, 2])), wanted, rtol=1e-9)


def test_only_the_nearest_twenty_count_and_blocks_do_not_show() -> None:
    """Of 1,030 members 1,009 are equal; a member far away has distance sqrt 2 to its nearest twenty."""
    points = np.zeros((BLOCK + 6, 2))
    points[:, 0] = 1.0
    points[-21:] = [0.0, 1.0]
    typicality = typicalities(points, np.zeros(len(points), dtype=np.int64))
    np.testing.assert_allclose(typicality[:-21], 1e5)
    np.testing.assert_allclose(typicality[-21:], 1e5)
    typicality = typicalities(points[:-20], np.zeros(len(points) - 20, dtype=np.int64))
    np.testing.assert_allclose(typicality[-1], 2**-0.5)


def test_clusters_take_turns_fewest_labels_first_then_the_largest() -> None:
    """Clusters 0 (7 points, 1 labelled), 1 (6, none), 2 (8, none) and 3 (2, none; small, so last)."""
    clusters = np.repeat([0, 1, 2, 3], [7, 6, 8, 2])
    typicality = np.array([9, 1, 2, 8, 3, 3, 3, 4, 4, 6, 4, 4, 4, 1, 1, 1, 1, 1, 5, 1, 2, 50, 60], dtype=np.float64)
    labelled = np.zeros(23, dtype=bool)
    labelled[0] = True
    picks = round_the_clusters(clusters, typicality, labelled, 23)
    assert picks.tolist() == [18, 9, 3, 20, 7, 4, 13, 8, 5, 14, 10, 6, 15, 11, 2, 16, 12, 1, 17, 19, 22, 21]
    assert round_the_clusters(clusters, typicality, labelled, 4).tolist() == [18, 9, 3, 20]
    # Exhausted clusters are left out; a number of a cluster says nothing.
    labelled[7:13] = True
    assert round_the_clusters(clusters * 5, typicality, labelled, 3).tolist() == [18, 3, 20]


def test_without_labels_each_cluster_gives_its_middle() -> None:
    """Three arcs of 7, 8 and 9 points; the nearest six neighbours are nearest to the middle of the smallest arc."""
    arcs = [np.linspace(start - half, start + half, num) for start, half, num in ((0, 3, 7), (120, 4, 9), (240, 5, 8))]
    arcs[2] = np.concatenate([[240.0], arcs[2][[0, 1, 2, 3, 4, 5, 6]]])  # the middle of the last one stands first
    points = on_circle(*np.concatenate(arcs))
    picks, typicality = typical_points(points, 0, 3, np.random.default_rng(0))
    assert picks.tolist() == [11, 16, 3]
    assert (np.diff(typicality) != 0).all()


def test_a_labelled_cluster_waits() -> None:
    """Of three arcs the largest, at 0 degrees, has both labels: the next largest, at 120 degrees, is asked first."""
    points = on_circle(0, 1, *np.linspace(-4, 4, 8), *np.linspace(117, 123, 7), *np.linspace(237, 243, 6))
    picks, _ = typical_points(points, 2, 1, np.random.default_rng(0))
    assert picks.tolist() == [13]


@pytest.mark.parametrize(("num_labelled", "count", "due"), [(0, 40, 12), (12, 3, 0), (11, 3, 1), (3, 0, 0)])
def test_few_points(num_labelled: int, count: int, due: int) -> None:
    points = on_circle(*range(12))
    picks, typicality = typical_points(points, num_labelled, count, np.random.default_rng(0))
    assert len(picks) == len(typicality) == due
    assert set(picks.tolist()) <= set(range(num_labelled, 12))
    assert len(set(picks.tolist())) == due
