"""Kinds of weights files: what is read, and what is called by its name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from models.clipn.weights import read_tensors

TENSORS = {"a": torch.arange(3.0), "b": torch.ones(2)}


@pytest.mark.parametrize("content", [TENSORS, {"state_dict": TENSORS, "epoch": 1}, {"model": TENSORS, "epoch": 1}])
@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_torch_save_old_and_new(tmp_path: Path, content: object, legacy: bool) -> None:
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    found = read_tensors(tmp_path / "w.pt")
    assert {name: tensor.tolist() for name, tensor in found.items()} == {"a": [0.0, 1.0, 2.0], "b": [1.0, 1.0]}


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (torch.eye(2).to_sparse(), "tensor b is sparse (torch.sparse_coo)"),
        (torch.ones(2, device="meta"), "tensor b has no values (a meta tensor)"),
    ],
)
def test_tensors_that_cannot_be_used_are_named(tmp_path: Path, tensor: torch.Tensor, told: str) -> None:
    torch.save({"a": torch.ones(1), "b": tensor}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"save the weights as dense tensors") as caught:
        read_tensors(tmp_path / "w.pt")
    assert told in str(caught.value)


def test_a_torchscript_archive_is_called_that(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        for name in ("w/data.pkl", "w/constants.pkl", "w/code/__torch__.py", "w/version"):
            archive.writestr(name, b"")
    with pytest.raises(ValueError, match="is a TorchScript archive, a program with its weights"):
        read_tensors(tmp_path / "w.pt")
