"""From photos and answers to a ranked batch with its expectations: pure, without a state on disk.

Shapes: N images, K classes, Q suggestions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.annotate.choose import DEFAULT, Picks, choose_batch
from experiments.annotate.estimate import ByCurve, Draws, Estimate, corrected, estimate_by_curve
from experiments.annotate.head import Head, fit_head
from experiments.annotate.photos import Photos
from experiments.annotate.wanted import Answers, Floats, Given, Judge, fit_curve


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
    by_curve: ByCurve
    """Wanted images in the folder by the curve alone, not corrected with images drawn at random."""
    num_free: int
    """Images that could be chosen."""
    num_known: int
    """Wanted images that have an answer, near-copies included."""
    batch: float
    """Expected number of wanted images in the batch."""
    at_random: float
    """Expected number of wanted images in a random batch of unanswered images."""
    detector: str
    strategy: str
    """How the wanted ones of the batch were chosen."""
    answers: Answers


class Ranker:
    """Ranks the photos of a folder for given classes; kept between rounds, since it holds products with texts."""

    def __init__(self, photos: Photos, classes: Sequence[str], *, has_no_texts: bool) -> None:
        """`has_no_texts`: the photos' text towers, if they have any, are a CLIPN's."""
        self._photos, self._classes = photos, tuple(classes)
        texts: frozenset[Given] = frozenset()
        if photos.towers is not None:
            texts = frozenset({"text", "no text"}) if has_no_texts else frozenset({"text"})
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
        num_drawn: int = 0,
        draws: Sequence[Draws] = (),
        rng: np.random.Generator,
        stands_for_N: NDArray[np.int64] | None = None,
    ) -> Ranking:
        """The next `count` of the free images; `stands_for_N` names the image that answers for each near-copy.

        `num_drawn` of them are drawn at random; `draws` are the images that earlier rounds drew so, with their answers.

        Raises ValueError for a detector or strategy that cannot be used.
        """
        asked_N = np.arange(len(free_N)) if stands_for_N is None else stands_for_N
        scores = self._judge.scores(detector, answers)
        ordered = answers.ordered()
        curve = fit_curve(scores, ordered.is_wanted)
        wanted_N = curve.probabilities(scores.all_N)
        answered_N = np.isin(asked_N, answers.idx)
        known_N = np.isin(asked_N, answers.idx[answers.is_wanted])
        by_curve = estimate_by_curve(curve, scores.all_N[~answered_N], int(known_N.sum()))
        at_random = float(wanted_N[free_N].mean()) if free_N.any() else 0.0
        wanted_N[answered_N] = known_N[answered_N]
        head = self.fit(answers)
        picks = choose_batch(
            self._photos,
            self._classes,
            answers,
            head,
            wanted_N,
            free_N,
            count,
            strategy=strategy,
            num_drawn=num_drawn,
            rng=rng,
        )
        return Ranking(
            wanted_N=wanted_N,
            classes_NK=head.probabilities(self._photos.features_ND),
            picks=picks,
            head=head,
            # Before any answer the prior's own width stands for what is not known.
            folder=corrected(by_curve, draws) if len(answers.idx) else by_curve.total,
            by_curve=by_curve,
            num_free=int(free_N.sum()),
            num_known=int(known_N.sum()),
            batch=float(wanted_N[picks.idx].sum()),
            at_random=at_random * len(picks.idx),
            detector=scores.detector,
            strategy=strategy or (DEFAULT if answers.is_wanted.any() else "typiclust"),
            answers=answers,
        )
