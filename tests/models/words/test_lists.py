"""The list of negative words: what it holds, and what of it can be a negative of some classes."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from models.words.lists import WordList, read_words, word_list

SMALL = """\
n	Tops		entity
n	animal	0	dog|domestic dog
n	animal	1	spaniel
n	animal	0	cat
n	artifact	0	car|auto|motorcar
n	artifact	4	jeep
n	food	0	bread|stone
n	object	0	stone|rock
n	person	0	Darwin
n	time	0	9/11
a	adj.all		soft
a	adj.all		stone
"""


def written(path: Path, text: str = SMALL) -> Path:
    path.write_bytes(gzip.compress(text.encode()))
    return path


@pytest.fixture
def small(tmp_path: Path) -> WordList:
    return read_words(written(tmp_path / "words.gz"))


def names(words: WordList, classes: tuple[str, ...], leave_out: tuple[str, ...] = ()) -> list[str]:
    return [words.words[place] for place in words.candidates(classes, leave_out)]


def test_common_words_once_nouns_first(small: WordList) -> None:
    assert small.words == (
        "entity", "dog", "domestic dog", "spaniel", "cat", "car", "auto", "motorcar", "jeep", "bread", "stone", "rock",
        "soft",
    )  # fmt: skip
    assert small.num_nouns == 12
    assert small.texts()[1] == "The nice dog."
    assert small.texts()[-1] == "This is a soft photo."


def test_names_synonyms_and_kinds_of_a_class_are_no_negatives(small: WordList) -> None:
    assert names(small, ("Dog", "AUTO")) == ["entity", "cat", "bread", "stone", "rock", "soft"]
    assert names(small, ("unheard_of",)) == list(small.words)
    assert "domestic dog" not in names(small, ("domestic_dog",))


def test_a_kind_of_nouns_is_left_out_but_not_words_of_other_kinds_too(small: WordList) -> None:
    left = names(small, ("dog",), ("animal", "food"))
    assert left == ["entity", "car", "auto", "motorcar", "jeep", "stone", "rock", "soft"]
    with pytest.raises(ValueError, match=r"purity\.words\.leave_out.*'anmal'.*animal"):
        small.check_kinds(["anmal"])


def test_no_word_left_is_an_error(tmp_path: Path) -> None:
    words = read_words(written(tmp_path / "words.gz", "n\tanimal\t\tdog\n"))
    with pytest.raises(ValueError, match="no negative word is left"):
        words.candidates(["dog"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing: .*make_list.py writes it"),
        (b"no gzip", "cannot be read"),
        (gzip.compress(b""), "is empty"),
        (gzip.compress(b"n\tanimal\t\n"), "is damaged: line 1"),
        (gzip.compress(b"n\tperson\t\tDarwin\n"), "is empty"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "words.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_words(path)


def test_the_list_that_is_shipped() -> None:
    words = word_list()
    assert (len(words.words), words.num_nouns) == (len(set(words.words)), 78336)
    assert len(words.synsets) == 100271
    left = set(names(words, ("airplane", "dog")))
    assert not left & {"airplane", "jet", "biplane", "dog", "spaniel", "puppy", "corgi"}
    assert {"cat", "truck", "soft", "bread"} <= left
    assert words.identity == read_words().identity
    assert Path("models/words/WORDNET_LICENSE.txt").name in {
        path.name for path in Path(__file__).parents[3].joinpath("models", "words").iterdir()
    }
