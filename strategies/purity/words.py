"""Words beside the class names as detectors: NegLabel, its transductive successor TANL, and ZOC.

Shapes: A images, K ID classes, W candidate words, M words kept, G groups of them, U words of all images, D embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.words.sums import log_sums

SHARE_OF_CLASSES = 0.95
"""A word's similarity to the classes is this quantile over them, so that one synonym among many names does not hide."""
GROUP_SEED = 0
BLOCK_CELLS = 32_000_000
"""Logits of images and words held at a time (128 MB)."""
SURE = 0.5
"""Part of the way from the threshold to the end of the scores beyond which TANL is sure."""
PASSES = 2
"""Number of times TANL chooses its words; the second time with its own scores."""
SCREENED = 2
"""Words of which TANL computes the exact activation, per word that it chooses."""
BLOCK_IMAGES, BLOCK_WORDS = 512, 1024
"""Logits that TANL holds at a time (2 MB): they stay in a core's cache from the product to the sum."""
_GRID = 100
"""Thresholds tried between 0 and 1."""


def choose_words(words_WD: Tensor, names_KD: Tensor, is_noun_W: Tensor, share: float) -> Tensor:
    """Places (M,) of the words to keep: the share of nouns and of adjectives least similar to the class names.

    The nouns come first, and of each kind the least similar: `group_logits` drops from the end.
    """
    likeness_W = torch.quantile(words_WD @ names_KD.T, SHARE_OF_CLASSES, dim=1)
    kept = []
    for kind in (is_noun_W, ~is_noun_W):
        places = kind.nonzero()[:, 0]
        count = max(1, int(share * len(places))) if len(places) else 0
        kept.append(places[likeness_W[places].sort(stable=True).indices[:count]])
    return torch.cat(kept)


def group_logits(features_AD: Tensor, words_MD: Tensor, scale: float, groups: int) -> Tensor:
    """Log of the sum of exp(scale cosine) over the words of each group, (A, G).

    As in the original, what does not fill equal groups is dropped from the end, and the others are dealt to the groups
    by a fixed permutation.
    """
    groups = min(groups, len(words_MD))
    size = len(words_MD) // groups
    generator = torch.Generator().manual_seed(GROUP_SEED)
    order = torch.randperm(groups * size, generator=generator).to(words_MD.device)
    return log_sums(features_AD, words_MD[order], scale, size)


def neglabel(names_A: Tensor, groups_AG: Tensor) -> Tensor:
    """The share of probability (A,) that the class names take from the negative words, mean over groups, in [0, 1].

    `names_A` is the log of the sum of exp(scale cosine) over the class names.
    Source: Jiang et al., "Negative Label Guided OOD Detection with Pretrained Vision-Language Models" (2024).
    """
    return torch.sigmoid(names_A[:, None] - groups_AG).mean(dim=1)


def zoc(names_A: Tensor, logits_AW: Tensor, is_candidate_AW: Tensor) -> Tensor:
    """The share of probability (A,) that the class names take from each image's own candidate words, in [0, 1].

    `names_A` is as for `neglabel`; W is the largest number of words of an image, of which only those of
    `is_candidate_AW` count. Without any candidate the share is 1: nothing but the classes was seen in the image.
    Source: Esmaeilpour et al., "Zero-Shot Out-of-Distribution Detection Based on the Pre-trained Model CLIP" (2022).
    """
    return torch.sigmoid(names_A - logits_AW.where(is_candidate_AW, -torch.inf).logsumexp(dim=1))


def candidate_logits(features_AD: Tensor, words_UD: Tensor, places_AW: Tensor, scale: float) -> Tensor:
    """Logits (A, W) of images with their own candidate words, by the words' places among all U words.

    Those at a place of -1 have no meaning.
    """
    # The product with all words: to gather the features of each image's 350 words first moves 30 times as much memory.
    block = max(1, BLOCK_CELLS // len(words_UD))
    parts = zip(torch.split(features_AD, block), torch.split(places_AW, block), strict=True)
    return torch.cat([((scale * part_BD) @ words_UD.T).gather(1, at_BW.clamp(min=0)) for part_BD, at_BW in parts])


def tanl(
    features_AD: Tensor,
    words_MD: Tensor,
    scale: float,
    *,
    names_A: Tensor,
    groups_AG: Tensor,
    known_A: Tensor,
    num: int,
    sure_images: int | None,
) -> Tensor:
    """Scores (A,) in [0, 1] against the `num` words that this pool activates most among images that are surely OOD.

    `names_A` and `groups_AG` are as for `neglabel`, whose scores are the first; `known_A` is what the labels say: 1 ID,
    0 OOD, -1 not labelled. An image is surely ID or OOD if its label says so, or if its score is more than half way
    from Otsu's threshold to the end. A word's activation is its mean probability among the class names and the words of
    the groups over sure OOD images minus that over sure ID images; it is computed for the words that are most active on
    `sure_images` images of either kind (None: on all of them), twice as many as are chosen. In the score every prefix
    of the words, most active first, counts: strong words weigh more.

    Source: Zhang et al., "Activation-aware negative labels" (2026), transductive form; there the means are seeded with
    texts and noise images, and images come as a stream.
    """
    total_A = torch.logaddexp(names_A, groups_AG.logsumexp(dim=1))
    scores_A = neglabel(names_A, groups_AG)
    unknown_A = known_A < 0
    for _ in range(PASSES):
        threshold = otsu_threshold(scores_A)
        sure_ood = (known_A == 0) | (unknown_A & (scores_A < threshold - SURE * threshold))
        sure_id = (known_A == 1) | (unknown_A & (scores_A > threshold + SURE * (1 - threshold)))
        sure = (sure_ood.nonzero()[:, 0], sure_id.nonzero()[:, 0])
        some = tuple(spread(places, sure_images) for places in sure)
        # Exact means of all words took 42 CPU s per stage, 21 of them in today's arithmetic (real CIFAR-10, N 30,000, D
        # 64, W 95,000, 10 stages). Means over 256, 512, 1,024 and 2,048 images alone, in 0.6, 0.9, 1.5 and 2.8 s, chose
        # 83, 88, 87 and 91 % of the same words, and moved the AUROC by up to 14, 14, 12 and 6 points. To screen on 512
        # and to compute twice as many words exactly as are chosen took 1.1 s and chose the same words in 19 of 20
        # stages (997 of 1,000 in the other). At a logit scale of 100 in place of this CLIPN's 20, where fewer images
        # decide a word's mean, it chose 94 to 97 % of them in 2 stages, and the AUROC moved by 0.03 points.
        # The labelled have no quota in the screening: it has to rank words as the mean does, where each image is one.
        likely = _activation(features_AD, total_A, words_MD, scale, *some).sort(descending=True, stable=True).indices
        likely = likely[: SCREENED * num].sort().values
        activation = _activation(features_AD, total_A, words_MD[likely], scale, *sure)
        active = likely[activation.sort(descending=True, stable=True).indices[:num]]
        scores_A = _share_before_prefixes(features_AD, names_A, words_MD[active], scale)
    return scores_A


def spread(places: Tensor, most: int | None) -> Tensor:
    """At most `most` of the places, at equal steps; all of them for None."""
    # Not at random: a stage that is computed again after a crash must choose the same.
    if most is None or len(places) <= most:
        return places
    return places[torch.arange(most, device=places.device) * len(places) // most]


def otsu_threshold(scores_A: Tensor) -> float:
    """The threshold of 0.00, 0.01, ..., 0.99 that parts scores in [0, 1] with the least variance within the parts.

    Of equally good thresholds it is the middle one.
    """
    scores_A = scores_A.double()
    thresholds_T = torch.arange(_GRID, dtype=torch.float64, device=scores_A.device) / _GRID
    sorted_A = scores_A.sort().values
    zero_1 = sorted_A.new_zeros(1)
    sums, squares = (torch.cat([zero_1, part.cumsum(0)]) for part in (sorted_A, sorted_A.square()))
    below_T = torch.searchsorted(sorted_A, thresholds_T, right=True)
    above_T = len(sorted_A) - below_T
    within_T = squares[-1] - sums[below_T].square() / below_T.clamp(min=1)
    within_T = within_T - (sums[-1] - sums[below_T]).square() / above_T.clamp(min=1)
    best = (within_T <= within_T.min() + 1e-12 * squares[-1]).nonzero()[:, 0]
    return float(thresholds_T[best[len(best) // 2]])


def _activation(
    features_AD: Tensor, total_A: Tensor, words_MD: Tensor, scale: float, ood: Tensor, id_: Tensor
) -> Tensor:
    """Mean probability (M,) of each word over some OOD images minus that over some ID images, by their places."""
    means = (_mean_probability(scale * features_AD[places], total_A[places], words_MD) for places in (ood, id_))
    return next(means) - next(means)


def _mean_probability(scaled_BD: Tensor, total_B: Tensor, words_MD: Tensor) -> Tensor:
    """Mean (M,) over images of exp(logit - total), at most 1 each, float64; 0 without any image."""
    sums = []
    # Few words at a time, whole rows need not be held: each word is read from memory once, 1.7 times as fast at D 512.
    for part_WD in torch.split(words_MD, BLOCK_WORDS):
        sum_W = torch.zeros(len(part_WD), dtype=torch.float64, device=words_MD.device)
        for images_BD, logs_B in zip(
            torch.split(scaled_BD, BLOCK_IMAGES), torch.split(total_B, BLOCK_IMAGES), strict=True
        ):
            # At most 1: the words that fill no whole group are not in the total.
            shares_BW = (images_BD @ part_WD.T).sub_(logs_B[:, None]).clamp_(max=0).exp_()
            sum_W += shares_BW.sum(dim=0).double()
        sums.append(sum_W)
    return torch.cat(sums) / max(1, len(scaled_BD))


def _share_before_prefixes(features_AD: Tensor, names_A: Tensor, words_MD: Tensor, scale: float) -> Tensor:
    """The share of probability (A,) that the class names take from the first word, the first two, ..., on average."""
    parts = []
    for part_BD, names_B in zip(
        torch.split(features_AD, BLOCK_IMAGES), torch.split(names_A, BLOCK_IMAGES), strict=True
    ):
        # Odds against the names: torch.logcumsumexp of the logits took four times as long as all of this. A sum of odds
        # may be infinite, and its share is 0 then.
        odds_BM = ((scale * part_BD) @ words_MD.T).sub_(names_B[:, None]).exp_().cumsum(dim=1)
        parts.append(odds_BM.add_(1).reciprocal_().mean(dim=1))
    return torch.cat(parts)
