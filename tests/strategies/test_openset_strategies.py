"""LfOSA, EOAL, MQNet and CCAL as strategies: labels that are missing, detectors that learn, memories that last."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from data.imageset import ArrayImages
from models.classifier.workshop import Workshop
from strategies.base import PoolView
from strategies.check import NUM_IMAGES, RECIPE, toy_view
from strategies.eoal import Eoal
from strategies.lfosa import FILL, Lfosa, known_log_odds
from strategies.mqnet import Mqnet, highest_cosine
from strategies.options import EoalOptions, LfosaOptions, MqnetOptions
from tests.strategies.views import select

OPENSET = ("lfosa", "eoal", "mqnet", "mqnet-conf", "ccal")


@pytest.mark.parametrize("name", OPENSET)
@pytest.mark.parametrize(("num_ood", "labels"), [(1, (0, 1, 2)), (2, (0, 0, 1, 1, 2)), (0, (0,)), (12, (1, 2))])
def test_few_labels_of_a_kind(name: str, num_ood: int, labels: tuple[int, ...]) -> None:
    view = toy_view(num_ood=num_ood, labels=labels)
    idx = select(name, view, 9).idx
    assert len(set(idx.tolist())) == 9
    assert set(idx.tolist()) <= set(view.unlabelled_idx.tolist())


@pytest.mark.parametrize("name", ["lfosa", "eoal"])
def test_batches_of_one_kind_only_do_no_harm(name: str) -> None:
    """With 30 labelled OOD and 3 ID images and small batches, most batches hold no ID image."""
    view = toy_view(num_ood=30, labels=(0, 1, 2))
    assert np.isfinite(select(name, view, 5).scores).all()


def separable() -> PoolView:
    """ID classes are red, green and blue; OOD images are dark. A third of the images is labelled."""
    rng = np.random.default_rng(0)
    kinds = np.arange(NUM_IMAGES) % 4  # 3: OOD
    pixels = rng.integers(0, 50, size=(NUM_IMAGES, 8, 8, 3), dtype=np.uint8)
    for label in range(3):
        pixels[kinds == label, :, :, label] += 180
    view = toy_view()
    labelled = np.arange(20)
    is_id = kinds[labelled] < 3
    images = ArrayImages(pixels)
    workshop: Workshop = replace(view.workshop, images=images, recipe=RECIPE.model_copy(update={"width": 4}))
    return replace(
        view,
        images=images,
        workshop=workshop,
        labelled_id_idx=labelled[is_id],
        labelled_id_labels=kinds[labelled][is_id].astype(np.int64),
        labelled_ood_idx=labelled[~is_id],
        unlabelled_idx=np.arange(20, NUM_IMAGES),
    )


@pytest.mark.parametrize("name", ["lfosa", "eoal"])
def test_a_detector_that_learns_finds_the_id_images(name: str) -> None:
    view = separable()
    settings = {"epochs": 40, "batch_size": 10, "learning_rate": 0.05, "rotation": 0.0}
    strategy = Lfosa(LfosaOptions(**settings)) if name == "lfosa" else Eoal(EoalOptions(**settings))
    selection = strategy.select(view, 20, np.random.default_rng(0))
    assert (selection.idx % 4 < 3).mean() >= 0.95
    assert selection.judged_id_idx is not None
    judged = np.isin(view.unlabelled_idx, selection.judged_id_idx)
    assert (judged == (view.unlabelled_idx % 4 < 3)).mean() >= 0.9
    again = strategy.select(separable(), 20, np.random.default_rng(1))
    np.testing.assert_array_equal(again.idx, selection.idx)


def test_lfosa_fills_up_behind_what_it_is_sure_of() -> None:
    logits = np.array([[5.0, 0, 0], [3.0, 0, 0], [0, 4.0, 0], [0, 0, 2.0]])  # two of class 0, one of 1, one unknown
    log_odds = known_log_odds(logits, 2)
    assert np.isfinite(log_odds[:2]).all()
    assert np.isnan(log_odds[2:]).all()
    assert FILL > 1e5


def test_eoal_without_ood_has_no_unknown_entropy() -> None:
    view = toy_view(num_ood=0)
    selection = select("eoal", view, 5)
    assert selection.diagnostics["num_ood_clusters"] == 0
    assert (selection.scores > 0).all()  # an entropy in units of ln 2, from which nothing is taken
    assert (selection.scores <= 1).all()


def mqnet(view: PoolView, **options: object) -> Mqnet:
    features = np.random.default_rng(4).normal(size=(NUM_IMAGES, 8)).astype(np.float32)
    return Mqnet(lambda: features, MqnetOptions(**{"epochs": 3, "target_passes": 2} | options))


@pytest.mark.parametrize("passes", [2, None])
def test_mqnet_learns_from_its_answers_and_remembers(passes: int | None) -> None:
    view = toy_view()
    strategy = mqnet(view, target_passes=passes)
    first = strategy.select(view, 12, np.random.default_rng(0))
    answers = np.array([0, 1, 2, 3] * 3)
    memory = strategy.learn(view, first, answers, np.random.default_rng(1))
    again = strategy.learn(view, first, answers, np.random.default_rng(1))
    assert {name: list(values) for name, values in memory.items()} == {name: list(v) for name, v in again.items()}
    assert all(isinstance(value, float) for values in memory.values() for value in values)
    later = replace(view, memory=memory)
    second = strategy.select(later, 12, np.random.default_rng(0))
    other = strategy.learn(view, first, np.full(12, 3), np.random.default_rng(1))
    assert not np.array_equal(list(other["inner"]), list(memory["inner"]))
    assert second.scores.tolist() != first.scores.tolist()


def test_mqnets_first_query_adds_both_scores() -> None:
    view = toy_view()
    selection = mqnet(view).select(view, 49, np.random.default_rng(0))
    features = np.random.default_rng(4).normal(size=(NUM_IMAGES, 8)).astype(np.float32)
    purity = highest_cosine(features[view.unlabelled_idx], features[view.labelled_id_idx])
    losses = view.outputs().predicted_losses_N
    assert losses is not None
    summed = sum(np.exp((values - values.mean()) / values.std()) for values in (losses.astype(np.float64), purity))
    np.testing.assert_allclose(selection.scores, summed[np.searchsorted(view.unlabelled_idx, selection.idx)])
    assert selection.idx[0] == view.unlabelled_idx[summed.argmax()]


def test_the_workshop_repeats_itself_and_names_its_streams() -> None:
    shop = toy_view().workshop
    idx = np.array([3, 1, 4])
    first, again = (shop.augmented_logits(idx, 3, "a") for _ in range(2))
    assert first.shape == (3, 3, 3)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, shop.augmented_logits(idx, 3, "another"))
    small = replace(shop, recipe=RECIPE.model_copy(update={"eval_batch_size": 2}))
    np.testing.assert_array_equal(first, small.augmented_logits(idx, 3, "a"))
    networks = [shop.new_network(4, RECIPE, name).state_dict() for name in ("a", "a", "other")]
    assert torch.equal(networks[0]["head.weight"], networks[1]["head.weight"])
    assert not torch.equal(networks[0]["head.weight"], networks[2]["head.weight"])


def test_ccal_without_a_labelled_id_image_says_so() -> None:
    with pytest.raises(ValueError, match="CCAL needs a labelled ID image"):
        select("ccal", toy_view(labels=()), 3)
