"""A short part of `make fuzz`, always the same inputs; and each kind of fault that it found."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from models.clipn.model import Clipn
from models.clipn.source import clip_config
from models.clipn.weights import read_tensors
from orchestrator.settings.reading import make_trial
from tests.fuzz import CLIP, attempt, fault_of

TRIAL: dict[str, Any] = {
    "dataset": "digits", "mismatch_ratio": 0.2, "ood_ratio": 0.2, "strategy": "vlpure", "seed": 0,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "number"), [("preset", 200), ("set", 80), ("model", 200), ("checkpoint", 500)])
def test_random_input_is_accepted_or_refused_in_one_line(kind: str, number: int) -> None:
    outcomes = [(seed, *attempt(kind, seed)) for seed in range(number)]
    assert [each for each in outcomes if each[1] == "failed"] == []
    assert {each[1] for each in outcomes} == {"refused", "accepted"}


@pytest.mark.parametrize(
    ("error", "is_fault"),
    [
        (ValueError("rounds = 0"), False), (FileNotFoundError(2, "no such file", "x"), False), (ValueError(""), True),
        (TypeError("unhashable"), True), (UnicodeError("no text"), True), (OSError("no file named"), True),
        (TimeoutError("longer"), True), (OverflowError("too large"), True),
    ],
)  # fmt: skip
def test_what_counts_as_a_fault(error: Exception, is_fault: bool) -> None:
    assert (fault_of(error) is not None) == is_fault


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": {"name": ["a"]}}, r"unknown recipe '\['a'\]'; known: paper-cifar"),
        ({"purity": {"detector": ["a"]}}, r"^purity\.detector = \['a'\]: input should be 'atd'"),
    ],
)
def test_a_list_for_a_name_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_trial(**TRIAL | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "is not an open_clip config: nested too deeply"),
        ("9" * 5_000, "is not an open_clip config: Exceeds the limit"),
        (json.dumps(CLIP | {"text_cfg": 3}), "text_cfg needs settings of its own, in braces"),
        (json.dumps(CLIP | {"embed_dim": "8"}), "embed_dim is 8; expected a whole number from 1 to 100,000"),
        (
            json.dumps(CLIP | {"vision_cfg": {"image_size": True}}),
            r"vision_cfg\.image_size is True; expected a whole number from 1 to 10,000",
        ),
        (
            json.dumps(CLIP | {"text_cfg": {"context_length": 10**30}}),
            r"text_cfg\.context_length is 1000000000000000000000000000000; expected a whole number from 1 to 10,000",
        ),
    ],
)
def test_a_model_config_of_wrong_types_is_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ValueError, match=f"^clipn\\.model: .*{message}"):
        clip_config(str(tmp_path / "m.json"))


def test_a_model_config_that_open_clip_cannot_build_is_told() -> None:
    with pytest.raises(ValueError, match=r"^clipn\.model: open_clip cannot build this architecture: .*'x'$"):
        Clipn.without_weights(CLIP | {"text_cfg": {"x": 1}})


def test_a_checkpoint_with_a_damaged_directory_is_told(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer)
    content = bytearray(buffer.getvalue())
    content[content.index(b"PK\x01\x02")] = 0
    (tmp_path / "c.pt").write_bytes(content)
    assert zipfile.is_zipfile(tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"^clipn\.checkpoint: .*c\.pt cannot be read: it is damaged$"):
        read_tensors(tmp_path / "c.pt")
