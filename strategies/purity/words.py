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
    features_AD: Tensor, names_KD: Tensor, words_MD: Tensor, scale: float, *, start_A: Tensor, known_A: Tensor, num: int
) -> Tensor:
    """Scores (A,) in [0, 1] against the `num` words that this pool activates most among images that are surely OOD.

    `start_A` are scores to begin with (`neglabel`), `known_A` what the labels say: 1 ID, 0 OOD, -1 not labelled.
    An image is surely ID or OOD if its label says so, or if its score is more than half way from Otsu's threshold to
    the end. A word's activation is its mean probability among all words and names over sure OOD images minus that over
    sure ID images. In the score every prefix of the words, most active first, counts: strong words weigh more.

    Source: Zhang et al., "Activation-aware negative labels" (2026), transductive form; there the means are seeded with
    texts and noise images, and images come as a stream.
    """
    names_AK = scale * (features_AD @ names_KD.T)
    scores_A = start_A
    for _ in range(PASSES):
        threshold = otsu_threshold(scores_A)
        unknown = known_A < 0
        sure_id = (known_A == 1) | (unknown & (scores_A > threshold + SURE * (1 - threshold)))
        sure_ood = (known_A == 0) | (unknown & (scores_A < threshold - SURE * threshold))
        activation_M = _mean_probability(features_AD, names_AK, words_MD, scale, sure_ood)
        activation_M = activation_M - _mean_probability(features_AD, names_AK, words_MD, scale, sure_id)
        active = activation_M.sort(descending=True, stable=True).indices[:num]
        prefixes = torch.logcumsumexp(scale * (features_AD @ words_MD[active].T), dim=1)
        scores_A = torch.sigmoid(names_AK.logsumexp(dim=1)[:, None] - prefixes).mean(dim=1)
    return scores_A


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


def _mean_probability(
    features_AD: Tensor, names_AK: Tensor, words_MD: Tensor, scale: float, chosen_A: Tensor
) -> Tensor:
    """Mean probability (M,) of each word over the chosen images, among all words and class names; 0 without any."""
    places = chosen_A.nonzero()[:, 0]
    total_M = torch.zeros(len(words_MD), dtype=torch.float64, device=words_MD.device)
    for part in torch.split(places, max(1, BLOCK_CELLS // len(words_MD))):
        logits = torch.cat([scale * (features_AD[part] @ words_MD.T), names_AK[part]], dim=1)
        total_M += logits.softmax(dim=1)[:, : len(words_MD)].sum(dim=0).double()
    return total_M / max(1, len(places))
