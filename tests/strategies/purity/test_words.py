"""NegLabel and ZOC by their definition in float64, TANL by a plain loop, Otsu's threshold by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from strategies.purity import words
from strategies.purity.words import candidate_logits, choose_words, group_logits, neglabel, otsu_threshold, tanl, zoc


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


def test_tanl_equals_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "BLOCK_CELLS", 100)
    for seed in range(10):
        images, names, negatives = unit(30, 6, seed=seed), unit(3, 6, seed=seed + 1000), unit(12, 6, seed=seed + 2000)
        known = torch.full((30,), -1)
        known[:3], known[3:6] = 1, 0
        names_A = (10.0 * (images @ names.T)).logsumexp(dim=1)
        start = neglabel(names_A, group_logits(images, negatives, 10.0, 1))
        found = tanl(images, names, negatives, 10.0, start_A=start, known_A=known, num=5)
        x, t, w = (each.double().numpy() for each in (images, names, negatives))
        scores = start.double().numpy()
        for _ in range(2):
            h = otsu_threshold(torch.from_numpy(scores).float())
            sure_id = [i for i in range(30) if known[i] == 1 or (known[i] < 0 and scores[i] > h + (1 - h) / 2)]
            sure_ood = [i for i in range(30) if known[i] == 0 or (known[i] < 0 and scores[i] < h / 2)]
            every = np.exp(10 * x @ np.concatenate([w, t]).T)
            shares = (every / every.sum(axis=1, keepdims=True))[:, :12]
            active = np.argsort(-(shares[sure_ood].mean(axis=0) - shares[sure_id].mean(axis=0)), kind="stable")[:5]
            positive = np.exp(10 * x @ t.T).sum(axis=1)
            scores = np.mean(
                [positive / (positive + np.exp(10 * x @ w[active[: j + 1]].T).sum(axis=1)) for j in range(5)], axis=0
            )
        np.testing.assert_allclose(found.numpy(), scores, rtol=1e-4, atol=1e-6)


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
