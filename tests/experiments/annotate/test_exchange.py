"""Labels from files: all or none, once, and never against a later correction; a round out of a state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.annotate.answers.state import NONE, Listing, State
from experiments.annotate.exchange import export_round, take_labels, unfinished_round
from tests.experiments.annotate.photos import label
from tests.experiments.annotate.states import make_state, suggest_round

NAMES = ("a.jpg", "b.jpg", "c.jpg", "twin.jpg")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = make_state(tmp_path, NAMES)
    with made.locked():
        made.write_listing(Listing(images=NAMES[:3], damaged={}, copy_of={"twin.jpg": "a.jpg"}))
        yield made


def take(state: State, **files: str) -> list[str]:
    """Take labels from CSV files with these rows. Returns what was reported, less the folder."""
    lines: list[str] = []
    paths = []
    for name, rows in files.items():
        paths.append(state.folder.parent / f"{name}.csv")
        paths[-1].write_text("image,label\n" + rows.replace(" ", "\n") + "\n")
    take_labels(state, paths, report=lines.append)
    return [line.removeprefix(f"{state.folder.parent}/") for line in lines]


def answers(state: State) -> dict[str, str]:
    return {image: each.answer for image, each in state.labels().items()}


def test_files_are_taken_and_reported(state: State) -> None:
    assert take(state, one="a.jpg,cat b.jpg,_ood_ twin.jpg,cat", two="c.jpg,dog a.jpg,cat") == [
        "one.csv: 3 labels, 2 of them wanted; 3 new, 0 changed",
        "two.csv: 2 labels, 2 of them wanted; 1 new, 0 changed",
    ]  # fmt: skip
    assert answers(state) == {"a.jpg": "cat", "b.jpg": NONE, "twin.jpg": "cat", "c.jpg": "dog"}
    assert state.labels()["a.jpg"].source == "CSV one.csv"


def test_the_same_file_again_changes_nothing(state: State) -> None:
    take(state, one="a.jpg,cat b.jpg,dog")
    state.record([label("a.jpg", "horse")])
    assert take(state, one="a.jpg,cat b.jpg,dog") == ["one.csv: 2 labels, 2 of them wanted; 0 new, 0 changed"]
    assert answers(state) == {"a.jpg": "horse", "b.jpg": "dog"}
    assert len(state.history()) == 3
    # What was changed in the file itself counts.
    assert take(state, one="a.jpg,dog b.jpg,dog") == ["one.csv: 2 labels, 2 of them wanted; 0 new, 1 changed"]
    assert answers(state) == {"a.jpg": "dog", "b.jpg": "dog"}


def test_all_or_none(state: State) -> None:
    with pytest.raises(
        ValueError, match=r"two labels for 'a.jpg': 'cat' \(CSV one.csv\) and 'dog' \(CSV two.csv\); keep"
    ):
        take(state, one="a.jpg,cat", two="a.jpg,dog")
    with pytest.raises(ValueError, match=r"two.csv: line 2: unknown class 'cow'"):
        take(state, one="a.jpg,cat", two="a.jpg,cow")
    assert answers(state) == {}


def test_export(state: State) -> None:
    with pytest.raises(ValueError, match=r"has no round yet; nothing is suggested that could be exported"):
        export_round(state, "csv", report=print)
    suggest_round(state, ["c.jpg"], number=1)
    suggest_round(state, ["b.jpg", "a.jpg"], number=2)
    lines: list[str] = []
    directory = export_round(state, "csv", report=lines.append)
    assert directory == state.directory / "round-2" / "csv"
    assert [line.split(",")[1] for line in (directory / "suggestions.csv").read_text().splitlines()] == [
        "image", "b.jpg", "a.jpg",
    ]  # fmt: skip
    (directory / "suggestions.csv").write_text("filled in")
    assert export_round(state, "csv", report=print) == state.directory / "round-2" / "csv-2"
    assert (directory / "suggestions.csv").read_text() == "filled in"
    assert lines == [f"fill in the column answer of {directory / 'suggestions.csv'} with 'cat', 'dog', 'horse', "
                     "'none of my classes', 'cannot tell'"]  # fmt: skip


def test_a_round_is_unfinished_once_it_is_begun(state: State) -> None:
    found = [unfinished_round(state)]
    suggest_round(state, ["a.jpg"], number=1)
    state.record([label("a.jpg", "cat")])
    suggest_round(state, ["b.jpg", "c.jpg"], number=2)
    found.append(unfinished_round(state))
    for image in ("b.jpg", "c.jpg"):
        state.record([label(image, NONE)])
        found.append(unfinished_round(state))
    assert found == [None, None, 2, None]
