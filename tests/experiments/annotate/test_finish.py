"""The finished set: split, names, card, what is left out; and the folder reader takes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from data.registry import open_data_set
from experiments.annotate.answers.state import NONE, UNSURE, Listing, State
from experiments.annotate.finish import _flat_name, finish
from tests.experiments.annotate.photos import label
from tests.experiments.annotate.states import make_state, suggest_round

NAMES = (*(f"{place}/{number}.jpg" for place in ("x", "y") for number in range(7)), "top.jpg", "twin.jpg")


def labelled(root: Path, answers: dict[str, str]) -> State:
    """A state with one round and these answers; twin.jpg is a near-copy of top.jpg."""
    state = make_state(root, NAMES)
    with state.locked():
        state.write_listing(Listing(images=tuple(sorted(NAMES)), damaged={}, copy_of={"twin.jpg": "top.jpg"}))
        suggest_round(state, list(answers))
        state.record(label(image, answer) for image, answer in answers.items())
    return state


def answers_of(words: Sequence[str]) -> dict[str, str]:
    return dict(zip(NAMES, words, strict=True))


FULL = answers_of(["cat"] * 6 + [UNSURE] + ["dog"] * 4 + ["horse"] + [NONE] * 2 + ["dog", "dog"])


def test_a_finished_set_is_an_image_folder_with_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    state, target = labelled(tmp_path, FULL), tmp_path / "set"
    lines = finish(state, target)
    assert lines == [
        f"{target}: 13 images, 2 of them of none of the classes",
        "left out: 1 near-copies of other images",
        "left out: 1 answers 'cannot tell'",
        "left out: class 'horse' with 1 image(s); two are needed, to train and to test",
        f"next: python experiments/trial.py --dataset folder:{target} --id-classes cat,dog --ood-ratio all",
    ]
    card = json.loads((target / "card.json").read_text())
    assert card["counts"] == {
        "cat": {"train": 4, "test": 2}, "dog": {"train": 4, "test": 1}, "_ood_": {"train": 1, "test": 1},
    }  # fmt: skip
    assert card["labelled_by"] == {
        "page": {"labels": 13, "first": "2026-11-27T03:40:00Z", "last": "2026-11-27T03:40:00Z"}
    }
    assert card["seconds_of_labelling"] == 16.2
    assert card["rounds"] == [{"round": 1, "detector": "mcm"}]
    for each in card["images"]:
        _, folder, name = each["file"].split("/")
        assert folder == ("_ood_" if each["answer"] == NONE else FULL[each["photo"]])
        assert name == each["photo"].replace("/", "__")
        assert (target / each["file"]).samefile(state.folder / each["photo"])
    data = open_data_set(f"folder:{target}")
    assert data.class_names == ("_ood_", "cat", "dog")
    assert (len(data.train.labels), len(data.test.labels)) == (9, 4)
    text = (target / "README.md").read_text()
    assert "9 images to train and 4 to test, chosen and labelled out of 16;" in text
    assert "| dog | 4 | 1 |\n" in text
    assert "| page | 13 | 2026-11-27T03:40:00Z | 2026-11-27T03:40:00Z |\n" in text
    assert "1 rounds; the last one was ranked with: detector mcm. Seconds of labelling: 16.2." in text


def test_more_labels_move_no_image_between_train_and_test(tmp_path: Path) -> None:
    images = [f"{number}.jpg" for number in range(60)]
    parts = []
    for number in (40, 60):
        state = make_state(tmp_path / str(number), images[:number])
        with state.locked():
            state.record(label(image, ("cat", "dog")[place % 2]) for place, image in enumerate(images[:number]))
        finish(state, tmp_path / f"set{number}")
        parts.append({path.name: path.parts[-3] for path in (tmp_path / f"set{number}").glob("*/*/*")})
    assert parts[0] == {name: part for name, part in parts[1].items() if name in parts[0]}
    assert [list(each.values()).count("test") for each in parts] == [5, 8]


def test_without_labels_of_two_classes(tmp_path: Path) -> None:
    state = labelled(tmp_path, answers_of(["cat"] * 6 + [UNSURE] * 2 + [NONE] * 8))
    with pytest.raises(ValueError, match=r"a set needs at least two classes with two labelled images each; .* has 1"):
        finish(state, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    state = labelled(tmp_path, FULL)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").touch()
    with pytest.raises(ValueError, match="is not empty; name a new folder for the finished set"):
        finish(state, tmp_path / "set")
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["mine"]


def test_images_that_are_gone_are_left_out(tmp_path: Path) -> None:
    state = labelled(tmp_path, FULL)
    (state.folder / "x" / "0.jpg").unlink()
    assert "left out: 1 images that are gone from the folder" in finish(state, tmp_path / "set")


def test_names_of_files() -> None:
    assert _flat_name("a/b.jpg", set()) == "a__b.jpg"
    assert _flat_name("a/b.jpg", {"a__b.jpg"}) == "4a51636246e7c418.jpg"
    assert len(_flat_name("ä" * 150 + "/c.png", set())) == 20
