"""NegLabel and ZOC by their definition in float64, TANL by a plain loop, Otsu's threshold by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from strategies.purity import words
from strategies.purity.words import (
    candidate_logits,
    choose_words,
    group_logits,
    neglabel,
    otsu_threshold,
    spread,
    tanl,
    zoc,
)

Array = NDArray[np.float64]


def unit(*shape: int, seed: int) -> torch.Tensor:
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_neglabel_by_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "BLOCK_CELLS", 90)  # a few images at a time
    for seed in range(50):
        num_classes, num_words, groups = 1 + seed % 6, 20 + seed, 1 + seed % 7
        images, names, negatives = (
            unit(11, 8, seed=seed),
            unit(num_classes, 8, seed=seed + 1000),
            unit(num_words, 8, seed=seed + 2000),
        )
        names_A = (20.0 * (images @ names.T)).logsumexp(dim=1)
        found = neglabel(names_A, group_logits(images, negatives, 20.0, groups))
        size = num_words // groups
        order = torch.randperm(groups * size, generator=torch.Generator().manual_seed(0)).numpy()
        x, t, w = (each.double().numpy() for each in (images, names, negatives))
        positive = np.exp(20 * x @ t.T).sum(axis=1)
        shares = [
            positive / (positive + np.exp(20 * x @ w[order[g * size : (g + 1) * size]].T).sum(axis=1))
            for g in range(groups)
        ]
        np.testing.assert_allclose(found.numpy(), np.mean(shares, axis=0), rtol=2e-5, atol=1e-6)


def test_the_words_least_like_the_classes_are_kept_of_each_kind() -> None:
    names = torch.eye(3)[:2]
    # Likeness to the nearer name is about 0.95 of the larger cosine and 0.05 of the smaller one.
    candidates = torch.tensor([[0.9, 0.1], [0.1, 0.1], [0.5, 0.5], [0.0, 0.3], [0.8, 0.8], [0.2, 0.0]])
    candidates = torch.cat([candidates, torch.zeros(6, 1)], dim=1)
    is_noun = torch.tensor([True, True, True, True, False, False])
    assert choose_words(candidates, names, is_noun, 0.5).tolist() == [1, 3, 5]
    assert choose_words(candidates, names, is_noun, 1.0).tolist() == [1, 3, 2, 0, 5, 4]
    assert choose_words(candidates[:4], names, is_noun[:4], 0.01).tolist() == [1]


def test_what_fills_no_group_is_dropped_from_the_end() -> None:
    """Five words and two groups: the last word, which is the image itself, is in none."""
    image = torch.tensor([[1.0, 0.0]])
    negatives = torch.tensor([[0.0, 1.0]] * 4 + [[1.0, 0.0]])
    np.testing.assert_allclose(group_logits(image, negatives, 10.0, 2).numpy(), [[np.log(2)] * 2], rtol=1e-6)


def test_otsus_threshold_parts_two_heaps_in_the_middle() -> None:
    # Every threshold from 0.26 to 0.75 makes the same parts; of these fifty the 26th.
    assert otsu_threshold(torch.tensor([0.105, 0.255, 0.755, 0.905])) == pytest.approx(0.51)
    assert otsu_threshold(torch.tensor([0.305, 0.315, 0.325, 0.905])) == pytest.approx(0.62)


def plain_tanl(
    images: Array, names: Array, negatives: Array, start: Array, known: Array, groups: Array, most: int
) -> Array:
    """TANL's scores for the 5 most active words, in float64; `most` sure images of either kind screen 10 of them."""
    positive, every = np.exp(10 * images @ names.T).sum(axis=1), np.exp(10 * images @ negatives.T)
    shares = np.minimum(1, every / (positive + every[:, groups].sum(axis=1))[:, None])
    scores = start
    for _ in range(2):
        h = otsu_threshold(torch.from_numpy(scores).float())
        sure = [
            [i for i in range(len(known)) if known[i] == 0 or (known[i] < 0 and scores[i] < h / 2)],
            [i for i in range(len(known)) if known[i] == 1 or (known[i] < 0 and scores[i] > (1 + h) / 2)],
        ]
        some = [
            [each[math.floor(j * len(each) / most)] for j in range(most)] if len(each) > most else each for each in sure
        ]
        likely = np.argsort(-(mean(shares, some[0]) - mean(shares, some[1])), kind="stable")[:10]
        active = sorted(sorted(likely), key=lambda w: -(mean(shares, sure[0]) - mean(shares, sure[1]))[w])[:5]
        scores = np.mean([positive / (positive + every[:, active[: j + 1]].sum(axis=1)) for j in range(5)], axis=0)
    return np.asarray(scores)


def mean(shares: Array, places: list[int]) -> Array:
    return np.asarray(shares[places].mean(axis=0)) if places else np.zeros(shares.shape[1])


@pytest.mark.parametrize("sure_images", [None, 3])
@pytest.mark.parametrize("groups", [1, 7])
def test_tanl_equals_a_plain_loop(monkeypatch: pytest.MonkeyPatch, sure_images: int | None, groups: int) -> None:
    monkeypatch.setattr(words, "BLOCK_IMAGES", 7)
    monkeypatch.setattr(words, "BLOCK_WORDS", 9)
    for seed in range(10):
        images, names, negatives = unit(40, 6, seed=seed), unit(3, 6, seed=seed + 1000), unit(30, 6, seed=seed + 2000)
        known = torch.full((40,), -1)
        known[:4], known[4:9] = 1, 0
        names_A = (10.0 * (images @ names.T)).logsumexp(dim=1)
        groups_AG = group_logits(images, negatives, 10.0, groups)
        found = tanl(
            images, negatives, 10.0,
            names_A=names_A, groups_AG=groups_AG, known_A=known, num=5, sure_images=sure_images,
        )  # fmt: skip
        # With 7 groups of 4 words, the last two of the 30 are in none; they can be chosen all the same.
        in_groups = np.arange(30 // groups * groups)
        x, t, w = (each.double().numpy() for each in (images, names, negatives))
        start = neglabel(names_A, groups_AG).double().numpy()
        expected = plain_tanl(x, t, w, start, known.numpy(), in_groups, most=sure_images or 40)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_tanl_screens_words_on_few_sure_images_and_weighs_them_by_all() -> None:
    """Eight OOD images like word 0, one, which is among the screened, like word 1; word 2 is like nothing."""
    axes = torch.eye(4)
    images = torch.stack([axes[2], axes[1], *[axes[0]] * 8])
    known = torch.tensor([1, *[0] * 9])
    names_A, groups_AG = 10.0 * images[:, 2], (10.0 * images @ axes[[0, 1, 3]].T).logsumexp(dim=1)[:, None]
    options = {"names_A": names_A, "groups_AG": groups_AG, "known_A": known, "num": 1}
    for sure_images in (1, 2, None):
        # The word that 8 of 9 activate is second on the first OOD image alone, and first on all.
        found = tanl(images, axes[[0, 1, 3]], 10.0, **options, sure_images=sure_images)
        odds = np.exp(10.0 * images.numpy() @ axes[0].numpy() - names_A.numpy())
        np.testing.assert_allclose(found.numpy(), 1 / (1 + odds), rtol=1e-5)


def test_places_are_spread_from_the_first_on() -> None:
    places = torch.arange(10, 110, 10)
    assert spread(places, 4).tolist() == [10, 30, 60, 80]
    assert spread(places, 10).tolist() == spread(places, None).tolist() == places.tolist()


def test_far_words_leave_nothing_of_a_share_and_near_names_all() -> None:
    """Odds of exp(200) are infinite in float32, the share is 0 then and no NaN."""
    images = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    names_A, word = torch.tensor([-100.0, 100.0]), torch.tensor([[1.0, 0.0]])
    logits_A1 = 100.0 * images @ word.T
    options = {"names_A": names_A, "groups_AG": logits_A1, "known_A": torch.tensor([0, 1]), "num": 1}
    assert tanl(images, word, 100.0, **options, sure_images=None).tolist() == [0.0, 1.0]


def test_zoc_by_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "BLOCK_CELLS", 90)
    for seed in range(50):
        generator = np.random.default_rng(seed)
        num_classes, num_words = 1 + seed % 6, 20 + seed
        images, names, texts = (
            unit(11, 8, seed=seed),
            unit(num_classes, 8, seed=seed + 1000),
            unit(num_words, 8, seed=seed + 2000),
        )
        places = np.stack([generator.permutation(num_words)[:7] for _ in range(11)])
        places[3, 4:] = -1  # an image with fewer words than the others
        dropped = generator.random(num_words) < 0.3
        dropped[places[5]] = True  # and one without any
        is_candidate = (places >= 0) & ~dropped[places]
        logits = candidate_logits(images, texts, torch.from_numpy(places), 20.0)
        names_A = (20.0 * (images @ names.T)).logsumexp(dim=1)
        found = zoc(names_A, logits, torch.from_numpy(is_candidate))
        x, t, w = (each.double().numpy() for each in (images, names, texts))
        expected = []
        for image in range(11):
            own = [word for word in places[image] if word >= 0 and not dropped[word]]
            positive, negative = np.exp(20 * t @ x[image]).sum(), np.exp(20 * w[own] @ x[image]).sum()
            expected.append(positive / (positive + negative))
        assert expected[5] == 1.0
        np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5, atol=1e-6)
