"""Weights of a plain CLIP by tag or file, and what is said where they cannot be had. Nothing is downloaded here."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from data.files import file_hash
from models.clipn import pretrained as clip_pretrained
from models.clipn.model import Clipn
from models.clipn.pretrained import load_pretrained, load_pretrained_clip
from models.clipn.weights import file_name

CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 8, "patch_size": 4, "layers": 1, "width": 8, "head_width": 4},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}
TAG = "laion2b_s34b_b88k"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and no network."""
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))

    def fail(known: object, cache_dir: str) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr(clip_pretrained, "download_pretrained", fail)
    return tmp_path / "cache"


def quiet(line: str) -> None:
    """Progress that nobody reads."""


def plain_clip(path: Path) -> Clipn:
    """Random weights, of which the file gets the image and text tower alone."""
    clipn = Clipn(CONFIG)
    own = {n: v for n, v in clipn.state_dict().items() if not n.startswith(("text_no.", "prompt_no"))}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({file_name(name): value for name, value in own.items()}, path)
    return clipn


@pytest.mark.parametrize(
    ("load", "is_shared"),
    [
        pytest.param(load_pretrained_clip, False, id="for training, which would change both towers"),
        pytest.param(load_pretrained, True, id="for features, which need no second copy"),
    ],
)
def test_a_weights_file(load: Callable[..., Clipn], is_shared: bool, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps(CONFIG))
    clipn = plain_clip(tmp_path / "clip.safetensors")
    loaded = load(str(tmp_path / "model.json"), str(tmp_path / "clip.safetensors"), progress=quiet)
    expected = clipn.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert not loaded.training
    assert (loaded.text_no is loaded.text) == is_shared


def test_without_network_the_error_says_which_file_to_put_where(cache: Path) -> None:
    lines: list[str] = []
    with pytest.raises(ValueError, match=r"cannot be downloaded \(ConnectionError\)") as caught:
        load_pretrained_clip("ViT-B-16", TAG, progress=lines.append)
    place = cache / "open_clip" / f"ViT-B-16.{TAG}.safetensors"
    assert f"get open_clip_model.safetensors of laion/CLIP-ViT-B-16-laion2B-s34B-b88K and put it at {place}" in str(
        caught.value
    )
    assert lines == [
        f"fetching the weights {TAG} of ViT-B-16 (laion/CLIP-ViT-B-16-laion2B-s34B-b88K) into {place.parent}"
    ]


def test_the_hub_librarys_warnings_at_its_retries_are_held_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def retry(known: object, cache_dir: str) -> str:
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 8s")
        raise ConnectionError("no network")

    monkeypatch.setattr(clip_pretrained, "download_pretrained", retry)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    with pytest.raises(ValueError, match="cannot be downloaded"):
        load_pretrained_clip("ViT-B-16", TAG, progress=quiet)
    assert caplog.records == []
    logging.getLogger("huggingface_hub.utils._http").warning("afterwards")
    assert caplog.messages == ["afterwards"]


def test_a_file_put_there_is_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_pretrained, "clip_config", lambda model: dict(CONFIG))
    clipn = plain_clip(cache / "open_clip" / f"ViT-B-16.{TAG}.safetensors")
    loaded = load_pretrained_clip("ViT-B-16", TAG, progress=quiet)
    torch.testing.assert_close(loaded.state_dict()["visual.proj"], clipn.state_dict()["visual.proj"])
    assert type(loaded.text.get_submodule("transformer.resblocks.0.mlp.gelu")) is torch.nn.GELU


def test_a_flipped_bit_in_a_downloaded_file_is_noticed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client keeps large files under their SHA-256 and gives a link to them."""
    monkeypatch.setattr(clip_pretrained, "clip_config", lambda model: dict(CONFIG))
    link = cache / "open_clip" / "snapshots" / "open_clip_model.safetensors"
    plain_clip(link)
    blob = cache / "open_clip" / "blobs" / file_hash(link)
    blob.parent.mkdir()
    link.rename(blob)
    link.symlink_to(blob)
    monkeypatch.setattr(clip_pretrained, "download_pretrained", lambda known, cache_dir: str(link))
    load_pretrained_clip("ViT-B-16", TAG, progress=quiet)
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(ValueError, match=rf"the weights in {blob} are damaged; remove that file"):
        load_pretrained_clip("ViT-B-16", TAG, progress=quiet)


def test_tags_with_quick_gelu_get_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_pretrained, "clip_config", lambda model: dict(CONFIG))
    plain_clip(cache / "open_clip" / "ViT-B-16.openai.safetensors")
    loaded = load_pretrained_clip("ViT-B-16", "openai", progress=quiet)
    assert type(loaded.text.get_submodule("transformer.resblocks.0.mlp.gelu")).__name__ == "QuickGELU"


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    plain_clip(tmp_path / "clip.safetensors")
    with pytest.raises(
        ValueError, match=r"^clipn\.pretrained: .*of another shape: .*visual\.proj \(8, 8\), not \(768, 512\)"
    ):
        load_pretrained_clip("ViT-B-16", str(tmp_path / "clip.safetensors"), progress=quiet)


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("ViT-B-16", "laion2b_s34b_b79k", r"unknown clipn\.pretrained .* \(did you mean 'laion2b_s34b_b88k'\?\)"),
        ("ViT-B-16", "absent.pt", "neither a file nor a tag of ViT-B-16"),
        ("ViT-B16", TAG, "unknown clipn.model"),
        ("ViT-L-14-CLIPA", "datacomp1b", "another preprocessing than CLIP's"),
    ],
)
def test_unknown_and_unfit_tags_are_told(model: str, pretrained: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_pretrained_clip(model, pretrained, progress=quiet)
