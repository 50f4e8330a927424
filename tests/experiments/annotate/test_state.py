"""The state beside a photo folder: what is kept, what a kill or a full disk leaves, and who may write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.annotate.answers.state import NONE, UNSURE, Expected, Label, Listing, State, Suggestion

CLASSES = ("cat", "dog")
IMAGES = ("a.jpg", "b/caf\udce9.jpg", "c.jpg")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def label(image: str, answer: str, seconds: float | None = None) -> Label:
    return Label(image=image, answer=answer, source="page", time="2026-11-27T03:40:00Z", seconds=seconds)


def state_of(photos: Path) -> State:
    """A state with three images and no answers."""
    state = State.open(photos, CLASSES)
    with state.locked():
        state.write_listing(Listing(images=IMAGES, damaged={"d.jpg": "cut"}, copy_of={"c.jpg": "a.jpg"}))
    return state


def keep(state: State, *labels: Label) -> None:
    with state.locked():
        state.record(labels)


def test_answers_are_kept_in_a_file_beside_the_folder(photos: Path) -> None:
    state = state_of(photos)
    given = [label("a.jpg", "cat", 1.5), label(IMAGES[1], NONE), label("c.jpg", UNSURE)]
    keep(state, *given)
    again = State.open(photos)
    assert again.classes == CLASSES
    assert again.directory == photos.parent / "photos.suggest"
    assert again.labels() == {each.image: each for each in given}
    assert again.images() == IMAGES
    assert again.image_path(1) == photos / IMAGES[1]
    assert again.listing().damaged == {"d.jpg": "cut"}
    assert again.listing().copy_of == {"c.jpg": "a.jpg"}


def test_a_changed_and_a_withdrawn_answer_are_further_records(photos: Path) -> None:
    state, first, second = state_of(photos), label("a.jpg", "cat"), label("a.jpg", "dog")
    keep(state, first, label("c.jpg", "dog"))
    keep(state, second)
    assert state.labels()["a.jpg"] == second
    with state.locked():
        state.undo("c.jpg")
    for reader in (state, State.open(photos)):
        assert reader.labels() == {"a.jpg": second}
        assert [(each.image, each.answer) for each in reader.history()] == [
            ("a.jpg", "cat"), ("c.jpg", "dog"), ("a.jpg", "dog"), ("c.jpg", ""),
        ]  # fmt: skip


def test_a_reader_sees_what_another_process_adds(photos: Path) -> None:
    writer, reader = state_of(photos), State.open(photos)
    assert reader.labels() == {}
    keep(writer, label("a.jpg", "cat"))
    assert list(reader.labels()) == ["a.jpg"]
    keep(writer, label("c.jpg", "cat"))
    assert list(reader.labels()) == ["a.jpg", "c.jpg"]


def test_after_a_kill_in_the_middle_of_a_write_all_earlier_answers_are_there(photos: Path) -> None:
    state, log = state_of(photos), photos.parent / "photos.suggest/labels.jsonl"
    keep(state, label("a.jpg", "cat"))
    first = log.read_bytes()
    keep(state, label("c.jpg", "dog"))
    whole = log.read_bytes()
    for end in range(len(first), len(whole), 7):
        log.write_bytes(whole[:end])
        assert list(State.open(photos).labels()) == ["a.jpg"]
    keep(State.open(photos), label("c.jpg", "dog"))
    assert log.read_bytes() == whole


def test_a_damaged_line_is_named(photos: Path) -> None:
    state, log = state_of(photos), photos.parent / "photos.suggest/labels.jsonl"
    keep(state, label("a.jpg", "cat"), label("c.jpg", "dog"))
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b'"cat"', b'"dog"'))
    with pytest.raises(ValueError, match=r"labels\.jsonl: line 1 is not what was written.*checksum"):
        State.open(photos).labels()
    log.write_bytes(whole[: whole.index(b"\n") + 1] + b"{}\n")
    with pytest.raises(ValueError, match=r"line 2 is not what was written.*no checksum"):
        State.open(photos).labels()


def test_a_full_disk_loses_no_answer(small_disk: Path) -> None:
    photos = small_disk / "photos"
    photos.mkdir()
    state = state_of(photos)
    keep(state, label("a.jpg", "cat"))
    with state.locked(), pytest.raises(OSError, match=r"No space left.*labels\.jsonl"):
        state.record([label("c.jpg", "dog")] * 1000)
    keep(state, label("c.jpg", "dog"))
    assert [each.answer for each in State.open(photos).history()] == ["cat", "dog"]


def test_two_writers_on_one_state_are_refused(photos: Path) -> None:
    source = "import sys; from pathlib import Path; from experiments.annotate.answers.state import State\n"
    source += "with State.open(Path(sys.argv[1])).locked(): pass"
    with state_of(photos).locked():
        outcome = subprocess.run([sys.executable, "-c", source, photos], capture_output=True, text=True, check=False)
        assert outcome.stderr.splitlines()[-1].startswith("ValueError: another process is writing to ")
        assert State.open(photos).labels() == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (label("a.jpg", "cta"), "unknown answer 'cta' .did you mean 'cat'"),
        (label("z.jpg", "cat"), "z.jpg is no image of "),
    ],
)
def test_impossible_answers_are_refused_and_none_of_them_kept(photos: Path, given: Label, message: str) -> None:
    state = state_of(photos)
    with state.locked(), pytest.raises(ValueError, match=message):
        state.record([label("a.jpg", "cat"), given])
    assert state.labels() == {}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat"], "1 class is given; at least two"),
        (["cat", " "], "class 2 of 2 is empty"),
        (["cat", "Cat"], "'Cat' is given twice"),
        (["cat", "None of my  classes"], "cannot be the name of a class: it has a meaning"),
        (["cat", "cannot tell"], "cannot be the name of a class: it has a meaning"),
        (["cat", "a/b"], "could not be the name of a folder"),
        (["cat", ".."], "could not be the name of a folder"),
    ],
)
def test_impossible_classes_are_refused(photos: Path, classes: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        State.open(photos, classes)


def test_a_state_is_not_mixed_with_other_classes_files_or_folders(photos: Path) -> None:
    with pytest.raises(ValueError, match="has no state yet, so its classes are needed"):
        State.open(photos)
    with pytest.raises(ValueError, match="is the photo folder itself"):
        State.open(photos, CLASSES, photos)
    state_of(photos)
    with pytest.raises(ValueError, match="is about the classes cat, dog, not dog, cat"):
        State.open(photos, ["dog", "cat"])
    other = photos.parent / "other"
    other.mkdir()
    (other / "letter.txt").write_text("x")
    with pytest.raises(ValueError, match=r"other holds other files and no state\.json"):
        State.open(photos, CLASSES, other)
    with pytest.raises(ValueError, match=r"letter\.txt: this is not a folder"):
        State.open(other / "letter.txt", CLASSES)
    with pytest.raises(ValueError, match="missing: no such folder"):
        State.open(photos / "missing", CLASSES)


def test_rounds_are_kept_with_what_was_expected_of_them(photos: Path) -> None:
    state = state_of(photos)
    suggestion = Suggestion(
        rank=1, image=IMAGES[1], wanted=0.9, predicted="cat", predicted_probability=0.8, informativeness=0.3,
        nearest_labelled=None, copies=("c.jpg",), reason="probably a cat", border=False,
    )  # fmt: skip
    expected = Expected(wanted=0.9, at_random=0.4, folder=1.2, low=0.5, high=2.5, num_images=3)
    with state.locked():
        state.write_round(2, [suggestion], expected, unwanted=[suggestion], settings={"detector": "atd"})
        state.write_round(10, [], expected)
    again = State.open(photos)
    assert again.rounds() == [2, 10]
    assert (again.suggestions(2), again.unwanted(2)) == ((suggestion,), (suggestion,))
    assert (again.expected(2), again.settings(2)) == (expected, {"detector": "atd"})
    with pytest.raises(ValueError, match="there is no round 3"):
        again.suggestions(3)
    with pytest.raises(ValueError, match="there is no image 3: the folder has 3"):
        again.image_path(3)


def test_a_damaged_file_of_the_state_is_named_with_what_to_do(photos: Path) -> None:
    state = state_of(photos)
    marker = state.directory / "state.json"
    marker.write_text(marker.read_text().replace("cat", "cow"))
    with pytest.raises(ValueError, match=r"state.json cannot be used: its checksum.*--labels"):
        State.open(photos)
