"""Candidate words out of the likeliest tokens of captions, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.clipn.tokens import byte_pairs
from models.words.candidates import WORD_END, are_names, candidate_words, words_of_image

PIECES = [
    "cat</w>",
    "gir",
    "affe</w>",
    "the</w>",
    "of</w>",
    "42</w>",
    "dogs</w>",
    ".</w>",
    "<end_of_text>",
    "caf\u00e9</w>",
]
CAT, GIR, AFFE, THE, OF, NUMBER, DOGS, POINT, END, CAFE = range(10)


def test_words_end_in_a_token_and_begin_in_the_captions_own_pieces() -> None:
    tokens = [[CAT, GIR, AFFE], [GIR, DOGS, CAT], [AFFE, CAT, GIR], [DOGS, CAT, POINT]]
    # After "gir", the caption's second token, "cat" is the end of "gircat"; after "giraffe" words begin anew.
    assert words_of_image(tokens, PIECES) == ["cat", "affe", "dogs", "giraffe", "gircat"]


def test_stop_words_short_words_numbers_and_punctuation_are_no_candidates() -> None:
    assert words_of_image([[THE, OF, NUMBER, POINT, CAFE, CAT, END]], PIECES) == ["cat"]


def test_tokens_after_the_end_are_no_words() -> None:
    assert words_of_image([[END, CAT], [END, END]], PIECES) == ["cat"]


def test_words_of_all_images_once_and_their_places() -> None:
    tokens = np.array([[[DOGS, CAT]], [[END, CAT]], [[THE, OF]]])
    found = candidate_words(tokens, PIECES)
    assert found.words == ("cat", "dogs")
    assert found.places_NW.tolist() == [[1, 0], [0, -1], [-1, -1]]


def test_a_captioner_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="it proposes no word for any image"):
        candidate_words(np.array([[[THE, OF]]]), PIECES)


def test_names_in_any_number_and_their_parts_are_no_candidates() -> None:
    words = ["cat", "cats", "pony", "ponies", "leaf", "leaves", "wolf", "knives", "fish", "aquariums", "men", "truck"]
    dropped = are_names(words, ["Cat", "pony", "leaf", "knife", "aquarium_fish", "man"])
    assert [word for word, is_name in zip(words, dropped, strict=True) if not is_name] == ["wolf", "truck"]
    assert are_names(["dog", "bus", "bush"], ["dogs", "buses"]).tolist() == [True, True, False]


def test_clips_tokens_are_pieces_of_words() -> None:
    pieces = byte_pairs()
    assert (len(pieces), pieces[2368]) == (49408, "cat" + WORD_END)
    assert not pieces[49407].endswith(WORD_END)
