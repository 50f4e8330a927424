"""From photos and answers to a ranked batch with its expectations: pure, without a state on disk.

Shapes: N images, K classes, Q suggestions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.annotate.choose import Picks, choose_batch
from experiments.annotate.head import Head, fit_head
from experiments.annotate.photos import Photos
from experiments.annotate.wanted import Answers, Estimate, Floats, Given, Judge, estimate_wanted, fit_curve


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranking:
    """What is believed of every image, and the batch chosen from it."""

    wanted_N: Floats
    """Probability of being wanted, 0 or 1 for an answered image."""
    classes_NK: Floats
    """Probability of each class, given that it is one."""
    picks: Picks
    head: Head
    folder: Estimate
    """Wanted images in the folder."""
    batch: float
    """Expected number of wanted images in the batch."""
    at_random: float
    """The same for a random batch of unanswered images."""
    detector: str
    answers: Answers


class Ranker:
    """Ranks the photos of a folder for given classes; kept between rounds, since it holds products with texts."""

    def __init__(self, photos: Photos, classes: Sequence[str], texts: frozenset[Given]) -> None:
        """`texts` are the texts that the photos' weights can encode."""
        self._photos, self._classes = photos, tuple(classes)
        self._judge = Judge(photos, classes, texts)
        self._start_KD = np.zeros((len(self._classes), photos.features_ND.shape[1]), dtype=np.float32)
        if photos.towers is not None:
            self._start_KD = photos.towers.logit_scale * photos.towers.text_features(self._classes)[0]

    def fit(self, answers: Answers) -> Head:
        """The classifier of the wanted classes, learnt from the wanted answers."""
        own = answers.is_wanted
        return fit_head(self._photos.features_ND[answers.idx[own]], answers.classes[own], self._start_KD)

    def rank(
        self,
        answers: Answers,
        free_N: NDArray[np.bool_],
        count: int,
        *,
        detector: str | None = None,
        strategy: str | None = None,
        rng: np.random.Generator,
    ) -> Ranking:
        """The next `count` of the free images. Raises ValueError for a detector or strategy that cannot be used."""
        scores = self._judge.scores(detector, answers)
        ordered = answers.ordered()
        curve = fit_curve(scores, ordered.is_wanted)
        wanted_N = curve.probabilities(scores.all_N)
        unanswered_N = np.ones(len(wanted_N), dtype=bool)
        unanswered_N[answers.idx] = False
        folder = estimate_wanted(curve, scores.all_N[unanswered_N], int(answers.is_wanted.sum()))
        at_random = float(wanted_N[free_N].mean()) if free_N.any() else 0.0
        wanted_N[answers.idx] = answers.is_wanted
        head = self.fit(answers)
        picks = choose_batch(
            self._photos, self._classes, answers, head, wanted_N, free_N, count, strategy=strategy, rng=rng
        )
        return Ranking(
            wanted_N=wanted_N,
            classes_NK=head.probabilities(self._photos.features_ND),
            picks=picks,
            head=head,
            folder=folder,
            batch=float(wanted_N[picks.idx].sum()),
            at_random=at_random * len(picks.idx),
            detector=scores.detector,
            answers=answers,
        )
