"""Log-sums over words by their definition in float64, and from the sums over runs of all words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.words import sums
from models.words.lists import Synset, WordList
from models.words.sums import RunSums, log_sums, sum_kept


def unit(*shape: int, seed: int) -> torch.Tensor:
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_sums_over_runs_by_their_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "BLOCK_CELLS", 60)  # a few images and words at a time
    monkeypatch.setattr(sums, "BLOCK_WORDS", 8)
    for seed, run in enumerate((1, 3, 4, 12, 24)):
        images, words = unit(9, 8, seed=seed), unit(24, 8, seed=seed + 100)
        found = log_sums(images, words, 100.0, run)
        each = np.exp(100 * images.double().numpy() @ words.double().numpy().T).reshape(9, -1, run)
        np.testing.assert_allclose(found.numpy(), np.log(each.sum(axis=2)), atol=2e-5)


def test_kept_words_from_the_sums_of_all_by_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "RUN", 4)
    monkeypatch.setattr(sums, "BLOCK_WORDS", 5)
    for seed in range(50):
        generator = np.random.default_rng(seed)
        num_words = 3 + seed  # fewer than a run, whole runs, and some more
        images, words = unit(11, 8, seed=seed), unit(num_words, 8, seed=seed + 100)
        words[0] = images[0]  # not kept in most problems: it outweighs all others by e^50
        is_kept = generator.random(num_words) < (0.5 if seed % 2 else 0.9)
        is_kept[0], is_kept[-1] = seed % 5 == 0, True
        all_sums = RunSums(images, words, 100.0)
        rows = np.concatenate([all_sums.compute(0, 6), all_sums.compute(6, 11)])
        assert rows.shape == (11, -(-num_words // 4))
        asked: list[int] = []

        def features(places: np.ndarray, words: torch.Tensor = words, asked: list[int] = asked) -> torch.Tensor:
            asked.extend(places.tolist())
            return words[places]

        found = sum_kept(rows, is_kept, images, features, 100.0)
        logits = 100 * images.double().numpy() @ words.double().numpy().T
        expected = np.log(np.exp(logits[:, is_kept]).sum(axis=1))
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=2e-5)
        broken = [run for run in range(len(rows[0])) if not is_kept[4 * run : 4 * run + 4].all()]
        assert asked == [place for place in np.flatnonzero(is_kept) if place // 4 in broken]


def test_kinds_of_a_thing_follow_it_in_tree_order() -> None:
    tree = [("thing", ()), ("animal", (0,)), ("car", (0,)), ("dog", (1,)), ("jeep", (2,)), ("spaniel", (3,))]
    synsets = [Synset(is_noun=True, kind="x", hypernyms=above, lemmas=(word, "Proper")) for word, above in tree]
    soft = Synset(is_noun=False, kind="x", hypernyms=(), lemmas=("soft", "dog"))
    words = WordList(synsets=(*synsets, soft), words=(*(word for word, _ in tree), "soft"), num_nouns=6)
    assert [words.words[place] for place in words.in_tree_order()] == [
        "thing", "animal", "dog", "spaniel", "car", "jeep", "soft",
    ]  # fmt: skip
