"""RANDOM: the baseline that ignores the images."""

from __future__ import annotations

import numpy as np

from strategies.base import PoolView, Selection, Strategy


class Random(Strategy):
    """A uniform draw without replacement.

    Costs nothing. Departure from the official code: that one shuffles with NumPy's global generator, whose state
    depends on the training before; here the draw depends on seed and round only.
    """

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return min(budget, N) images, in the order drawn; the score of each is 0."""
        count = min(budget, len(view.unlabelled_idx))
        idx = rng.choice(view.unlabelled_idx, size=count, replace=False)
        return Selection(idx=idx, scores=np.zeros(count))
