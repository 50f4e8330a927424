"""Weights that a user gave are opened before anything starts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from models.clipn.model import Clipn
from models.clipn.weights import save_clipn
from orchestrator import weights
from orchestrator.settings.reading import make_trial
from orchestrator.settings.trial import TrialConfig

CONFIG: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 8, "patch_size": 4, "layers": 1, "width": 8, "head_width": 4},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


def trial(strategy: str = "vlpure", **settings: Any) -> TrialConfig:
    return make_trial(dataset="digits", mismatch_ratio=0.2, ood_ratio=0.6, strategy=strategy, seed=0, **settings)


def clipn(folder: Path, config: dict[str, Any], damage: Callable[[Clipn], None]) -> TrialConfig:
    """A trial with a checkpoint of the config, and CONFIG as its architecture."""
    (folder / "model.json").write_text(json.dumps(CONFIG))
    model = Clipn(config)
    damage(model)
    save_clipn(model, folder / "c.pt", epoch=1, name="")
    return trial(clipn={"checkpoint": str(folder / "c.pt"), "model": str(folder / "model.json")})


def encoder(folder: Path, name: str) -> TrialConfig:
    """A linear trial on an encoder of that name, whose weights are a LeViT's."""
    save_file(timm.create_model("levit_128s", num_classes=0).state_dict(), folder / "e.safetensors")
    named = f"timm:{name}@{folder / 'e.safetensors'}"
    return trial("random", recipe={"network": "linear", "encoder": named, "flip": False, "crop_padding": 0})


def with_nan(model: Clipn) -> None:
    torch.nn.init.constant_(model.text_no.text_projection, torch.nan)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: clipn(folder, CONFIG, lambda model: None), None),
        (
            lambda folder: clipn(folder, CONFIG | {"embed_dim": 16}, lambda model: None),
            r"clipn\.checkpoint: .*c\.pt does not fit the architecture .*visual\.proj \(8, 16\), not \(8, 8\)",
        ),
        (
            lambda folder: clipn(folder, CONFIG, with_nan),
            r"clipn\.checkpoint: .*c\.pt is damaged: text_no\.text_projection holds values that are not finite",
        ),
        (lambda folder: encoder(folder, "levit_128s"), None),
        (
            lambda folder: encoder(folder, "resnet18"),
            r"recipe\.encoder: .*e\.safetensors does not fit the architecture: missing \['bn1\.bias'",
        ),
        (lambda folder: encoder(folder, "resnet81"), r"recipe\.encoder: timm has no model 'resnet81'"),
    ],
    ids=["sound", "other shapes", "NaN", "sound encoder", "another encoder", "no encoder"],
)
def test_what_does_not_fit_is_told(make: Callable[[Path], TrialConfig], told: str | None, tmp_path: Path) -> None:
    job = weights._job([trial("random"), make(tmp_path)])
    if told is None:
        weights._open(job)
        return
    with pytest.raises(ValueError, match=f"^{told}") as caught:
        weights._open(job)
    assert "\n" not in str(caught.value)


def test_it_is_told_by_another_process(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^recipe\.encoder: timm has no model 'resnet81'; timm.list_models"):
        weights.check_weights([encoder(tmp_path, "resnet81")])


def test_nothing_is_started_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "not there")
    weights.check_weights([trial(), trial("random", clipn={"checkpoint": "nowhere.pt"})])


def test_a_check_that_dies_is_no_mistake_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    died = subprocess.CompletedProcess([], -9, stdout="", stderr="a\nKilled")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: died)
    with pytest.raises(Exception, match=r"^the weights could not be checked \(exit code -9: Killed\)$") as caught:
        weights.check_weights([encoder(tmp_path, "levit_128s")])
    assert type(caught.value).__name__ == "RunStopped"
