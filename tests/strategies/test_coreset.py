"""Greedy k-center against the reference's orders (tests/golden/strategies/README.md), and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from strategies.check import toy_view
from strategies.coreset import balanced_quotas
from strategies.numeric import kcenter
from strategies.numeric.kcenter import first_maximum, kcenter_greedy, nearest_squared
from tests.strategies.views import select

GOLDEN = Path(__file__).parents[1] / "golden" / "strategies"


@pytest.mark.parametrize("name", ["coreset_relu", "coreset_outliers"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block", [3, 1024])
def test_golden_order(name: str, dtype: torch.dtype, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kcenter, "BLOCK", block)
    golden = np.load(GOLDEN / f"{name}.npz")
    labelled, pool = (torch.from_numpy(golden[part]).to(dtype) for part in ("labeled", "pool"))
    picks, squared = kcenter_greedy(labelled, pool, int(golden["n_query"]))
    np.testing.assert_array_equal(picks.numpy(), golden["selected"])
    np.testing.assert_allclose(squared.double().sqrt().numpy(), golden["pick_distance"], rtol=1e-4)
    radius = nearest_squared(pool, torch.cat([labelled, pool[picks]])).max().double().sqrt()
    assert radius.item() == pytest.approx(float(golden["cover_radius"]), rel=1e-4)


def test_golden_ties() -> None:
    golden = np.load(GOLDEN / "coreset_ties.npz")
    labelled, pool = (torch.from_numpy(golden[part]).float() for part in ("labeled", "pool"))
    picks, _ = kcenter_greedy(labelled, pool, int(golden["n_query"]))
    np.testing.assert_array_equal(picks.numpy(), golden["selected_exact_first_max"])


def test_equal_points_are_picked_once_each() -> None:
    picks, _ = kcenter_greedy(torch.ones(1, 2), torch.ones(5, 2) / 3, 9)
    assert picks.tolist() == [0, 1, 2, 3, 4]


def test_without_a_centre_the_first_point_comes_first() -> None:
    picks, squared = kcenter_greedy(torch.empty(0, 1), torch.tensor([[1.0], [3.0], [2.5]]), 3)
    assert picks.tolist() == [0, 1, 2]
    assert squared.tolist() == [float("inf"), 4.0, 0.25]


def test_the_first_of_equal_maxima() -> None:
    values = torch.zeros(100_000)
    values[[40_000, 70_000]] = 1.0
    assert first_maximum(values).item() == 40_000


class Watch(TorchDispatchMode):
    """Counts values read back to the host; on a GPU each waits for all that was queued before."""

    reads = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_no_pick_is_waited_for() -> None:
    labelled, pool = torch.ones(2, 3), torch.arange(30.0).reshape(10, 3)
    with Watch() as watch:
        pool[pool.argmax() // 3]  # what a scalar tensor as an index costs
        assert watch.reads == 1
        kcenter_greedy(labelled, pool, 5)
    assert watch.reads == 1


def test_quotas_even_out_the_classes() -> None:
    # 5, 1 and 0 labelled: eight more make 6, 6 and 2, since the third class has only two images.
    assert balanced_quotas(np.array([5, 1, 0]), np.array([10, 10, 2]), 8).tolist() == [1, 5, 2]
    assert balanced_quotas(np.array([0, 0]), np.array([1, 1]), 9).tolist() == [1, 1]


def test_picks_are_far_apart_in_the_classifiers_features() -> None:
    view = toy_view()
    selection = select("coreset", view, 5)
    pool = torch.tensor(view.outputs().features_ND)
    labelled = torch.tensor(view.labelled_outputs().features_ND)
    picks, _ = kcenter_greedy(labelled, pool, 5)
    assert selection.idx.tolist() == view.unlabelled_idx[picks.numpy()].tolist()


def test_the_balanced_form_takes_its_quota_of_each_predicted_class() -> None:
    view = toy_view(labels=(0, 0, 0, 0, 1, 2))
    selection = select("coreset-balanced", view, 9)
    predicted = view.outputs().logits_NK.argmax(axis=1)
    of = predicted[np.searchsorted(view.unlabelled_idx, selection.idx)]
    expected = balanced_quotas(np.array([4, 1, 1]), np.bincount(predicted, minlength=3), 9)
    assert np.bincount(of, minlength=3).tolist() == expected.tolist()
