"""Reading and writing checkpoints in the reference's format: strict, and tensors only."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.clipn.model import Clipn
from models.clipn.weights import load_clipn, save_clipn

CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 8, "patch_size": 4, "layers": 1, "width": 8, "head_width": 4},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def clipn() -> Clipn:
    """A CLIPN in which no two tensors are equal."""
    clipn = Clipn(CONFIG)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in clipn.parameters():
            parameter.normal_(generator=generator)
    return clipn


@pytest.fixture
def tensors(clipn: Clipn, tmp_path: Path) -> Tensors:
    """The tensors of a written checkpoint, without `module.`."""
    save_clipn(clipn, tmp_path / "first.pt", epoch=3, name="tiny")
    state = torch.load(tmp_path / "first.pt")["state_dict"]
    return {name.removeprefix("module."): value for name, value in state.items()}


def same_weights(left: Clipn, right: Clipn) -> bool:
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_is_written_is_the_references_format(clipn: Clipn, tmp_path: Path) -> None:
    path = tmp_path / "new" / "clipn.pt"
    save_clipn(clipn, path, epoch=3, name="tiny")
    content = torch.load(path)
    assert (content["epoch"], content["name"]) == (3, "tiny")
    state = content["state_dict"]
    block = "transformer.resblocks.0.attn.in_proj_weight"
    for written, own in {
        "token_embedding_no.weight": "text_no.token_embedding.weight",
        "token_embedding.weight": "text.token_embedding.weight",
        "positional_embedding_no": "text_no.positional_embedding",
        block.replace("transformer", "transformer_no"): f"text_no.{block}",
        block: f"text.{block}",
        f"visual.{block}": f"visual.{block}",
        "prompt_no": "prompt_no",
        "logit_scale": "logit_scale",
    }.items():
        assert torch.equal(state[f"module.{written}"], clipn.get_parameter(own))
    assert not any(name.startswith(("module.text.", "module.text_no.")) for name in state)


def as_safetensors(tensors: Tensors, path: Path) -> Path:
    save_file(tensors, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def as_torch(content: Callable[[Tensors], Mapping[str, Any]]) -> Callable[[Tensors, Path], Path]:
    def write(tensors: Tensors, path: Path) -> Path:
        torch.save(content(tensors), path)
        return path

    return write


def prefixed(tensors: Tensors) -> Tensors:
    return {f"module.{name}": value for name, value in tensors.items()}


@pytest.mark.parametrize(
    "write",
    [
        as_torch(lambda tensors: tensors),
        as_torch(prefixed),
        as_torch(lambda tensors: {"state_dict": tensors}),
        as_torch(lambda tensors: {"epoch": 1, "state_dict": prefixed(tensors), "scaler": {"scale": 65536.0}}),
        as_torch(lambda tensors: {"state_dict": prefixed(tensors), "optimizer": {"lr": np.float64(1e-3)}}),
        as_safetensors,
    ],
    ids=["bare", "bare, module.", "nested", "nested, module.", "numpy rate", "safetensors"],
)
def test_every_accepted_form_gives_the_same_model(
    write: Callable[[Tensors, Path], Path], clipn: Clipn, tensors: Tensors, tmp_path: Path
) -> None:
    loaded = load_clipn(write(tensors, tmp_path / "clipn.pt"), CONFIG)
    assert same_weights(loaded, clipn)
    assert not loaded.training


def test_numpy_rates_under_their_old_name(clipn: Clipn, tensors: Tensors, tmp_path: Path) -> None:
    """The reference's files were written under NumPy 1, where the scalar's constructor had another name."""
    path = tmp_path / "clipn.pt"
    torch.save({"state_dict": tensors, "optimizer": {"lr": np.float64(1e-3)}}, path)
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    (pickled,) = (name for name in records if name.endswith("data.pkl"))
    assert b"cnumpy._core.multiarray\nscalar" in records[pickled]
    records[pickled] = records[pickled].replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    assert same_weights(load_clipn(path, CONFIG), clipn)


def test_no_code_of_a_file_is_run(tensors: Tensors, tmp_path: Path) -> None:
    witness = tmp_path / "witness"

    class Attack:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return os.mkdir, (str(witness),)

    path = tmp_path / "clipn.pt"
    torch.save({"state_dict": tensors, "optimizer": Attack()}, path)
    with pytest.raises(
        ValueError, match=r"clipn\.pt cannot be read: it holds posix\.mkdir, and only tensors are loaded"
    ):
        load_clipn(path, CONFIG)
    assert not witness.exists()


def without(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: value for name, value in tensors.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("ln_final_no.bias", "visual.proj"), r"\(2 missing: visual.proj, ln_final_no.bias\)"),
        (lambda t: t | {"visual.more": torch.zeros(1)}, r"\(1 extra: visual.more\)"),
        (
            lambda t: t | {"text_projection_no": torch.zeros(8, 9)},
            r"\(1 of another shape: text_projection_no \(8, 9\), not \(8, 8\)\)",
        ),
        (lambda t: t | {"prompt_no": torch.zeros(16, 77, 8)}, r"prompt_no \(16, 77, 8\), not \(16, 8, 8\)"),
        (without("prompt_no"), "hand-crafted CLIPN"),
        (lambda t: {n: v for n, v in t.items() if "_no" not in n}, r"18 missing: prompt_no, .* and 10 more\)"),
        (lambda t: {"weight": torch.zeros(3)}, r"missing: .* and \d+ more; 1 extra: weight"),
        (lambda t: {}, "holds no state_dict of tensors"),
        (lambda t: {"state_dict": [1, 2]}, "holds no state_dict of tensors"),
    ],
)
def test_wrong_tensors_are_named(
    change: Callable[[Tensors], Any], message: str, tensors: Tensors, tmp_path: Path
) -> None:
    path = tmp_path / "clipn.pt"
    torch.save(change(tensors), path)
    with pytest.raises(ValueError, match=message) as caught:
        load_clipn(path, CONFIG)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 1e-5, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_truncated_file_is_told(share: float, suffix: str, tensors: Tensors, tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    torch.save(tensors, whole)
    if suffix == ".safetensors":
        whole = as_safetensors(tensors, whole)
    path = tmp_path / f"cut{suffix}"
    content = whole.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"cut\{suffix}.* (truncated|damaged) or not a weights file"):
        load_clipn(path, CONFIG)


def zip_of(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"some text\n" * 99, b"\x89PNG\r\n\x1a\n" + bytes(999), zip_of("a.txt", b"b"), zip_of("x/data.pkl", b"\x80\x02K")],
    ids=["text", "picture", "zip", "broken pickle"],
)
def test_other_files_are_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.pt .*not a weights file|other\.pt .*damaged"):
        load_clipn(path, CONFIG)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(ValueError, match=r"clipn\.checkpoint: there is no file"):
            load_clipn(path, CONFIG)


def test_a_failed_write_leaves_the_old_file(clipn: Clipn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clipn.pt"
    path.write_bytes(b"old")

    def fail(content: object, file: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_clipn(clipn, path, epoch=1, name="")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
