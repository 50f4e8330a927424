"""suggest.py from folder to rounds, with features of one's own; and everything that it refuses, in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from experiments import suggest
from experiments.annotate.answers.state import NONE, UNSURE, Label, State, now
from experiments.annotate.estimate import corrected
from experiments.annotate.settings import read_settings
from experiments.annotate.suggester import Suggester

CLASSES = "cat,dog"
NUM = 60


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 empty image files; by their features every third is wanted: image 0 a cat, 3 a dog, 6 a cat, ..."""
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    for number in range(NUM):
        path = folder / f"{number // 20}" / f"{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    rng = np.random.default_rng(0)
    rows = 0.3 * rng.normal(size=(NUM, 16))
    for number in range(NUM):
        rows[number, kind(number)] += 1
    np.save(tmp_path / "rows.npy", rows)
    return folder


def kind(number: int) -> int:
    """0: a cat, 1: a dog, 2: neither."""
    return 2 if number % 3 else (number // 3) % 2


def run(folder: Path, *words: str) -> int:
    return suggest.main([str(folder), *words])


def first(folder: Path, *words: str) -> int:
    return run(folder, "--classes", CLASSES, "--features", str(folder.parent / "rows.npy"), *words)


def answer(folder: Path, *, unsure: str | None = None) -> None:
    """Answer the latest round as an oracle."""
    state = State.open(folder)
    with state.locked():
        for each in state.suggestions(state.rounds()[-1]):
            truth = (*state.classes, NONE)[kind(int(Path(each.image).stem))]
            text = UNSURE if each.image == unsure else truth
            state.record([Label(image=each.image, answer=text, source="oracle", time=now(), seconds=2.0)])


def test_rounds_go_on_from_the_answers(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert first(photos, "-n", "10") == 0
    out = capsys.readouterr().out
    assert "60 images, 0 damaged, 0 near-copies set aside" in out
    assert "no labels yet: ranked by looks alone, spread over looks; 2 of 10 are border cases" in out
    state = State.open(photos)
    one = state.suggestions(1)
    assert [each.rank for each in one] == list(range(1, 11))
    assert len({each.image for each in one}) == 10
    assert [each.border for each in one] == [False] * 8 + [True] * 2
    assert [each.drawn for each in one] == [False] * 4 + [True] + [False] * 5
    assert {each.nearest_labelled for each in one} == {None}
    assert (state.round_folder(1) / "index.html").is_file()
    answer(photos, unsure=one[0].image)
    capsys.readouterr()

    assert run(photos) == 0  # classes, features and number are known by now
    out = capsys.readouterr().out
    told = [kind(int(Path(each.image).stem)) for each in one[1:]]
    assert f"round 1: {sum(each < 2 for each in told)} of 9 answered images are wanted; " in out
    assert "; 1 could not be told and are set aside" in out
    assert (
        f"9 answers, {sum(each < 2 for each in told)} of them wanted: ranked by probe, then typiclust; 1 of 10" in out
    )
    two = state.suggestions(2)
    assert not {each.image for each in one} & {each.image for each in two}
    assert {each.nearest_labelled for each in two} <= {each.image for each in one[1:]}
    wanted = [each for each in two if kind(int(Path(each.image).stem)) < 2]
    assert len(wanted) >= 7  # of 60 a third is wanted
    right = [each.predicted == CLASSES.split(",")[kind(int(Path(each.image).stem))] for each in wanted]
    assert sum(right) > 0.7 * len(right)  # learnt from a handful of wanted answers


def test_images_drawn_at_random_check_the_estimate(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert first(photos, "-n", "12", "--drawn", "3") == 0
    assert (
        "2 of 12 are border cases, to learn from, 3 drawn at random, to check the estimate" in capsys.readouterr().out
    )
    state = State.open(photos)
    drawn = [each for each in state.suggestions(1) if each.drawn]
    assert [each.rank for each in drawn] == [2, 6, 10]
    assert {each.reason for each in drawn} == {"drawn at random, to check the estimate"}
    assert not any(each.border for each in drawn)
    # The first numbers of the round's own stream: nothing that is known of an image has a say.
    rows = np.random.default_rng(1).choice(NUM, 3, replace=False)
    assert [each.image for each in drawn] == [state.images()[row] for row in rows]
    answer(photos, unsure=drawn[0].image)
    assert run(photos) == 0
    assert "of 60 show one of your classes; checked with 2 images drawn at random" in capsys.readouterr().out
    errors = [(kind(int(Path(each.image).stem)) < 2) - each.wanted for each in drawn[1:]]
    suggester = Suggester(state, read_settings(state), print)
    (found,) = suggester.draws()
    assert found.errors_M.tolist() == errors
    assert (found.num_free, found.by_curve) == (NUM, state.expected(1).by_curve)
    checked, curve = state.expected(2), suggester.rank(2).by_curve
    assert checked.by_curve == curve.total.mean
    assert checked.folder == corrected(curve, [found]).mean != curve.total.mean


def test_draws_among_other_images_say_nothing_about_these(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first(photos, "-n", "10")
    answer(photos)
    last = photos / "2" / "59.jpg"
    last.unlink()
    np.save(photos.parent / "rows.npy", np.load(photos.parent / "rows.npy")[:-1])
    capsys.readouterr()
    assert run(photos) == 0
    assert "likely too low, since the labels are of images that looked wanted" in capsys.readouterr().out


def test_the_next_command_can_be_pasted(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = photos.rename(photos.parent / "my photos")
    (folder / "IMG_1.heic").touch()
    assert first(folder, "-o", str(photos.parent / "state of it")) == 0
    out = capsys.readouterr().out
    assert "0 near-copies set aside, 1 file not JPEG, PNG, GIF, WebP or BMP" in out
    root = photos.parent
    assert f"label them: python experiments/suggest.py '{root}/my photos' -o '{root}/state of it' --annotate " in out


def test_nothing_is_drawn_of_a_small_round_or_if_asked_not_to(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first(photos, "-n", "9")
    assert not any(each.drawn for each in State.open(photos).suggestions(1))
    run(photos, "-n", "30", "--drawn", "0")
    assert not any(each.drawn for each in State.open(photos).suggestions(1))
    assert "drawn at random" not in capsys.readouterr().out
    assert run(photos, "--drawn", "-1") == 2
    assert "--drawn is -1; expected 0 or more" in capsys.readouterr().err


def test_a_round_without_answers_is_replaced_and_the_same_call_gives_the_same_round(photos: Path) -> None:
    first(photos, "-n", "10")
    before = State.open(photos).suggestions(1)
    run(photos)
    assert State.open(photos).rounds() == [1]
    assert State.open(photos).suggestions(1) == before
    run(photos, "-n", "4")
    assert len(State.open(photos).suggestions(1)) == 4


def test_everything_can_be_asked_and_then_the_command_says_so(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first(photos, "-n", "100")
    assert len(State.open(photos).suggestions(1)) == NUM
    answer(photos)
    assert run(photos) == 2
    assert "every image of" in capsys.readouterr().err


def test_near_copies_are_asked_once_and_follow(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.load(photos.parent / "rows.npy")
    rows[59] = rows[0] * 1.5
    np.save(photos.parent / "rows.npy", rows)
    first(photos, "-n", "100")
    assert "1 near-copy set aside" in capsys.readouterr().out
    suggested = {each.image: each for each in State.open(photos).suggestions(1)}
    assert "2/59.jpg" not in suggested
    assert suggested["0/00.jpg"].copies == ("2/59.jpg",)
    assert suggested["0/00.jpg"].reason.endswith("; stands for 1 near-copy")


@pytest.mark.parametrize("strategy", ["margin", "conf", "entropy", "coreset", "coreset-balanced", "alphamix", "random"])
def test_strategies_of_the_registry_choose_among_the_wanted(photos: Path, strategy: str) -> None:
    first(photos, "-n", "20")
    answer(photos)
    assert run(photos, "--strategy", strategy, "-n", "8") == 0
    two = State.open(photos).suggestions(2)
    assert sum(kind(int(Path(each.image).stem)) < 2 for each in two) >= 6


def test_strategies_on_frozen_features_choose_too(photos: Path) -> None:
    first(photos, "-n", "20")
    answer(photos)
    for strategy in ("typiclust", "probcover-pretrained", "vlpure", "vlpure-badge"):
        assert run(photos, "--strategy", strategy, "-n", "8") == 0
        assert State.open(photos).settings(2)["strategy"] == strategy


def test_advice_tells_what_is_left_and_what_it_does_not_know(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first(photos, "-n", "10")
    capsys.readouterr()
    assert run(photos, "--advice") == 2
    assert "there are no answers yet" in capsys.readouterr().err
    for _ in range(4):
        answer(photos)
        run(photos, "-n", "10")
    capsys.readouterr()
    assert run(photos, "--advice") == 0
    out = capsys.readouterr().out
    assert "wanted images: 20 have an answer, about " in out
    assert "accuracy of the linear head among the classes: " in out
    assert "no fair estimate" in out
    assert "stopping is reasonable for a classifier: the last 3 rounds changed fewer than 2 % of predictions" in out
    assert State.open(photos).rounds() == [1, 2, 3, 4, 5]


def test_labels_of_another_tool_are_taken_once(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first(photos, "-n", "10")
    table = photos.parent / "labels.csv"
    table.write_text("path,label\n0/00.jpg,cat\n0/01.jpg,none of my classes\n")
    capsys.readouterr()
    assert run(photos, "--labels", str(table)) == 0
    assert "2 labels, 1 of them wanted; 2 new, 0 changed" in capsys.readouterr().out
    assert run(photos, "--labels", str(table)) == 0
    assert "2 labels, 1 of them wanted; 0 new, 0 changed" in capsys.readouterr().out
    table.write_text("path,label\n0/00.jpg,dog\n0/01.jpg,cow\n")
    assert run(photos, "--labels", str(table)) == 2
    assert State.open(photos).labels()["0/00.jpg"].answer == "cat"


def test_the_list_of_images_is_the_order_of_the_rows(photos: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (photos / "0/00.jpg").rename(photos / "0" / os.fsdecode(b"caf\xe9.jpg"))
    (photos / "notes.txt").touch()
    assert run(photos, "--list-images") == 0
    lines = capfdbinary.readouterr().out.splitlines()
    assert len(lines) == NUM
    assert lines == sorted(lines)
    assert b"0/caf\xe9.jpg" in lines
    assert not (photos.parent / "photos.suggest").exists()


def test_a_photo_that_was_answered_and_removed_is_told(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first(photos, "-n", "10")
    answer(photos)
    gone = State.open(photos).suggestions(1)[0].image
    number = int(Path(gone).stem)
    (photos / gone).unlink()
    np.save(photos.parent / "rows.npy", np.delete(np.load(photos.parent / "rows.npy"), number, axis=0))
    capsys.readouterr()
    assert run(photos) == 0
    out = capsys.readouterr().out
    assert "59 images" in out
    assert "1 answer is about images that are gone" in out
    assert "9 answers, " in out
    assert gone in State.open(photos).labels()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classes", "cat"], "1 class is given; at least two"),
        (["--classes", "cat,,dog"], "class 2 of 3 is empty"),
        (["--classes", "cat,dog,cat"], "'cat' is given twice"),
        (["--classes", CLASSES, "-n", "0"], "-n is 0; expected 1 or more"),
        (["--classes", CLASSES, "--strategy", "margn"], "did you mean 'margin'"),
        (["--classes", CLASSES, "--strategy", "lfosa"], "trains or needs networks of its own"),
        (["--classes", CLASSES, "--purity", "prob"], "did you mean 'probe'"),
        (["--classes", CLASSES, "--features", "none.npy"], "there is no file"),
        (["--classes", CLASSES, "--features", "text.npy"], "is not an array as numpy.save writes it"),
        (["--classes", CLASSES, "--features", "short.npy"], "has 59 rows, but"),
        (["--classes", CLASSES, "--features", "zero.npy"], "row 7 of"),
        (["--classes", CLASSES, "--features", "rows.npy", "--purity", "mcm"], "--purity mcm needs texts; use probe"),
        (["--classes", CLASSES, "--features", "rows.npy", "--clip-model", "ViT-B-16"], "give one or the other"),
        ([], "has no state yet, so its classes are needed"),
    ],
)
def test_impossible_calls_are_refused_in_one_line(
    photos: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    rows = np.load("rows.npy")
    np.save("short.npy", rows[:59])
    rows[7] = 0
    np.save("zero.npy", rows)
    Path("text.npy").write_text("x")
    assert run(photos, *words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_a_folder_without_images_leaves_no_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/a.txt").touch()
    assert run(tmp_path / "empty", "--classes", CLASSES) == 2
    assert "there are no images in this folder" in capsys.readouterr().err
    assert not (tmp_path / "empty.suggest").exists()


def test_the_state_of_another_folder_is_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first(photos)
    other = photos.parent / "other"
    other.mkdir()
    (other / "x.jpg").touch()
    assert run(other, "-o", str(photos.parent / "photos.suggest")) == 2
    assert "this is the state of another folder" in capsys.readouterr().err


def test_settings_that_are_damaged_are_named(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first(photos)
    path = photos.parent / "photos.suggest/settings.json"
    path.write_text(json.dumps({"count": 3}))
    assert run(photos) == 2
    assert "settings.json cannot be used" in capsys.readouterr().err
