"""The list of words, and the choice of negatives for a set of classes. Importing this needs no torch.

The list is WordNet 3.0's nouns and adjectives (`make_list.py`; licence in WORDNET_LICENSE.txt).
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from data.console import unknown_name
from data.files import content_hash

LIST = Path(__file__).with_name("wordnet.txt.gz")
_MAKER = "models/words/make_list.py"
NOUN_PROMPT, ADJECTIVE_PROMPT = "The nice {}.", "This is a {} photo."
"""NegLabel's sentences for nouns and class names, and for adjectives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Synset:
    """Set of words with one meaning."""

    is_noun: bool
    kind: str
    """WordNet's lexicographer file: animal, food, ..."""
    hypernyms: tuple[int, ...]
    """Places in the list of the synsets that this one is a kind of."""
    lemmas: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WordList:
    """Synsets, and the distinct words among them that may be negatives: nouns first."""

    synsets: tuple[Synset, ...]
    words: tuple[str, ...]
    """Words without proper names (a capital) and numbers (a digit), which no photograph shows."""
    num_nouns: int
    """Number of nouns, which come first in `words`; the others are adjectives that are not nouns too."""

    @property
    def identity(self) -> str:
        """Identity (64 hex digits) of the words and their sentences."""
        return content_hash([list(self.words), self.num_nouns, NOUN_PROMPT, ADJECTIVE_PROMPT])

    def texts(self) -> tuple[str, ...]:
        """The sentence of each word, in the order of `words`."""
        prompts = [NOUN_PROMPT] * self.num_nouns + [ADJECTIVE_PROMPT] * (len(self.words) - self.num_nouns)
        return tuple(prompt.replace("{}", word) for prompt, word in zip(prompts, self.words, strict=True))

    def in_tree_order(self) -> list[int]:
        """Places in `words`, each once, so that kinds of a thing follow it: words of the first sense come first."""
        below = self._hyponyms()
        places = {word: place for place, word in enumerate(self.words)}
        ordered: dict[int, None] = {}
        seen: set[int] = set()
        waiting = [place for place, each in enumerate(self.synsets) if not each.hypernyms][::-1]
        while waiting:
            place = waiting.pop()
            if place not in seen:
                seen.add(place)
                ordered |= dict.fromkeys(places[lemma] for lemma in self.synsets[place].lemmas if lemma in places)
                waiting += below.get(place, [])[::-1]
        return list(ordered)

    def candidates(self, class_names: Sequence[str], leave_out: Sequence[str] = ()) -> list[int]:
        """Places in `words` of the words that can be negatives of these classes.

        These are not the names themselves, nor any word of a synset that contains a name or is a kind of such a synset
        ("spaniel" for "dog"), nor nouns that are only of the kinds `leave_out`. Raises ValueError as `check_kinds`, and
        if no word is left.
        """
        self.check_kinds(leave_out)
        names = {_as_read(name) for name in class_names}
        banned = self._kinds_of(names)
        taken = names | {_as_read(lemma) for place in banned for lemma in self.synsets[place].lemmas}
        kept = {
            lemma
            for place, each in enumerate(self.synsets)
            if place not in banned and not (each.is_noun and each.kind in leave_out)
            for lemma in each.lemmas
        }
        left = [place for place, word in enumerate(self.words) if word in kept and _as_read(word) not in taken]
        if not left:
            raise ValueError(
                "purity.words: no negative word is left; list fewer kinds of nouns in purity.words.leave_out"
            )
        return left

    def check_kinds(self, leave_out: Sequence[str]) -> None:
        """Raise ValueError for a kind of nouns that WordNet does not have."""
        kinds = {each.kind for each in self.synsets if each.is_noun}
        for kind in leave_out:
            if kind not in kinds:
                raise unknown_name("purity.words.leave_out", kind, sorted(kinds))

    def _kinds_of(self, names: set[str]) -> set[int]:
        """Places of the noun synsets that have one of the names, and of all their hyponyms."""
        below = self._hyponyms()
        waiting = [
            place
            for place, each in enumerate(self.synsets)
            if each.is_noun and any(_as_read(lemma) in names for lemma in each.lemmas)
        ]
        found: set[int] = set()
        while waiting:
            place = waiting.pop()
            if place not in found:
                found.add(place)
                waiting += below.get(place, [])
        return found

    def _hyponyms(self) -> dict[int, list[int]]:
        """Places of the synsets that are a kind of another, by its place."""
        below: dict[int, list[int]] = {}
        for place, each in enumerate(self.synsets):
            for hypernym in each.hypernyms:
                below.setdefault(hypernym, []).append(place)
        return below


def read_words(path: Path = LIST) -> WordList:
    """The word list of a file. Raises ValueError if it is missing, damaged or empty."""
    try:
        text = gzip.decompress(path.read_bytes()).decode()
    except FileNotFoundError:
        raise ValueError(
            f"the list of negative words is missing: {path}; models/words/make_list.py writes it"
        ) from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"the list of negative words cannot be read: {path} ({error})") from None
    synsets = []
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split("\t")
        if len(fields) != 4 or fields[0] not in ("n", "a"):
            raise ValueError(f"the list of negative words is damaged: line {number} of {path}")
        hypernyms = tuple(int(place) for place in fields[2].split(",") if place)
        synsets.append(
            Synset(is_noun=fields[0] == "n", kind=fields[1], hypernyms=hypernyms, lemmas=tuple(fields[3].split("|")))
        )
    nouns = _distinct(synsets, is_noun=True)
    are_nouns = set(nouns)
    adjectives = [word for word in _distinct(synsets, is_noun=False) if word not in are_nouns]
    if not nouns and not adjectives:
        raise ValueError(f"the list of negative words is empty: {path}; {_MAKER} writes it")
    return WordList(synsets=tuple(synsets), words=(*nouns, *adjectives), num_nouns=len(nouns))


@cache
def word_list() -> WordList:
    """The word list of this package, read once per process."""
    return read_words()


def _distinct(synsets: Sequence[Synset], *, is_noun: bool) -> list[str]:
    """Common words of the nouns or the adjectives, in order of first appearance."""
    words = dict.fromkeys(lemma for each in synsets if each.is_noun == is_noun for lemma in each.lemmas)
    return [word for word in words if word == word.lower() and not any(letter.isdigit() for letter in word)]


def _as_read(name: str) -> str:
    """The form of a name for comparisons: `Pickup_Truck` becomes `pickup truck`."""
    return " ".join(name.replace("_", " ").lower().split())
