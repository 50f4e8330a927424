"""Why an image is suggested, in one short sentence."""

from __future__ import annotations

UNDECIDED = 0.25
"""Two classes are confused if their probabilities differ by less."""
ALIKE, UNLIKE = 0.9, 0.7
"""Cosines from which an image looks like a labelled one, and below which like none."""


def reason(
    *,
    wanted: float,
    best: str,
    second: str,
    probabilities: tuple[float, float],
    border: bool,
    nearest: float | None,
    num_copies: int,
    picked: bool,
    drawn: bool,
) -> str:
    """A sentence made of what is known about one image.

    `probabilities` are those of the classes `best` and `second`; `nearest` is the cosine with the labelled image most
    like it, None without one; `picked` is whether it is suggested at all, `drawn` whether at random.
    """
    if not picked:
        return f"probably none of your classes; if one, {best}"
    unsure = probabilities[0] - probabilities[1] < UNDECIDED
    what = f"{best} or {second}" if unsure else best
    if drawn:
        text = "drawn at random, to check the estimate"
    elif border:
        text = f"may or may not be one of your classes ({what}): its answer shows where they end"
    elif unsure:
        text = f"{_surely(wanted)} one of your classes, but {best} or {second}?"
    elif nearest is None:
        text = f"{_surely(wanted)} {best}, typical of images that look like it"
    elif nearest < UNLIKE:
        text = f"{_surely(wanted)} {best}, unlike anything labelled so far"
    elif nearest > ALIKE:
        text = f"{_surely(wanted)} {best}, much like a labelled image"
    else:
        text = f"{_surely(wanted)} {best}, of a look with few labels"
    return text + (f"; stands for {num_copies} near-{'copy' if num_copies == 1 else 'copies'}" if num_copies else "")


def _surely(wanted: float) -> str:
    return "almost surely" if wanted > 0.95 else "probably" if wanted > 0.7 else "perhaps"
