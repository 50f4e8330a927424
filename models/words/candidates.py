"""Words that a captioner proposes for images, from its likeliest tokens. Importing this needs no torch.

Shapes: N images, P positions of a caption, T tokens of a position, W words of an image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OBJECT_PROMPT = "This is a photo of a {}."
"""ZOC's sentence for class names and candidate words."""
WORD_END = "</w>"
"""Mark of CLIP's byte pairs at the last piece of a word."""
_WORD = re.compile(r"[a-z]{3,}")
_STOPPED = """
about above across after again against all almost along already also always among and another any anybody anyone
anything are around aren away back because been before behind being below beneath beside besides between beyond both
but came can cannot come comes coming could did didn does doesn doing don done down during each either else even ever
every everybody everyone everything few for from gave get gets getting give given gives giving goes going gone got had
has have having her here hers herself him himself his how however into isn its itself just less let lots made make
makes making many may maybe might mine more most much must myself near nearly neither never next nobody none nor not
nothing now off often once one ones only onto other others ought our ours ourselves out outside over own per perhaps
put puts quite rather really same seem seems seen several shall she should shows showing shown since some somebody
someone something sometimes still such than that the their theirs them themselves then there these they this those
though three through throughout thus together too toward towards two under until upon use used uses using very via was
wasn were what whatever when where whether which while who whoever whole whom whose why will with within without would
yet you your yours yourself yourselves
"""
STOP_WORDS = frozenset(_STOPPED.split())
"""Words that name nothing an image could show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Candidate words of images."""

    words: tuple[str, ...]
    """Distinct words of all images, sorted."""
    places_NW: NDArray[np.int64]
    """Places in `words` of each image's words, -1 where it has fewer than another."""


def candidate_words(tokens_NPT: NDArray[np.int64], pieces: Sequence[str]) -> Candidates:
    """Candidate words of images by their captions' likeliest tokens (`models.clipn.captioner`).

    `pieces` is the text of each token. Raises ValueError if no image has any: such a captioner is of no use.
    """
    words_of = [words_of_image(tokens_PT, pieces) for tokens_PT in tokens_NPT.tolist()]
    words = sorted({word for each in words_of for word in each})
    if not words:
        raise ValueError("clipn.captioner: it proposes no word for any image; its weights are damaged or not trained")
    places = {word: place for place, word in enumerate(words)}
    places_NW = np.full((len(words_of), max(map(len, words_of))), -1)
    for row, each in zip(places_NW, words_of, strict=True):
        row[: len(each)] = [places[word] for word in each]
    return Candidates(words=tuple(words), places_NW=places_NW)


def words_of_image(tokens_PT: Sequence[Sequence[int]], pieces: Sequence[str]) -> list[str]:
    """Distinct words among the likeliest tokens of one image's caption, in the order of their first appearance.

    The first token of a position is the caption's own. A token that ends a word is joined to the pieces of the caption
    that the word begins with; one that does not end a word is none. Words of less than three letters or with other
    characters than letters, and stop words, are dropped.
    """
    found: dict[str, None] = {}
    begun = ""
    for tokens_T in tokens_PT:
        for token in tokens_T:
            if pieces[token].endswith(WORD_END):
                found[begun + pieces[token].removesuffix(WORD_END)] = None
        own = pieces[tokens_T[0]]
        begun = "" if own.endswith(WORD_END) else begun + own
    return [word for word in found if _WORD.fullmatch(word) and word not in STOP_WORDS]


def are_names(words: Sequence[str], class_names: Iterable[str]) -> NDArray[np.bool_]:
    """Which of the words are a class name or a word of one, in the singular or the plural: they are no candidates."""
    parts = {form for name in class_names for part in re.findall(r"[a-z]+", name.lower()) for form in _forms(part)}
    return np.array([not parts.isdisjoint(_forms(word)) for word in words], dtype=np.bool_)


def _forms(word: str) -> set[str]:
    """The word, and what it is the plural of, as far as that shows in its end."""
    ends = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("men", "man"), ("es", ""), ("s", ""))
    return {word} | {word.removesuffix(plural) + singular for plural, singular in ends if word.endswith(plural)}
