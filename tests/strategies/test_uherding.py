"""UHerding's lazy greedy against the plain one, its kernel by hand, and what it weighs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from strategies.check import toy_view
from strategies.numeric.herding import coverage, gains, herd, kernel_width, nearest_distinct
from strategies.options import UHerdingOptions
from strategies.uherding import UHerding


def on_circle(*degrees: float) -> torch.Tensor:
    """Unit rows (n, 2) at these angles."""
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angles.cos(), angles.sin()], dim=1).float()


def chord(degrees: float) -> float:
    """Distance of two unit points that are so many degrees apart."""
    return float(2 * np.sin(np.deg2rad(degrees) / 2))


def test_the_width_is_the_first_percentile_of_nearest_distances() -> None:
    points = on_circle(0, 10, 30, 30, 90)
    wanted = [chord(10), chord(10), chord(20), chord(20), chord(60)]
    np.testing.assert_allclose(nearest_distinct(points), wanted, rtol=1e-5)
    assert kernel_width(points) == pytest.approx(chord(10), rel=1e-5)
    assert kernel_width(on_circle(0, 10, 30)) == pytest.approx(chord(10), rel=1e-5)
    assert kernel_width(on_circle(0, 60, 70)) == pytest.approx(chord(10), rel=1e-5)
    # Of 201 nearest distances the third smallest is the 1st percentile: a pair of near-duplicates does not decide.
    many = on_circle(0, 0.2, *[float(each) for each in np.arange(1, 200) * 1.5 + 10])
    assert kernel_width(many) == pytest.approx(chord(1.5), rel=1e-3)


@pytest.mark.parametrize("degrees", [(), (40.0,), (40.0, 40.0)])
def test_without_two_distinct_labels_the_width_is_one(degrees: tuple[float, ...]) -> None:
    assert kernel_width(on_circle(*degrees)) == 1.0


def test_coverage_and_gains_by_hand() -> None:
    points, width = on_circle(0, 60, 180), 2.0
    near, far, mid = np.exp(-0.25), np.exp(-1.0), np.exp(-0.75)  # chords 1, 2 and sqrt 3, in halves, squared
    np.testing.assert_allclose(coverage(points, points[:0], width), [0, 0, 0])
    np.testing.assert_allclose(coverage(points, points[:1], width), [1, near, far], rtol=1e-6)
    np.testing.assert_allclose(coverage(points, points[:2], width), [1, 1, mid], rtol=1e-6)
    weights, covered = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, float(near), float(far)])
    wanted = [0, 2 * (1 - near) + 4 * (mid - far), 2 * max(0, mid - near) + 4 * (1 - far)]
    np.testing.assert_allclose(gains(points, points, weights, covered, width), wanted, atol=1e-5)


def plain_greedy(points: np.ndarray, weights: np.ndarray, covered: np.ndarray, width: float, count: int) -> list[int]:
    """The same by one matrix of all kernels, in float64."""
    kernel = np.exp((2 * points @ points.T - 2) / width**2)
    picks: list[int] = []
    for _ in range(count):
        gain = (np.maximum(kernel - covered, 0) * weights).sum(axis=1)
        gain[picks] = -1
        picks.append(int(gain.argmax()))
        covered = np.maximum(covered, kernel[picks[-1]])
    return picks


@pytest.mark.parametrize(("width", "seed"), [(1.0, 0), (0.5, 1), (0.2, 2), (1.5, 3)])
def test_lazy_greedy_is_greedy(width: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(200, 8))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    weights, covered = rng.random(200).astype(np.float32), (rng.random(200) / 2).astype(np.float32)
    picks, added = herd(torch.from_numpy(points), torch.from_numpy(weights), torch.from_numpy(covered), width, 60)
    wanted = plain_greedy(*(part.astype(np.float64) for part in (points, weights, covered)), width, 60)
    assert picks.tolist() == wanted
    assert (added.diff() <= 1e-6).all()


def test_only_few_gains_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2000, 8))
    points = torch.from_numpy((points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32))
    rows: list[int] = []

    def counted(of_BD: torch.Tensor, *rest: object) -> torch.Tensor:
        rows.append(len(of_BD))
        return gains(of_BD, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("strategies.numeric.herding.gains", counted)
    herd(points, torch.ones(2000), torch.zeros(2000), 0.5, 50)
    assert rows[0] == 2000
    assert sum(rows[1:]) < 50 * 2000 / 5
    # In a covered pool nothing is left to add, and nothing is computed again.
    rows.clear()
    herd(points, torch.ones(2000), torch.ones(2000), 0.5, 50)
    assert rows == [2000]


def test_a_copy_of_a_covered_point_adds_nothing() -> None:
    """In float32 the kernel of equal rows rounds above 1 less coverage by up to 1e-7 each, which sums up to noise."""
    row = torch.nn.functional.normalize(torch.randn(1, 512, generator=torch.Generator().manual_seed(1)), dim=1)
    points = row.repeat(3000, 1)
    _, added = herd(points, torch.ones(3000), torch.full((3000,), 1 - 2e-7), 0.1, 2)
    assert added.tolist() == [0.0, 0.0]


def test_a_narrow_kernel_is_one_at_its_own_point() -> None:
    """Thirty points far apart at a width of 0.001: each covers itself alone, so the pick is the largest weight left."""
    points = torch.nn.functional.normalize(torch.randn(30, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    assert ((points @ points.T).diagonal() < 1).any()  # rounding, which is a kernel of 0.8
    weights = torch.linspace(1, 1.29, 30)
    picks, added = herd(points, weights, torch.zeros(30), 0.001, 30)
    assert picks.tolist() == list(range(29, -1, -1))
    np.testing.assert_allclose(added.numpy(), weights.flip(0).numpy(), rtol=1e-5)


def test_equal_points_in_order_and_the_covered_last() -> None:
    points = on_circle(0, 0, 90, 90, 180, 200)
    covered = coverage(points, on_circle(0), 0.5)
    picks, added = herd(points, torch.ones(6), covered, 0.5, 10)
    assert picks.tolist() == [2, 4, 5, 0, 1, 3]
    assert added[3:].tolist() == [0, 0, 0]


def test_what_is_weighed_and_what_covers() -> None:
    view = toy_view(num_ood=1)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[view.labelled_ood_idx[0]] = rows[view.unlabelled_idx[7]]  # the OOD image covers this one alone

    def added(weighted: bool, **options: object) -> np.ndarray:
        strategy = UHerding(lambda idx: rows[idx], UHerdingOptions(**options), weighted=weighted)
        selection = strategy.select(view, 60, np.random.default_rng(0))
        assert selection.diagnostics["kernel_width"] == pytest.approx(
            kernel_width(torch.from_numpy(rows[np.concatenate([view.labelled_id_idx, view.labelled_ood_idx])]))
            if options.get("cover_ood", True)
            else kernel_width(torch.from_numpy(rows[view.labelled_id_idx]))
        )
        return selection.scores[selection.idx == view.unlabelled_idx[7]]

    assert added(False)[0] == 0
    assert added(False, cover_ood=False)[0] > 0
    assert added(True)[0] == 0
    sums = {
        measure: added(True, cover_ood=False, uncertainty=measure)[0] for measure in ("margin", "entropy", "confidence")
    }
    assert len(set(sums.values())) == 3
