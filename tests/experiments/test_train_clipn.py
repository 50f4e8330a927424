"""train_clipn.py as a user types it, with a model of a few weights."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data.registry import open_data_set
from experiments.commands.clipn_job import choose_images, name_id_sets
from experiments.train_clipn import main
from models.clipn import training as clipn_training
from models.clipn.features import open_vision_language
from models.clipn.model import Clipn
from models.clipn.source import ClipnSource, clip_config
from models.clipn.weights import file_name, load_clipn

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 8, "patch_size": 4, "layers": 1, "width": 16, "head_width": 8},
    "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220), "white": (220, 220, 220)}
SIZES = {"red": 12, "green": 12, "blue": 6, "white": 6}
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Call the command in this process, in `tmp_path`; exit code, standard output, standard error."""
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for part, share in (("train", 1), ("test", 2)):
        for name, colour in COLOURS.items():
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for number in range(SIZES[name] // share):
                pixels = np.array(colour) + generator.integers(-20, 21, (8, 8, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02d}.png")
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["train_clipn.py", *words])
        try:
            code = main()
        except SystemExit as stop:
            code = int(str(stop.code))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


FOLDER = ["--dataset", "folder:images", "-o", "out/a.pt"]
SHORT = ["--model", "tiny.json", "--steps-clip", "4", "--steps-no", "3", "--batch-size", "8", "--feature-passes", "1"]


def tensors(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def equal(a: Path, b: Path) -> bool:
    first, second = tensors(a), tensors(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_it_writes_a_checkpoint_that_trials_can_use(command: Command, tmp_path: Path) -> None:
    code, out, err = command(*FOLDER, *SHORT, "--id-classes", "red,blue", "--id-classes", "white")
    assert (code, "measuring on 18 test images" in err) == (0, True)
    assert "zero-shot accuracy" in out
    report = json.loads((tmp_path / "out/a.report.json").read_text())
    assert (report["num_images"], report["num_test"], report["num_classes"]) == (36, 18, 4)
    counts = {name: (values["num_id"], values["num_ood"]) for name, values in report["detection"].items()}
    assert counts == {"red, blue": (9, 9), "white": (3, 15)}
    assert report["logit_scale"] == pytest.approx(20)
    data = open_data_set("folder:images")
    vision_language = open_vision_language(data, ClipnSource(checkpoint=Path("out/a.pt"), model="out/a.json"))
    assert vision_language.image_features_ND.shape == (36, 16)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".a.pt.lock",
        "a.json",
        "a.pt",
        "a.report.json",
    ]


def test_the_same_command_again_only_reports(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, first, _ = command(*FOLDER, *SHORT)
    monkeypatch.setattr(clipn_training, "_take_steps", None)
    assert command(*FOLDER, *SHORT)[:2] == (0, first)
    code, _, err = command(*FOLDER, *SHORT, "--seed", "1")
    assert (code, "was made by another command; choose another -o" in err) == (2, True)
    (tmp_path / "out/a.report.json").unlink()
    assert command(*FOLDER, *SHORT)[0] == 2


def stop_in_step(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Press Ctrl-C in the middle of the step with this number."""
    real, steps = clipn_training._Descent.check, iter(range(1, 100))

    def check(*args: Any, **named: Any) -> None:
        if next(steps) == number:
            signal.raise_signal(signal.SIGINT)
        real(*args, **named)

    monkeypatch.setattr(clipn_training._Descent, "check", check)


@pytest.mark.parametrize("number", [2, 6])  # of 4 + 3 steps
def test_ctrl_c_keeps_the_state_and_the_same_command_goes_on(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    assert command(*FOLDER, *SHORT)[0] == 0
    words = [*FOLDER[:-1], "out/b.pt", *SHORT]
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        stop_in_step(patch, number)
        code, _, err = command(*words)
    assert code == 130
    assert "the state is kept in out/b.training; the same command continues" in err
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (tmp_path / "out/b.pt").exists()
    code, _, err = command(*words, "--seed", "5")
    assert (code, "the state of a training with other settings or images" in err) == (2, True)
    code, _, err = command(*words)
    assert code == 0
    assert f"continuing from out/b.training (stage {'clip, step 2' if number == 2 else 'no_tower, step 2'})" in err
    assert equal(tmp_path / "out/a.pt", tmp_path / "out/b.pt")


def write_base(path: Path) -> dict[str, torch.Tensor]:
    """A file with the weights of a plain CLIP."""
    torch.manual_seed(3)
    state = {file_name(n): t for n, t in Clipn(TINY).state_dict().items() if not n.startswith(("text_no", "prompt_no"))}
    torch.save(state, path)
    return state


def test_only_no_leaves_the_base_as_it_is(command: Command, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base.pt")
    assert command(*FOLDER, *SHORT, "--only-no", "--base", "base.pt")[0] == 0
    trained = load_clipn(tmp_path / "out/a.pt", clip_config(str(tmp_path / "out/a.json"))).state_dict()
    assert all(
        torch.equal(t, base[file_name(n)]) for n, t in trained.items() if not n.startswith(("text_no", "prompt_no"))
    )
    assert not torch.equal(trained["text_no.positional_embedding"], trained["text.positional_embedding"])
    assert trained["prompt_no"].any()


def test_pairs_train_and_report_on_a_data_set(command: Command, tmp_path: Path) -> None:
    rows = [f"images/train/{name}/{n:02d}.png,{name} picture {n}\n" for name in COLOURS for n in range(6)]
    (tmp_path / "pairs.csv").write_text("path,caption\n" + "".join(rows) + "images/none.png,nothing\n")
    words = ["--pairs", "pairs.csv", "-o", "p.pt", *SHORT]
    code, _, err = command(*words)
    assert (code, "line 26 of pairs.csv: images/none.png: this image file does not exist" in err) == (2, True)
    code, out, _ = command(*words, "--on-bad-image", "skip")
    assert (code, "no data set to report on" in out) == (0, True)
    code, out, _ = command(*words[:3], "q.pt", *SHORT, "--on-bad-image", "skip", "--report-on", "folder:images")
    assert (code, "trained on 24 images" in out, "ATD AUROC" in out) == (0, True, True)
    assert equal(tmp_path / "p.pt", tmp_path / "q.pt")


def test_held_out_classes_are_not_trained_on_and_are_reported(command: Command, tmp_path: Path) -> None:
    assert command(*FOLDER, *SHORT, "--hold-out", "green", "--id-classes", "red")[0] == 0
    report = json.loads((tmp_path / "out/a.report.json").read_text())
    assert report["num_images"] == 24
    counts = {name: values["num_id"] for name, values in report["detection"].items()}
    assert counts == {"red": 6, "blue, red, white": 12}


def test_a_subset_trains_as_if_nothing_else_were_there(command: Command, tmp_path: Path) -> None:
    """The images that are left out, first, last and a whole class, do not reach the weights."""
    subset = ["--subset-of-each-class", "2:5", "--hold-out", "blue"]
    assert command(*FOLDER, *SHORT, *subset)[0] == 0
    for path in (tmp_path / "images/train").glob("*/*.png"):
        if path.parent.name == "blue" or not 2 <= int(path.stem) < 5:
            Image.new("RGB", (8, 8), (1, 2, 3)).save(path)
    assert command(*FOLDER[:-1], "out/b.pt", *SHORT, *subset)[0] == 0
    assert equal(tmp_path / "out/a.pt", tmp_path / "out/b.pt")


BAD_INPUT = {
    "neither": (["-o", "a.pt"], "give either --dataset or --pairs"),
    "both": ([*FOLDER, "--pairs", "a.csv"], "give either --dataset or --pairs"),
    "no base": ([*FOLDER, "--only-no"], "--only-no and --base are given together"),
    "another suffix": (["--dataset", "folder:images", "-o", "a.bin"], "its name must end in .pt"),
    "no steps": ([*FOLDER, "--steps-clip", "0"], "--steps-clip is 0; it must be at least 1"),
    "rate of 0": ([*FOLDER, "--rate-no", "0"], "--rate-no is 0.0; it must be above 0"),
    "rate that is none": ([*FOLDER, "--rate-no", "nan"], "--rate-no is nan; it must be above 0"),
    "negative weight": ([*FOLDER, "--tso-weight", "-1"], "--tso-weight is -1.0; it must not be below 0"),
    "unknown class": ([*FOLDER, "--id-classes", "rad"], "unknown class (--id-classes) 'rad' (did you mean 'red'?)"),
    "no OOD class": ([*FOLDER, "--id-classes", "red,green,blue,white"], "4 of 4 classes; some must be ID, some OOD"),
    "held out": ([*FOLDER, "--hold-out", "red,green,blue"], "leaves 1 classes to train on"),
    "span": ([*FOLDER, "--subset-of-each-class", "0:7"], "the smallest class has 6 images"),
    "span backwards": ([*FOLDER, "--subset-of-each-class", "3:3"], "expected FIRST:LAST with FIRST below LAST"),
    "too many": ([*FOLDER, "--images", "37"], "--images is 37; it must be in 4..36"),
    "unknown model": ([*FOLDER, "--model", "ViT-B-61"], "'ViT-B-61' (did you mean 'ViT-B-16'?)"),
    "no folder": (["--dataset", "folder:none", "-o", "a.pt"], "none: no such folder"),
    "pairs with classes": (["--pairs", "a.csv", "-o", "a.pt", "--hold-out", "a"], "need classes; pairs have none"),
    "no pairs": (["--pairs", "a.csv", "-o", "a.pt"], "there is no file a.csv"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_line_and_exit_2(command: Command, tmp_path: Path, name: str) -> None:
    words, told = BAD_INPUT[name]
    code, out, err = command(*words, "-q")
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("**/*.pt"))


def test_images_are_drawn_in_proportion_to_the_classes(command: Command) -> None:
    del command  # made the folder
    data = open_data_set("folder:images")  # blue 6, green 12, red 12, white 6
    idx, labels = choose_images(data, range(4), span=None, num_images=19, seed=0)
    assert np.bincount(labels).tolist() == [3, 7, 6, 3]  # 3.17, 6.33, 6.33, 3.17: the first largest remainder
    assert np.array_equal(data.train.labels[idx], labels)
    assert len(np.unique(idx)) == 19
    assert np.array_equal(idx, choose_images(data, range(4), span=None, num_images=19, seed=0)[0])
    assert not np.array_equal(idx, choose_images(data, range(4), span=None, num_images=19, seed=1)[0])
    idx, labels = choose_images(data, [1, 3], span=(2, 4), num_images=None, seed=0)
    assert idx.tolist() == [8, 9, 32, 33]
    assert labels.tolist() == [0, 0, 1, 1]


def test_id_classes_are_those_of_trials_unless_given(command: Command) -> None:
    del command
    data = open_data_set("digits")
    sets = name_id_sets(data, [], [])
    # The first four of the seeds' legacy permutations of ten.
    assert list(sets.values()) == [[2, 8, 4, 9], [2, 9, 6, 4]]


def test_help_loads_no_torch(tmp_path: Path) -> None:
    program = (
        "import runpy, sys\nsys.argv = ['x', '--help']\n"
        "try: runpy.run_module('experiments.train_clipn', run_name='__main__')\n"
        "except SystemExit: print('loaded:', [m for m in ('torch', 'ray', 'mlflow') if m in sys.modules])"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert "usage: train_clipn.py" in outcome.stdout
    assert outcome.stdout.splitlines()[-1] == "loaded: []"


def test_it_runs_as_a_file_from_anywhere(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "experiments" / "train_clipn.py"
    outcome = subprocess.run(
        [sys.executable, script, "--dataset", "digts", "-o", "a.pt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (outcome.returncode, outcome.stderr.count("\n")) == (2, 1)
    assert "did you mean 'digits'?" in outcome.stderr
