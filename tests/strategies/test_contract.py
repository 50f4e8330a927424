"""What every registered strategy must do, whatever it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.imageset import ArrayImages
from models.outputs import ClassifierOutputs
from strategies.base import PoolView, Selection
from strategies.purity import id_and_ood_scores, judged_id, prototypes
from strategies.registry import STRATEGIES, Services, find_strategy
from strategies.scorer import PurityOptions, PurityRequest, PurityScores

NUM_IMAGES, NUM_CLASSES, DIM = 60, 3, 8


class ArrayScorer:
    """A purity scorer on random features; `verdict` overrules the decisions."""

    def __init__(self, verdict: bool | None = None) -> None:
        generator = torch.Generator().manual_seed(7)
        self._features = torch.nn.functional.normalize(torch.randn(NUM_IMAGES, DIM, generator=generator), dim=1)
        self._texts = torch.nn.functional.normalize(torch.randn(2, NUM_CLASSES, DIM, generator=generator), dim=2)
        self._verdict = verdict

    def score(self, request: PurityRequest) -> PurityScores:
        features = self._features[torch.from_numpy(request.unlabelled_idx)]
        means, known = prototypes(
            self._features[torch.from_numpy(request.labelled_id_idx)],
            torch.from_numpy(request.labelled_id_labels),
            NUM_CLASSES,
        )
        ood_id = id_and_ood_scores(
            features @ self._texts[0].T,
            features @ self._texts[1].T,
            10.0,
            similarity_NK=features @ means.T,
            has_prototype_K=known,
        )
        is_id = judged_id(*ood_id) if self._verdict is None else torch.full((len(features),), self._verdict)
        return PurityScores(
            id_scores=ood_id[0].numpy(),
            ood_scores=ood_id[1].numpy(),
            is_id=is_id.numpy(),
            logit_scale=10.0,
            is_tuned=False,
            labelled_accuracy=None,
        )


def make_view(*, num_ood: int = 5, labels: tuple[int, ...] = (0, 1, 2, 0, 1, 2), constant: bool = False) -> PoolView:
    """A pool whose labelled ID images have the given labels."""
    rng = np.random.default_rng(3)
    order = rng.permutation(NUM_IMAGES)
    parts = np.split(order, [len(labels), len(labels) + num_ood])
    labelled_id, labelled_ood, unlabelled = (np.sort(part).astype(np.int64) for part in parts)
    logits = rng.normal(size=(len(unlabelled), NUM_CLASSES)).astype(np.float32)
    features = rng.normal(size=(len(unlabelled), DIM)).astype(np.float32)
    if constant:
        logits[:], features[:] = 0.0, 0.0
    outputs = ClassifierOutputs(logits_NK=logits, features_ND=features)
    return PoolView(
        images=ArrayImages(rng.integers(0, 256, size=(NUM_IMAGES, 8, 8, 3), dtype=np.uint8)),
        data_fingerprint="0" * 64,
        class_names=("a", "b", "c"),
        labelled_id_idx=labelled_id,
        labelled_id_labels=np.array(labels, dtype=np.int64),
        labelled_ood_idx=labelled_ood,
        unlabelled_idx=unlabelled,
        compute_outputs=lambda: outputs,
    )


def select(name: str, view: PoolView, budget: int, *, seed: int = 0, verdict: bool | None = None) -> Selection:
    strategy = find_strategy(name).build(Services(scorer=ArrayScorer(verdict), purity=PurityOptions()))
    return strategy.select(view, budget, np.random.default_rng(seed))


@pytest.fixture(params=sorted(STRATEGIES))
def name(request: pytest.FixtureRequest) -> str:
    """Each registered strategy."""
    strategy: str = request.param
    return strategy


def check(selection: Selection, view: PoolView, count: int) -> None:
    assert selection.idx.dtype == np.int64
    assert selection.idx.shape == selection.scores.shape == (count,)
    assert len(set(selection.idx.tolist())) == count
    assert set(selection.idx.tolist()) <= set(view.unlabelled_idx.tolist())
    assert np.isfinite(selection.scores).all()
    for reason in selection.reasons.values():
        assert reason.shape == (count,)
        assert np.isfinite(reason).all()


@pytest.mark.parametrize("budget", [1, 7, 49, 1000])
def test_right_count_distinct_and_inside_the_pool(name: str, budget: int) -> None:
    view = make_view()
    check(select(name, view, budget), view, min(budget, len(view.unlabelled_idx)))


def test_equal_arguments_give_equal_answers(name: str) -> None:
    first, second = (select(name, make_view(), 9) for _ in range(2))
    np.testing.assert_array_equal(first.idx, second.idx)
    np.testing.assert_array_equal(first.scores, second.scores)


def test_a_class_without_labels(name: str) -> None:
    view = make_view(labels=(0, 0, 1))
    check(select(name, view, 9), view, 9)


def test_no_labelled_ood(name: str) -> None:
    view = make_view(num_ood=0)
    check(select(name, view, 9), view, 9)


@pytest.mark.parametrize("verdict", [False, True])
def test_nothing_or_everything_predicted_id(name: str, verdict: bool) -> None:
    view = make_view()
    check(select(name, view, 9, verdict=verdict), view, 9)


def test_ties_go_to_the_lowest_index(name: str) -> None:
    if name == "random":
        pytest.skip("RANDOM ranks by nothing")
    view = make_view(constant=True)
    picked = select(name, view, 9, verdict=True).idx
    np.testing.assert_array_equal(picked, view.unlabelled_idx[:9])


def test_a_pool_of_one(name: str) -> None:
    view = make_view()
    view = view.restricted_to(np.arange(len(view.unlabelled_idx)) == 4)
    check(select(name, view, 9), view, 1)


def test_outputs_that_are_not_finite_are_named(name: str) -> None:
    if name == "random":
        pytest.skip("RANDOM looks at no output")
    view = make_view()
    view.compute_outputs().logits_NK[2, 0] = np.nan
    with pytest.raises(ArithmeticError, match=rf"index {view.unlabelled_idx[2]}\b"):
        select(name, view, 9, verdict=True)


def test_random_is_uniform() -> None:
    view = make_view()
    counts = np.zeros(NUM_IMAGES)
    for seed in range(2000):
        counts[select("random", view, 7, seed=seed).idx] += 1
    expected = 2000 * 7 / len(view.unlabelled_idx)
    assert counts[view.unlabelled_idx].sum() == 14_000
    assert np.abs(counts[view.unlabelled_idx] / expected - 1).max() < 0.25  # four standard deviations


def test_an_unknown_strategy_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown strategy 'vlpur' \(did you mean 'vlpure'\?\)"):
        find_strategy("vlpur")
