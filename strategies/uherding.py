"""UHerding and MaxHerding: cover the pool with kernel balls, the images that the classifier is unsure of first.

Sources: Bae et al., Uncertainty Herding, ICLR 2025; Bae, Noh and Sutherland, Generalized Coverage for More Robust
Low-Budget Active Learning, ECCV 2024. Written from the papers' formulas; their code is not for this licence.

Shapes: N unlabelled images, K ID classes, D features, Q picks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.base import IndexArray, PoolView, Selection, Strategy
from strategies.numeric.herding import coverage, herd, kernel_width
from strategies.options import UHerdingOptions
from strategies.uncertainty import entropies, least_confidence, margins

Features = Callable[[IndexArray], NDArray[np.float32]]
"""Unit features (n, D) of training images, in the order of their indices."""

UNCERTAINTIES: dict[str, Callable[[NDArray[np.floating]], NDArray[np.float64]]] = {
    "margin": lambda logits_NK: 1.0 - margins(logits_NK),
    "entropy": entropies,
    "confidence": least_confidence,
}
"""Measures of uncertainty by logits (N, K), 0 for a sure image."""


class UHerding(Strategy):
    """Picks, one after the other, the image whose ball adds most to the coverage of the images, weighted by doubt.

    Costs products of the pool's frozen features with each other, once, in blocks; then those of about a hundred images
    per pick; one pass of the classifier (MaxHerding: none). Exact greedy, in memory that grows with N. Departures from
    the original code: the kernel's width is the 1st percentile of the labelled images' nearest distances (there
    UHerding's is the smallest: one near-duplicate makes the method plain uncertainty; MaxHerding's is 1, which it is
    here with fewer than two different labelled images), the pool is never cut to a sample (there the matrix of all
    kernels limits it to 35,000), the temperature is 1 (there scaled on held-back labels, and this protocol has none to
    spare), and labelled OOD images cover too: their neighbourhood need not be bought again
    (`options.uherding.cover_ood`; ProbCover here has it the other way, as its original).
    """

    def __init__(self, features: Features, options: UHerdingOptions, *, weighted: bool = True) -> None:
        """`weighted`: by the classifier's uncertainty (UHerding); otherwise all images weigh the same (MaxHerding)."""
        self._features, self._options, self._weighted = features, options, weighted

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return min(budget, N) images in the order picked; the score is the coverage that each added."""
        labelled = view.labelled_id_idx
        if self._options.cover_ood:
            labelled = np.concatenate([labelled, view.labelled_ood_idx])
        weights_N = self._weights(view)
        rows = np.asarray(self._features(np.concatenate([labelled, view.unlabelled_idx])))
        points = torch.from_numpy(rows).to(view.workshop.device)
        labelled_MD, points_ND = points[: len(labelled)], points[len(labelled) :]
        width = kernel_width(labelled_MD)
        picks, added = herd(
            points_ND,
            torch.from_numpy(weights_N.astype(np.float32)).to(points.device),
            coverage(points_ND, labelled_MD, width),
            width,
            budget,
        )
        return Selection(
            idx=view.unlabelled_idx[picks.numpy()], scores=added.numpy(), diagnostics={"kernel_width": width}
        )

    def _weights(self, view: PoolView) -> NDArray[np.float64]:
        """Uncertainty (N,) of the classifier; ones without weights, or if no image has any doubt (one class)."""
        if not self._weighted:
            return np.ones(len(view.unlabelled_idx))
        doubt_N = UNCERTAINTIES[self._options.uncertainty](view.outputs().logits_NK)
        return doubt_N if doubt_N.any() else np.ones(len(doubt_N))
