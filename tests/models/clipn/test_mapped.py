"""Pages of mapped weights: given back after use, read again unchanged, and never lost if they lie elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from data.imageset import ArrayImages, ImageSet, make_data_set
from models.clipn.features import FeatureEntries
from models.clipn.mapped import MappedPages
from models.clipn.model import Clipn
from models.clipn.source import ClipnSource
from models.clipn.weights import check_finite, load_clipn, save_clipn

WIDTH = 256
CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 8, "patch_size": 4, "layers": 3, "width": WIDTH, "head_width": 64},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}
BLOCK_KB = 12 * WIDTH**2 * 4 // 1024
"""A block's weights: 4 squares of the width for attention, 8 for the MLP."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="needs Linux")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "łódź 1.pt"  # maps has spaces and other letters as they are
    save_clipn(Clipn(CONFIG), path, epoch=1, name="small")
    return path


def resident_kb(path: Path) -> int:
    """The file's resident memory in this process, in KB."""
    total, inside = 0, False
    for line in os.fsdecode(Path("/proc/self/smaps").read_bytes()).splitlines():
        if "-" in line.split(" ", 1)[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


def test_pages_are_given_back_and_read_again(checkpoint: Path) -> None:
    clipn = load_clipn(checkpoint, CONFIG)
    before = {name: tensor.clone() for name, tensor in clipn.state_dict().items()}
    full = resident_kb(checkpoint)
    assert full > 3 * BLOCK_KB
    MappedPages().give_back(clipn.state_dict().values())
    assert resident_kb(checkpoint) < 64  # the file's head, which is no tensor
    assert all(torch.equal(tensor, before[name]) for name, tensor in clipn.state_dict().items())
    assert resident_kb(checkpoint) == full


def test_memory_that_is_no_file_keeps_its_values() -> None:
    own = torch.arange(100_000)
    MappedPages().give_back([own])
    assert own.equal(torch.arange(100_000))


def test_a_tower_holds_one_block_at_a_time_with_equal_features(checkpoint: Path) -> None:
    images = torch.randn(2, 3, 8, 8)
    plain = load_clipn(checkpoint, CONFIG)
    with torch.inference_mode():
        expected = plain.encode_image(images)
    del plain
    clipn = load_clipn(checkpoint, CONFIG)
    MappedPages().give_back_after_use(clipn)
    seen: list[int] = []
    for block in clipn.visual.transformer.resblocks:
        block.register_forward_pre_hook(lambda module, inputs: seen.append(resident_kb(checkpoint)))
    with torch.inference_mode():
        assert torch.equal(clipn.encode_image(images), expected)
    assert len(seen) == 3
    assert max(seen) < BLOCK_KB
    assert resident_kb(checkpoint) < BLOCK_KB


def test_computing_features_holds_one_block_at_a_time(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path))
    (tmp_path / "model.json").write_text(json.dumps(CONFIG))
    source = ClipnSource(checkpoint=checkpoint, model=str(tmp_path / "model.json"))
    images = ImageSet(images=ArrayImages(np.zeros((2, 8, 8, 3), dtype=np.uint8)), labels=np.arange(2))
    half = (0.5, 0.5, 0.5)
    data_set = make_data_set(name="small", class_names=("cat", "dog"), train=images, test=images, mean=half, std=half)
    features = FeatureEntries(data_set, source, "cpu", lambda line: None)
    features.of_images()
    assert resident_kb(checkpoint) < BLOCK_KB


def test_checking_weights_leaves_few_pages(checkpoint: Path) -> None:
    clipn = load_clipn(checkpoint, CONFIG)
    check_finite(clipn, "weights")
    # Not none: reading a tensor makes the pages around it resident too, those of tensors that were checked before.
    assert resident_kb(checkpoint) < BLOCK_KB


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 6, 40])
def test_one_value_that_is_not_finite_is_found(dtype: torch.dtype, value: float, place: int) -> None:
    network = nn.ParameterDict({"good": torch.ones(3, dtype=dtype), "none": torch.ones(0), "bad": torch.ones(41)})
    network["bad"] = network["bad"].detach().to(dtype)
    check_finite(network, "weights")
    network["bad"].data[place] = value
    with pytest.raises(ValueError, match=r"^weights is damaged: bad holds values that are not finite$"):
        check_finite(network, "weights")
