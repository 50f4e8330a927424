"""Which CLIPN a run uses: identities that change with what changes numbers, and clear errors before any work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.cache import file_hash_once
from data.imageset import ArrayImages, DataSet, ImageSet, make_data_set
from data.sealed import seal
from models.clipn import source as clipn_source
from models.clipn.recipe import ClipRecipe, SmallClipnRecipe
from models.clipn.source import ClipnSource, clip_config, clipn_identity

PLAIN = {"embed_dim": 8, "vision_cfg": {"image_size": 8}, "text_cfg": {}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def image_set(seed: int, labels: tuple[int, ...] = (0, 1, 0, 1)) -> ImageSet:
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
    return ImageSet(images=ArrayImages(pixels), labels=np.array(labels))


def small_data_set(
    *, pretrain: ImageSet | None = None, train_seed: int = 1, names: tuple[str, ...] = ("cat", "dog")
) -> DataSet:
    return make_data_set(
        name="small",
        class_names=names,
        train=image_set(train_seed),
        test=image_set(2),
        pretrain=pretrain,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
    )


def test_the_stand_ins_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    templates = tmp_path / "templates.txt"
    templates.write_text("a {}")
    data_set, source = small_data_set(pretrain=image_set(0)), ClipnSource()
    own = clipn_identity(source, data_set)
    assert clipn_identity(ClipnSource(), small_data_set(pretrain=image_set(0), train_seed=9)) == own
    others = [
        clipn_identity(source, small_data_set(pretrain=image_set(5))),
        clipn_identity(source, small_data_set(pretrain=image_set(0, (1, 0, 0, 1)))),
        clipn_identity(source, small_data_set(pretrain=image_set(0), names=("cat", "horse"))),
        clipn_identity(ClipnSource(templates=templates), data_set),
        clipn_identity(ClipnSource(clean_names=True), data_set),
        clipn_identity(ClipnSource(domain="real"), data_set),
    ]
    monkeypatch.setattr(clipn_source, "STAND_IN_RECIPE", SmallClipnRecipe(clip=ClipRecipe(steps=7)))
    others.append(clipn_identity(source, data_set))
    assert len({own, *others}) == 8


def test_a_checkpoints_identity_is_its_content(tmp_path: Path) -> None:
    first, same, other = (tmp_path / name for name in ("first.pt", "same.pt", "other.pt"))
    config = tmp_path / "model.json"
    first.write_bytes(b"weights")
    same.write_bytes(b"weights")
    other.write_bytes(b"weightz")
    config.write_text(json.dumps(PLAIN))
    data_set = small_data_set()
    own = clipn_identity(ClipnSource(checkpoint=first), data_set)
    assert clipn_identity(ClipnSource(checkpoint=same), data_set) == own
    assert clipn_identity(ClipnSource(checkpoint=first), small_data_set(pretrain=image_set(0))) == own
    others = [
        clipn_identity(ClipnSource(checkpoint=other), data_set),
        clipn_identity(ClipnSource(checkpoint=first, model="ViT-B-32"), data_set),
        clipn_identity(ClipnSource(checkpoint=first, model=str(config)), data_set),
    ]
    assert len({own, *others}) == 4
    before = clipn_identity(ClipnSource(checkpoint=first, model=str(config)), data_set)
    config.write_text(json.dumps(PLAIN | {"quick_gelu": True}))
    assert clipn_identity(ClipnSource(checkpoint=first, model=str(config)), data_set) != before


def test_a_plain_clips_identity(tmp_path: Path) -> None:
    first, same, other = (tmp_path / name for name in ("first.safetensors", "same.safetensors", "other.safetensors"))
    first.write_bytes(b"weights")
    same.write_bytes(b"weights")
    other.write_bytes(b"weightz")
    data_set = small_data_set()
    own = clipn_identity(ClipnSource(pretrained=str(first)), data_set)
    assert clipn_identity(ClipnSource(pretrained=str(same)), data_set) == own
    others = [
        clipn_identity(ClipnSource(pretrained=str(other)), data_set),
        clipn_identity(ClipnSource(pretrained=str(first), model="ViT-B-32"), data_set),
        clipn_identity(ClipnSource(checkpoint=first), data_set),
        clipn_identity(ClipnSource(pretrained="laion2b_s34b_b88k"), data_set),
        clipn_identity(ClipnSource(pretrained="openai"), data_set),
        clipn_identity(ClipnSource(pretrained="openai", model="ViT-B-32"), data_set),
    ]
    assert len({own, *others}) == 7


def test_a_tag_is_checked_before_anything_is_downloaded() -> None:
    data_set = small_data_set()
    with pytest.raises(ValueError, match=r"clipn\.pretrained .*'laion2b_s34b_b79k' \(did you mean 'laion2b_s34b_b88k'"):
        clipn_identity(ClipnSource(pretrained="laion2b_s34b_b79k"), data_set)
    with pytest.raises(ValueError, match=r"clipn\.pretrained .*neither a file nor a tag of ViT-B-16.*absent\.pt"):
        clipn_identity(ClipnSource(pretrained="absent.pt"), data_set)


def test_a_checkpoint_and_a_plain_clip_are_not_both_used(tmp_path: Path) -> None:
    (tmp_path / "clipn.pt").write_bytes(b"weights")
    source = ClipnSource(checkpoint=tmp_path / "clipn.pt", pretrained="openai")
    with pytest.raises(ValueError, match=r"clipn\.pretrained: 'openai' and the checkpoint .*clipn\.pt are both given"):
        clipn_identity(source, small_data_set())


def test_a_files_hash_is_remembered_until_the_file_changes(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    first = file_hash_once(path)
    (remembered,) = (cache / "hashes").iterdir()
    remembered.write_text(json.dumps(seal({"sha256": "f" * 64}, remembered.stem)))
    assert file_hash_once(path) == "f" * 64
    os.utime(path, ns=(1, 1))
    assert file_hash_once(path) == first
    path.write_bytes(b"two!")
    assert file_hash_once(path) not in (first, "f" * 64)


def test_planning_needs_no_torch() -> None:
    code = (
        "import sys; from data.registry import open_data_set; from models.clipn.source import *;"
        "from models.clipn.bill import feature_bill;"
        "digits = open_data_set('digits'); print(clipn_identity(ClipnSource(), digits));"
        "assert feature_bill(digits, ClipnSource()).num_missing; clip_config('ViT-B-16');"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True, capture_output=True, text=True
    )
    assert len(done.stdout.strip()) == 64


def test_a_data_set_without_images_for_a_stand_in_needs_a_checkpoint() -> None:
    with pytest.raises(
        ValueError, match=r"clipn\.checkpoint: small has no images set apart .* give a CLIPN checkpoint"
    ):
        clipn_identity(ClipnSource(), small_data_set())


def test_contradictory_and_missing_settings_are_told(tmp_path: Path) -> None:
    data_set = small_data_set(pretrain=image_set(0))
    with pytest.raises(ValueError, match=r"clipn\.model: 'ViT-B-32' is used only with a checkpoint"):
        clipn_identity(ClipnSource(model="ViT-B-32"), data_set)
    with pytest.raises(ValueError, match=r"clipn\.checkpoint: there is no file .*absent\.pt"):
        clipn_identity(ClipnSource(checkpoint=tmp_path / "absent.pt"), data_set)
    with pytest.raises(ValueError, match="templates: there is no file"):
        clipn_identity(ClipnSource(templates=tmp_path / "absent.txt"), data_set)


def test_architectures() -> None:
    assert clip_config("ViT-B-16")["embed_dim"] == 512
    with pytest.raises(ValueError, match=r"unknown clipn\.model 'ViT-B16' \(did you mean 'ViT-B-16'\?\)"):
        clip_config("ViT-B16")
    with pytest.raises(ValueError, match="coca_ViT-B-32 is not a plain CLIP"):
        clip_config("coca_ViT-B-32")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not an open_clip config"),
        ("[]", "is not a plain CLIP"),
        ('{"embed_dim": 8}', "is not a plain CLIP"),
        (json.dumps(PLAIN | {"vision_cfg": {"image_size": [8, 16]}}), "only square images"),
    ],
)
def test_bad_config_files_are_told(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        clip_config(str(path))
    with pytest.raises(ValueError, match="there is no file"):
        clip_config(str(tmp_path / "absent.json"))


def test_a_damaged_memory_of_a_hash_is_hashed_again(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    first = file_hash_once(path)
    (remembered,) = (cache / "hashes").iterdir()
    content = remembered.read_bytes()
    for position in range(len(content)):
        remembered.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        assert file_hash_once(path) == first
    assert remembered.read_bytes() == content
