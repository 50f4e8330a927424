"""VLPure-AL: discard what a vision-language model judges OOD, then query the most informative of the rest."""

from __future__ import annotations

import numpy as np

from strategies.base import PoolView, Selection, Strategy, highest_first
from strategies.purity.contract import PurityOptions, PurityRequest, PurityScorer


class VLPure(Strategy):
    """Filters by CLIPN (Eq. 1 to 8) or another detector, then runs an informativeness strategy on the images judged ID.

    Costs a few matrix products per round, on top of the informativeness strategy, once the images' features are stored.
    Departures from the official code: too few images judged ID are filled up by the highest ID minus OOD score (the
    official code crashes), no labelled OOD image means a fixed scale, and a class without a labelled image
    gets an uninformed visual weight.
    """

    def __init__(
        self, *, scorer: PurityScorer, informativeness: Strategy, options: PurityOptions, with_domain: bool = False
    ) -> None:
        """`with_domain`: the class names that the scorer reads begin with the view's domain ("sketch zebra")."""
        self._scorer = scorer
        self._informativeness = informativeness
        self._options = options
        self._with_domain = with_domain

    def select(self, view: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return the most informative images judged ID, then, if those are too few, the purest of the others.

        `scores` are the informativeness strategy's; those of filled-up images are ID minus OOD score, below or at 0.
        """
        purity = self._scorer.score(
            PurityRequest(
                data_fingerprint=view.data_fingerprint,
                class_names=self._names_in_prompts(view),
                labelled_id_idx=view.labelled_id_idx,
                labelled_id_labels=view.labelled_id_labels,
                labelled_ood_idx=view.labelled_ood_idx,
                unlabelled_idx=view.unlabelled_idx,
                options=self._options,
            )
        )
        idx, scores = np.empty(0, dtype=np.int64), np.empty(0)
        if purity.is_id.any():
            inner = self._informativeness.select(view.restricted_to(purity.is_id), budget, rng)
            idx, scores = inner.idx, inner.scores
        missing = min(budget, len(view.unlabelled_idx)) - len(idx)
        margin = purity.id_scores - purity.ood_scores
        if missing:
            # The official code crashes if fewer images are judged ID than the budget asks for.
            rest = np.flatnonzero(~purity.is_id)
            fill = rest[highest_first(margin[rest], missing)]
            idx = np.concatenate([idx, view.unlabelled_idx[fill]])
            scores = np.concatenate([scores, margin[fill]])
        return Selection(
            idx=idx,
            scores=scores,
            judged_id_idx=view.unlabelled_idx[purity.is_id],
            purity=margin[np.searchsorted(view.unlabelled_idx, idx)],
            diagnostics={
                "logit_scale": purity.logit_scale,
                "scale_is_tuned": purity.is_tuned,
                "scale_accuracy": purity.labelled_accuracy,
                "num_judged_id": int(purity.is_id.sum()),
                "num_filled": missing,
            },
        )

    def _names_in_prompts(self, view: PoolView) -> tuple[str, ...]:
        """Class names that fill the templates. Raises ValueError for a data set without a domain."""
        if not self._with_domain:
            return view.class_names
        if view.domain is None:
            raise ValueError("a prompt with the domain needs a data set that has one, such as domainnet-sketch")
        return tuple(f"{view.domain} {name}" for name in view.class_names)
