"""Whether more labels would bring much: wanted images left, how settled predictions are, and cross-validated accuracy.

Shapes: N images, L labelled images, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from experiments.annotate.answers.state import State
from experiments.annotate.suggester import Suggester

SETTLED = 0.02
"""Share of the probably wanted images whose class changes in a round, below which predictions are settled."""
LITTLE_LEFT = 0.05
"""Share of the wanted images that are still without an answer, below which little is left to find."""
LAST = 3
"""Rounds that have to be settled."""
# On ten label curves of 1,000 labels: two rounds stop at 165 labels and cost 0.010 of accuracy, 0.042 at worst; three
# stop at 295 and cost 0.004, 0.010 at worst. A plateau of the cross-validated accuracy was worse than a fixed number of
# labels; 1 % in place of 2 % needs 410. The other twenty curves are in docs/annotate_results.md.


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What is known for the decision to stop."""

    left: float
    """Expected number of wanted images without an answer."""
    left_low: float
    left_high: float
    found: int
    """Wanted images with an answer."""
    changed: tuple[float, ...]
    """For each of the last rounds: share of the probably wanted images whose predicted class its answers changed."""
    right: int | None
    """Labelled images that are classified rightly by a head that did not learn from them; None for too few labels."""
    labelled: int

    @property
    def is_settled(self) -> bool:
        """Whether the last rounds changed hardly anything."""
        return len(self.changed) == LAST and max(self.changed) < SETTLED

    @property
    def is_exhausted(self) -> bool:
        """Whether hardly any wanted image is left."""
        return self.found > 0 and self.left_high < LITTLE_LEFT * (self.found + self.left_high)

    @property
    def may_stop(self) -> bool:
        """Whether stopping is reasonable."""
        return self.is_settled or self.is_exhausted


def wilson(right: int, num: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    z = 1.959964
    share, denominator = right / num, 1 + z * z / num
    half = z * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num)) / denominator
    middle = (share + z * z / (2 * num)) / denominator
    return max(0.0, middle - half), min(1.0, middle + half)


def advise(state: State, suggester: Suggester) -> Advice:
    """The facts for the decision. Raises ValueError if nothing has an answer yet."""
    answers, free_N = suggester.answers()
    if not len(answers.idx):
        raise ValueError(
            f"{state.folder}: there are no answers yet, so there is nothing to advise; label a round first"
        )
    # Nothing is suggested here: the ranking is asked for a single image, for its beliefs about all.
    ranking = suggester.rank(1, count=1, whatever_is_left=True)
    features_ND = suggester.photos.features_ND
    probable_N = free_N & (ranking.wanted_N > 0.5)
    rounds = [number for number in state.rounds() if any(s.image in state.labels() for s in state.suggestions(number))]
    changed = []
    for number in rounds[-LAST:]:
        before = suggester.ranker.fit(suggester.answers(upto=number - 1)[0])
        after = suggester.ranker.fit(suggester.answers(upto=number)[0])
        ours, theirs = (head.probabilities(features_ND[probable_N]).argmax(axis=1) for head in (after, before))
        changed.append(float((ours != theirs).mean()) if probable_N.any() else 0.0)
    right_L = ranking.head.right_L
    found = ranking.num_known
    return Advice(
        left=ranking.folder.mean - found,
        left_low=ranking.folder.low - found,
        left_high=ranking.folder.high - found,
        found=found,
        changed=tuple(changed),
        right=None if right_L is None else int(np.sum(right_L)),
        labelled=int(answers.is_wanted.sum()),
    )


def advice_lines(state: State, suggester: Suggester) -> list[str]:
    """The advice, as lines for people."""
    advice = advise(state, suggester)
    lines = [
        f"wanted images: {advice.found:,} have an answer, about {advice.left:,.0f} ({advice.left_low:,.0f} to "
        f"{advice.left_high:,.0f}) are left"
    ]
    if advice.changed:
        lines.append(
            "predictions that the last rounds changed: "
            + ", then ".join(f"{100 * share:.1f} %" for share in advice.changed)
            + " of the probably wanted images"
        )
    if advice.right is None:
        lines.append("accuracy: too few labels of some class for a cross-validation")
    else:
        low, high = wilson(advice.right, advice.labelled)
        lines.append(
            f"accuracy of the linear head among the classes: {advice.right / advice.labelled:.3f} ({low:.3f} to "
            f"{high:.3f}), cross-validated on {advice.labelled:,} images"
        )
        lines.append(
            "  these images were chosen, not drawn at random, so this is no fair estimate for the folder: for one, "
            "label some images at random and keep them apart"
        )
    return [*lines, _verdict(advice)]


def _verdict(advice: Advice) -> str:
    """Whether stopping is reasonable, and why."""
    if advice.is_exhausted:
        return "stopping is reasonable: hardly any wanted image is left"
    if advice.is_settled:
        return (
            f"stopping is reasonable for a classifier: the last {LAST} rounds changed fewer than {100 * SETTLED:.0f} % "
            "of predictions"
        )
    if len(advice.changed) < LAST:
        return f"go on: fewer than {LAST} rounds have answers"
    return f"go on: the last rounds still changed {100 * max(advice.changed):.1f} % of predictions"
