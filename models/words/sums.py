"""Log-sums of an image's logits over runs of words: what NegLabel needs of 100,000 words, without their logits.

Shapes: A images, B images of a block, M words, R runs, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RUN = 64
"""Words of a stored log-sum. With 40 classes of CIFAR-100 some 1,300 of 96,000 words are no negatives; they lie in 211
runs of 64, whose other 12,000 words have to be summed anew for the set of classes; the sums of 25,000 images are 150
MB. Runs of 32 words would halve the one and double the other."""
BLOCK_CELLS = 4_000_000
"""Logits held at a time (16 MB). Blocks of 128 MB took 1.3 times as long: each is fetched from the system anew."""
BLOCK_WORDS = 4096


def log_sums(features_AD: Tensor, words_MD: Tensor, scale: float, run: int) -> Tensor:
    """Log of the sum of exp(scale cosine) over each `run` words that follow each other, (A, M / run), float32.

    `run` divides the number of words.
    """
    num_runs = len(words_MD) // run
    assert num_runs * run == len(words_MD), (len(words_MD), run)
    # Runs of all words of a large list are summed in parts, so that a block holds many images whatever their length.
    parts = [_of_block(features_AD, words_MD[at : at + step], scale, run) for at, step in _steps(num_runs, run)]
    return torch.cat(parts, dim=1)


def _steps(num_runs: int, run: int) -> list[tuple[int, int]]:
    """First word and number of words of each block of whole runs."""
    step = max(1, BLOCK_WORDS // run) * run
    return [(at, min(step, num_runs * run - at)) for at in range(0, num_runs * run, step)]


def _of_block(features_AD: Tensor, words_MD: Tensor, scale: float, run: int) -> Tensor:
    """`log_sums` over few words, or over one long run."""
    sums = []
    for part_BD in torch.split(features_AD, max(1, BLOCK_CELLS // len(words_MD))):
        logits_BRW = ((scale * part_BD) @ words_MD.T).view(len(part_BD), -1, run)
        most_BR1 = logits_BRW.amax(dim=2, keepdim=True)
        # In place: torch.logsumexp makes two more arrays of this size, and took seven times as long as its arithmetic.
        sums.append(logits_BRW.sub_(most_BR1).exp_().sum(dim=2).log_().add_(most_BR1[:, :, 0]))
    return torch.cat(sums)


class RunSums:
    """Source of each image's log-sums over runs of `RUN` words, the last one shorter: rows (R,)."""

    def __init__(self, features_AD: Tensor, words_MD: Tensor, scale: float) -> None:
        """Sum over words in this order, on the device of the features."""
        self._features_AD = features_AD
        self._words_MD = words_MD
        self._scale = scale

    @property
    def facts(self) -> Mapping[str, float]:
        """Empty: these rows have no further numbers."""
        return {}

    @torch.inference_mode()
    def compute(self, start: int, stop: int) -> NDArray[np.float32]:
        """Log-sums of the images `start` to `stop` (excluded)."""
        part_BD = self._features_AD[start:stop]
        whole = len(self._words_MD) // RUN * RUN
        sums = [log_sums(part_BD, self._words_MD[:whole], self._scale, RUN)] if whole else []
        if whole < len(self._words_MD):
            rest_MD = self._words_MD[whole:]
            sums.append(log_sums(part_BD, rest_MD, self._scale, len(rest_MD)))
        return np.asarray(torch.cat(sums, dim=1).cpu().numpy())


def sum_kept(
    sums_AR: NDArray[np.float32],
    is_kept_M: NDArray[np.bool_],
    features_AD: Tensor,
    words: Callable[[NDArray[np.int64]], Tensor],
    scale: float,
) -> Tensor:
    """Log of the sum of exp(scale cosine) over the words that are kept, (A,), from the `RunSums` of all words.

    `sums_AR` may be a memory map; `words` gives the features (n, D) of some words. At least one word is kept.
    """
    is_kept_RW = np.pad(is_kept_M, (0, -len(is_kept_M) % RUN), constant_values=True).reshape(-1, RUN)
    whole_R = is_kept_RW.all(axis=1)
    # Runs with other words are summed anew. To take these words off the run's sum would leave little but rounding, as
    # they are the words most like an image of the classes.
    anew = np.flatnonzero(is_kept_M & ~whole_R.repeat(RUN)[: len(is_kept_M)])
    anew_MD = words(anew) if len(anew) else features_AD[:0]
    parts = []
    for start in range(0, len(features_AD), BLOCK_WORDS):
        block = slice(start, start + BLOCK_WORDS)
        sums_BR = torch.from_numpy(sums_AR[block][:, whole_R]).to(features_AD.device)
        if len(anew):
            sums_BR = torch.cat([sums_BR, log_sums(features_AD[block], anew_MD, scale, len(anew))], dim=1)
        parts.append(sums_BR.logsumexp(dim=1))
    return torch.cat(parts)
