"""CLIPN over a data set: everything made once, then opened without its weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch.nn import functional

from data.imageset import ArrayImages, DataSet, ImageSet, make_data_set
from data.registry import open_data_set
from models import graphs
from models.clipn import source as clipn_source
from models.clipn import stand_in
from models.clipn.bill import feature_bill
from models.clipn.encode import TowerPass, encode_classes, network_input, resize_batch
from models.clipn.features import open_vision_language
from models.clipn.model import Clipn
from models.clipn.prompts import default_templates
from models.clipn.recipe import ClipRecipe, NoTowerRecipe, SmallClipnRecipe, small_clip_config, small_resnet_config
from models.clipn.source import ClipnSource
from models.clipn.stand_in import stand_in_path
from models.clipn.tokens import tokenize_classes
from models.clipn.training import new_clipn
from models.clipn.weights import file_name, load_clipn, save_clipn

NAMES = ("cat", "dog", "sea_lion")
QUICK = SmallClipnRecipe(clip=ClipRecipe(steps=2), no_tower=NoTowerRecipe(steps=2, num_passes=1))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a stand-in that is trained for two steps."""
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(clipn_source, "STAND_IN_RECIPE", QUICK)
    return tmp_path / "cache"


def small_data_set(names: tuple[str, ...] = NAMES) -> DataSet:
    generator = np.random.default_rng(0)
    pixels_NHW3 = generator.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(30) % len(names)
    train, test, pretrain = (
        ImageSet(images=ArrayImages(pixels_NHW3[part]), labels=labels[part])
        for part in (slice(0, 13), slice(13, 20), slice(20, 30))
    )
    half = (0.5, 0.5, 0.5)
    return make_data_set(
        name="small", class_names=names, train=train, test=test, pretrain=pretrain, mean=half, std=half
    )


def forbid_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let anything that loads weights or trains fail."""

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("something was computed again")

    monkeypatch.setattr("models.clipn.weights.load_clipn", fail)
    monkeypatch.setattr(stand_in, "_train", fail)


def expected_features(clipn: Clipn, data_set: DataSet) -> NDArray[np.float32]:
    pixels = data_set.train.images.load(np.arange(13))
    with torch.inference_mode():
        features_ND = clipn.encode_image(network_input(pixels, torch.device("cpu")))
        return np.asarray(functional.normalize(features_ND, dim=1))


def test_the_stand_in_is_trained_once_and_everything_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    data_set, lines = small_data_set(), list[str]()
    assert feature_bill(data_set, ClipnSource()).num_missing == 13
    vision_language = open_vision_language(data_set, ClipnSource(), progress=lines.append)
    assert "small: training a small CLIPN on 10 images" in lines[0]
    assert feature_bill(data_set, ClipnSource()).num_missing == 0
    clipn = load_clipn(stand_in_path(ClipnSource(), data_set), small_clip_config(8))
    images_ND = vision_language.image_features_ND
    np.testing.assert_allclose(images_ND, expected_features(clipn, data_set), atol=1e-6)
    assert images_ND.dtype == np.float32
    assert isinstance(images_ND, np.memmap)
    assert vision_language.logit_scale == pytest.approx(20.0)
    yes_CD, no_CD = vision_language.text_features(NAMES)
    expected = encode_classes(clipn, tokenize_classes(NAMES, default_templates(), 32))
    np.testing.assert_allclose(yes_CD, expected[0], atol=1e-6)
    np.testing.assert_allclose(no_CD, expected[1], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm([*images_ND, *yes_CD, *no_CD], axis=1), 1, atol=1e-6)

    forbid_computing(monkeypatch)
    again, silent = open_vision_language(data_set, ClipnSource(), progress=lines.append), len(lines)
    np.testing.assert_array_equal(again.image_features_ND, images_ND)
    np.testing.assert_array_equal(again.text_features(NAMES), [yes_CD, no_CD])
    assert again.logit_scale == vision_language.logit_scale
    assert len(lines) == silent


@pytest.mark.parametrize(("size", "images"), [(8, 256), (32, 256), (64, 128), (224, 16), (1024, 1)])
def test_on_a_cpu_a_pass_takes_fewer_images_the_larger_they_are(size: int, images: int) -> None:
    clipn = SimpleNamespace(device=torch.device("cpu"), visual=None, image_size=size)
    assert TowerPass(clipn, precision="fp32").batch_size == images  # type: ignore[arg-type]


def test_class_texts_are_equal_to_the_bit_however_many_a_pass_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    clipn = Clipn(small_clip_config(8)).eval()
    tokens_CTL = tokenize_classes(NAMES, default_templates(), 32)
    taken = []
    encode_yes = clipn.encode_yes
    monkeypatch.setattr(clipn, "encode_yes", lambda part_BL: taken.append(len(part_BL)) or encode_yes(part_BL))
    found = []
    for size in (1000, 32):
        monkeypatch.setattr("models.clipn.encode.CPU_CLASS_TEXTS", size)
        found.append(encode_classes(clipn, tokens_CTL))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    num_texts = tokens_CTL.shape[0] * tokens_CTL.shape[1]
    assert taken == [num_texts, *([32] * (num_texts // 32)), *([num_texts % 32] if num_texts % 32 else [])]


def test_some_classes_in_any_order_have_the_rows_of_all() -> None:
    vision_language = open_vision_language(small_data_set(), ClipnSource())
    all_yes, all_no = vision_language.text_features(NAMES)
    yes_CD, no_CD = vision_language.text_features(("sea_lion", "cat"))
    np.testing.assert_array_equal(yes_CD, all_yes[[2, 0]])
    np.testing.assert_array_equal(no_CD, all_no[[2, 0]])
    assert vision_language.text_features(("sea_lion", "cat"))[0] is yes_CD


def test_other_class_names_are_encoded_too() -> None:
    vision_language = open_vision_language(small_data_set(), ClipnSource())
    yes_CD, _ = vision_language.text_features(("cat", "horse"))
    assert yes_CD.shape == (2, 64)
    np.testing.assert_allclose(yes_CD[0], vision_language.text_features(NAMES)[0][0], atol=1e-6)
    for names, message in (((), "the list is empty"), (("cat", "cat"), "same name"), (("cat", ""), "empty")):
        with pytest.raises(ValueError, match=message):
            vision_language.text_features(names)
    with pytest.raises(ValueError, match=r"text too long: .* needs \d+ tokens and the model reads at most 32"):
        vision_language.text_features(("cat " * 40,))


def test_names_cleaned_and_with_a_domain(tmp_path: Path) -> None:
    templates = tmp_path / "templates.txt"
    templates.write_text("a picture of a {}")
    data_set = small_data_set()
    source = ClipnSource(templates=templates, clean_names=True, domain="real")
    yes_CD, _ = open_vision_language(data_set, source).text_features(NAMES)
    clipn = load_clipn(stand_in_path(source, data_set), small_clip_config(8))
    phrases = ("real cat", "real dog", "real sea lion")
    expected_CD, _ = encode_classes(clipn, tokenize_classes(phrases, ["a picture of a {}"], 32))
    np.testing.assert_allclose(yes_CD, expected_CD, atol=1e-6)


def test_a_checkpoint_of_the_user(tmp_path: Path, cache: Path) -> None:
    config = tmp_path / "small.json"
    config.write_text(
        '{"embed_dim": 16,'
        '"vision_cfg": {"image_size": 12, "patch_size": 6, "layers": 1, "width": 16, "head_width": 8},'
        '"text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}}'
    )
    source = ClipnSource(checkpoint=tmp_path / "clipn.pt", model=str(config))
    torch.manual_seed(0)
    save_clipn(Clipn(clipn_source.clip_config(str(config))), tmp_path / "clipn.pt", epoch=1, name="")
    data_set = small_data_set()
    vision_language = open_vision_language(data_set, source)
    assert vision_language.image_features_ND.shape == (13, 16)
    assert vision_language.logit_scale == pytest.approx(1 / 0.07)
    assert not (cache / "clipn").exists()
    assert feature_bill(data_set, source).num_missing == 0
    torch.manual_seed(1)
    save_clipn(Clipn(clipn_source.clip_config(str(config))), tmp_path / "clipn.pt", epoch=1, name="")
    assert feature_bill(data_set, source).num_missing == 13


def test_a_plain_clip_by_file_and_by_tag(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 12, "patch_size": 6, "layers": 1, "width": 16, "head_width": 8},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    for module in ("source", "pretrained", "features"):
        monkeypatch.setattr(f"models.clipn.{module}.any_config", lambda model: dict(config))
    torch.manual_seed(0)
    clipn = Clipn(config)
    weights = {n: v for n, v in clipn.state_dict().items() if not n.startswith(("text_no.", "prompt_no"))}
    weights = {file_name(name): value for name, value in weights.items()}
    data_set = small_data_set()
    by_tag = cache / "open_clip" / "ViT-B-16.laion2b_s34b_b88k.safetensors"
    by_tag.parent.mkdir(parents=True)
    for pretrained, path in ((str(tmp_path / "clip.safetensors"),) * 2, ("laion2b_s34b_b88k", str(by_tag))):
        source = ClipnSource(pretrained=pretrained)
        if pretrained == path:
            save_file(weights, path)
        assert feature_bill(data_set, source).num_missing == 13
        save_file(weights, path)
        vision_language = open_vision_language(data_set, source)
        assert feature_bill(data_set, source).num_missing == 0
        pixels = resize_batch(data_set.train.images.load(np.arange(13)), 12)
        with torch.inference_mode():
            features_ND = clipn.encode_image(network_input(pixels, torch.device("cpu")))
        expected = functional.normalize(features_ND, dim=1)
        np.testing.assert_allclose(vision_language.image_features_ND, expected, atol=1e-6)
        yes_CD, _ = encode_classes(clipn.eval(), tokenize_classes(NAMES, default_templates(), 32))
        np.testing.assert_allclose(vision_language.text_features(NAMES)[0], yes_CD, atol=1e-6)
        Path(path).unlink()
        if pretrained != path:  # a tag's features are known without its weights; a file's are not without the file
            np.testing.assert_array_equal(
                open_vision_language(data_set, source).image_features_ND, vision_language.image_features_ND
            )
    assert not (cache / "clipn").exists()


@pytest.mark.parametrize("names", [("cat", "cat", "dog"), ("cat", " ", "dog")])
def test_bad_class_names_are_told_before_anything_is_trained(names: tuple[str, ...], cache: Path) -> None:
    with pytest.raises(ValueError, match="class_names"):
        open_vision_language(small_data_set(names), ClipnSource())
    assert not cache.exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_damaged_stand_in_is_trained_again_and_gives_the_same(damage: Callable[[Path], None], cache: Path) -> None:
    data_set = small_data_set()
    first = np.array(open_vision_language(data_set, ClipnSource()).image_features_ND)
    path = stand_in_path(ClipnSource(), data_set)
    whole = path.read_bytes()
    damage(path)
    assert feature_bill(data_set, ClipnSource()).num_missing == 13
    np.testing.assert_array_equal(open_vision_language(data_set, ClipnSource()).image_features_ND, first)
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_told(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(ValueError, match=r"cache: .* cannot be written .* VLPURE_CACHE"):
        open_vision_language(small_data_set(), ClipnSource())


def test_opening_what_is_there_needs_no_torch() -> None:
    digits = open_data_set("digits")
    features_ND = open_vision_language(digits, ClipnSource()).image_features_ND
    code = (
        "import sys; from data.registry import open_data_set; from models.clipn import source as c;"
        "from models.clipn.recipe import *; from models.clipn.features import open_vision_language;"
        "c.STAND_IN_RECIPE = SmallClipnRecipe(clip=ClipRecipe(steps=2), no_tower=NoTowerRecipe(steps=2, num_passes=1));"
        "data = open_data_set('digits'); vl = open_vision_language(data, c.ClipnSource());"
        "vl.text_features(data.class_names[:2]); print(vl.image_features_ND.shape, 'torch' in sys.modules)"
    )
    output = subprocess.check_output([sys.executable, "-c", code], cwd=Path(__file__).parents[3], text=True)
    assert output == f"{features_ND.shape} False\n"


def test_a_tower_that_cannot_be_compiled_computes_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(network: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(graphs._Process, "failure", None)
    monkeypatch.setattr("models.clipn.encode.compiled_forward", broken)
    clipn = new_clipn(small_resnet_config(32), 0).eval()
    images_B3SS = torch.randn(2, 3, 32, 32)
    plain, compiled = (TowerPass(clipn, precision="fp32", compiled=compiled) for compiled in (False, True))
    with torch.inference_mode():
        assert torch.equal(plain(images_B3SS), compiled(images_B3SS))
    assert capsys.readouterr().err == "the image tower is not compiled: RuntimeError: no C compiler\n"
