"""CLIPN by flags: bad weights are told in one line and leave nothing behind; a plain CLIP serves MCM."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from experiments.commands.flags import add_trial_flags, trial_overrides
from experiments.trial import main, make_parser
from models.clipn import pretrained as clip_pretrained
from models.clipn.model import Clipn
from models.clipn.weights import file_name, save_clipn

CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 8, "patch_size": 4, "layers": 1, "width": 8, "head_width": 4},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}
TINY = [
    "--rounds", "2", "--set", "recipe.steps=2", "--set", "recipe.width=2", "--set", "recipe.batch_size=4",
]  # fmt: skip
Trial = Callable[..., int]


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trial:
    """trial.py's main in this process, in an empty folder with an empty cache and without a network."""
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def fail(known: object, cache_dir: str) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr(clip_pretrained, "download_pretrained", fail)
    (tmp_path / "model.json").write_text(json.dumps(CONFIG))

    def call(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["trial.py", "--strategy", "vlpure", *words])
        return main()

    return call


def checkpoint(path: Path, config: dict[str, Any] = CONFIG) -> Clipn:
    """A CLIPN of random weights and its file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clipn = Clipn(config)
    save_clipn(clipn, path, epoch=1, name="")
    return clipn


def plain_clip(path: Path) -> None:
    """A file with a plain CLIP of random weights."""
    own = checkpoint(path.with_suffix(".pt")).state_dict()
    save_file(
        {file_name(n): v.contiguous() for n, v in own.items() if not n.startswith(("text_no.", "prompt_no"))}, path
    )


def truncated(path: Path) -> None:
    checkpoint(path)
    path.write_bytes(path.read_bytes()[:5000])


def without_a_tensor(path: Path) -> None:
    checkpoint(path)
    content = torch.load(path, weights_only=True)
    del content["state_dict"]["module.text_projection_no"]
    content["state_dict"]["module.surplus"] = torch.zeros(1)
    torch.save(content, path)


def of_another_width(path: Path) -> None:
    checkpoint(path, CONFIG | {"embed_dim": 16})


def with_nan(path: Path) -> None:
    checkpoint(path)
    content = torch.load(path, weights_only=True)
    content["state_dict"]["module.visual.proj"].fill_(torch.nan)
    torch.save(content, path)


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "clipn.checkpoint: there is no file"),
    "a folder": (Path.mkdir, "clipn.checkpoint: there is no file"),
    "empty": (Path.touch, "is truncated or not a weights file"),
    "truncated": (truncated, "is truncated or not a weights file"),
    "no tensors": (lambda path: torch.save({"state_dict": {"a": 1}}, path), "holds no state_dict of tensors"),
    "other tensors": (without_a_tensor, "(1 missing: text_projection_no; 1 extra: surplus)"),
    "misshaped": (of_another_width, "visual.proj (8, 16), not (8, 8)"),
    "NaN": (with_nan, "is damaged: visual.proj holds values that are not finite"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_checkpoint_is_one_line_and_leaves_no_half_written_store(
    case: str, trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = BAD[case]
    make(tmp_path / "bad.pt")
    assert trial("--clipn-checkpoint", "bad.pt", "--clip-model", "model.json", "-o", "out", *TINY, "-q") == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("trial.py: error: ")
    assert message in line
    assert "bad.pt" in line
    assert printed.out == ""
    assert not left_behind(tmp_path / "cache" / "features")
    assert not left_behind(tmp_path / "out" / "ledger")


def left_behind(folder: Path) -> list[Path]:
    """The files below a folder, apart from empty ones that are only there to be locked."""
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clip-pretrained", "openai"], "'atd' reads CLIPN's \"no\" texts, and the plain CLIP 'openai'"),
        (["--clip-pretrained", "openai", "--purity", "ctw"], "'ctw' reads CLIPN's \"no\" texts"),
        (["--clip-pretrained", "opnai", "--purity", "mcm"], "(did you mean 'openai'?)"),
        (["--clip-model", "ViT-B-32"], "clipn.model: 'ViT-B-32' is used only with a checkpoint"),
        (["--purity", "cwt"], "purity.detector = 'cwt'"),
        (
            ["--clip-pretrained", "openai", "--clipn-checkpoint", "model.json", "--purity", "mcm"],
            "are both given; give one",
        ),
    ],
)
def test_flags_that_do_not_fit_are_told_before_anything_is_made(
    words: list[str], message: str, trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trial(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "cache").exists()


def test_without_network_the_error_says_which_file_to_put_where(
    trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trial("--clip-pretrained", "laion2b_s34b_b88k", "--purity", "mcm", "-q") == 2
    (line,) = capsys.readouterr().err.splitlines()
    place = tmp_path / "cache" / "open_clip" / "ViT-B-16.laion2b_s34b_b88k.safetensors"
    assert f"get open_clip_model.safetensors of laion/CLIP-ViT-B-16-laion2B-s34B-b88K and put it at {place}" in line
    assert not left_behind(tmp_path / "cache" / "features")


def test_mcm_runs_on_a_plain_clip(trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain_clip(tmp_path / "clip.safetensors")
    words = ["--clip-pretrained", "clip.safetensors", "--clip-model", "model.json"]
    assert trial(*words, "--purity", "mcm", "-o", "out", *TINY) == 0
    assert "aubc" in capsys.readouterr().out
    (state,) = (tmp_path / "out" / "ledger").glob("*.json")
    assert json.loads(state.read_text())["trial"]["purity"]["detector"] == "mcm"
    assert not (tmp_path / "cache" / "clipn").exists()  # no stand-in was trained


def test_flags_are_shortcuts_for_settings() -> None:
    def overrides(*words: str) -> dict[str, Any]:
        return trial_overrides(make_parser().parse_args(list(words)))

    flags = (
        "--purity", "mcm", "--clipn-checkpoint", "a.pt", "--clip-model", "b", "--clip-pretrained", "c",
    )  # fmt: skip
    settings = {"detector": "mcm"}, {"checkpoint": "a.pt", "model": "b", "pretrained": "c"}
    assert overrides(*flags) == {"purity": settings[0], "clipn": settings[1]}
    assert overrides("--set", "purity.criterion=plain", "--purity", "ctw")["purity"] == {
        "criterion": "plain",
        "detector": "ctw",
    }
    assert overrides("--set", "purity.detector=ctw", "--purity", "mcm")["purity"] == {"detector": "mcm"}


def test_the_help_names_the_cache(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_trial_flags(parser)
    assert "$VLPURE_CACHE" in parser.format_help()
