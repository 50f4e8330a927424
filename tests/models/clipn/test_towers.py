"""Any model of open_clip by tag: identities and preprocessing of all, and small ones of each family end to end."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.pretrained import get_pretrained_cfg, list_pretrained
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from data.files import content_hash
from data.imageset import ArrayImages, DataSet, ImageSet, make_data_set
from models.clipn import source as clipn_source
from models.clipn.encode import network_input, resize_batch
from models.clipn.features import open_vision_language
from models.clipn.preprocessing import CLIP_PREPROCESSING, Preprocessing, read_preprocessing
from models.clipn.pretrained import load_pretrained, load_pretrained_clip
from models.clipn.source import (
    ClipnSource,
    any_config,
    is_plain_clip,
    pretrained_identity,
    pretrained_preprocessing,
)
from models.clipn.towers import OpenTowers, build

NAMES = ("cat", "dog")
VIT = {"image_size": 16, "patch_size": 8, "layers": 1, "width": 16, "head_width": 8}
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
TIMM = {"image_size": 160, "timm_model_name": "test_vit", "timm_model_pretrained": True, "timm_proj": "linear"}
SIGLIP_TEXT = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
FAMILIES: dict[str, dict[str, Any]] = {
    "siglip": {
        "embed_dim": 16, "init_logit_bias": -10, "custom_text": True, "vision_cfg": {**TIMM, "timm_pool": "avg"},
        "text_cfg": {**TEXT, **SIGLIP_TEXT},
    },
    "pe-core": {"embed_dim": 16, "custom_text": True, "vision_cfg": TIMM, "text_cfg": TEXT},
    "mobileclip": {
        "embed_dim": 16, "custom_text": True, "vision_cfg": {**TIMM, "timm_model_name": "test_byobnet"},
        "text_cfg": {**TEXT, "no_causal_mask": True},
    },
    "clipa": {
        "embed_dim": 16,
        "vision_cfg": {**VIT, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": {**TEXT, "pool_type": "last", "no_causal_mask": True},
    },
    "coca": {
        "embed_dim": 16, "custom_text": True,
        "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "attn_pooler_heads": 2},
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def small_data_set() -> DataSet:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
    images = ImageSet(images=ArrayImages(pixels), labels=np.array([0, 1, 0]))
    return make_data_set(
        name="small", class_names=NAMES, train=images, test=images, pretrain=None, mean=(0.5,) * 3, std=(0.2,) * 3
    )


def test_every_tag_has_an_identity_and_the_preprocessing_of_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", _with_transformers(importlib.util.find_spec))
    identities, num_plain, others = set(), 0, {}
    for model, tag in list_pretrained():
        config, preprocessing = any_config(model), pretrained_preprocessing(model, tag)
        identities.add(pretrained_identity(model, tag))
        entry = get_pretrained_cfg(model, tag)
        assert (preprocessing.mean, preprocessing.std) == (entry["mean"], entry["std"])
        assert (preprocessing.interpolation, preprocessing.resize_mode) == (
            entry["interpolation"], entry["resize_mode"],
        )  # fmt: skip
        if preprocessing == CLIP_PREPROCESSING:
            num_plain += is_plain_clip(config)
            # As before there were others: features that are stored under it are found.
            assert pretrained_identity(model, tag) == content_hash({"clip": tag, "config": config, "model": model})
        else:
            others[model, tag] = preprocessing.words
    assert len(identities) == len(list_pretrained()) >= 196
    assert num_plain >= 103
    assert others["ViT-B-16-SigLIP", "webli"] == "bicubic, squashed, mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5]"
    assert others["MobileCLIP-S2", "datacompdr"] == ("bilinear, centre crop, mean [0.0, 0.0, 0.0], std [1.0, 1.0, 1.0]")
    assert CLIP_PREPROCESSING.words == "CLIP: bicubic, centre crop"


def _with_transformers(find: Any) -> Any:
    return lambda name: object() if name == "transformers" else find(name)


def test_a_missing_package_is_told_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name))
    with pytest.raises(ValueError, match=r"reads texts with the tokeniser timm/ViT-B-16-SigLIP, .*pip install transf"):
        pretrained_identity("ViT-B-16-SigLIP", "webli")
    with pytest.raises(ValueError, match="reads texts with the text tower roberta-base"):
        pretrained_identity("roberta-ViT-B-32", "laion2b_s12b_b32k")


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_those_of_open_clips_transform(mode: Any, interpolation: Any) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (1, 30, 44, 3), dtype=np.uint8)
    own = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation=interpolation, resize_mode=mode)
    transform = image_transform_v2(
        PreprocessCfg(size=16, mean=own.mean, std=own.std, interpolation=interpolation, resize_mode=mode),
        is_train=False,
    )
    got = network_input(resize_batch(pixels, 16, own), torch.device("cpu"), own)
    torch.testing.assert_close(got[0], transform(Image.fromarray(pixels[0])), atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_small_model_of_each_family_end_to_end(family: str, tmp_path: Path, cache: Path) -> None:
    config = FAMILIES[family]
    torch.manual_seed(0)
    model: Any = build(config)
    (tmp_path / "model.json").write_text(
        json.dumps(
            {
                "model_cfg": config,
                "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"},
            }
        )
    )
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    (tmp_path / "templates.txt").write_text("a {}\none {} here\n")
    source = ClipnSource(
        pretrained=str(tmp_path / "a.safetensors"),
        model=str(tmp_path / "model.json"),
        templates=tmp_path / "templates.txt",
    )
    data = small_data_set()
    language = open_vision_language(data, source)
    size = config["vision_cfg"]["image_size"]
    prepared = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear")
    pixels = resize_batch(data.train.images.load(np.arange(3)), size, prepared)
    with torch.inference_mode():
        images_ND = model.encode_image(network_input(pixels, torch.device("cpu"), prepared))
        # By open_clip's own forward, over the whole context.
        tokens = _full_context([f"a {name}" for name in NAMES] + [f"one {name} here" for name in NAMES])
        texts = functional.normalize(model.encode_text(tokens), dim=1)
        yes_CD = functional.normalize(texts[:2] + texts[2:], dim=1)
        sentences = functional.normalize(model.encode_text(_full_context(["a nice day", "x"])), dim=1)
    np.testing.assert_allclose(language.image_features_ND, functional.normalize(images_ND, dim=1), atol=1e-5)
    np.testing.assert_allclose(language.text_features(NAMES)[0], yes_CD, atol=1e-5)
    np.testing.assert_allclose(language.sentence_features("days", ("a nice day", "x")), sentences, atol=1e-5)
    assert language.logit_scale == pytest.approx(1 / 0.07)
    with pytest.raises(ValueError, match=r"text too long: .* the model reads at most 24"):
        language.text_features(("cat " * 30,))
    with pytest.raises(ValueError, match="is not a plain CLIP"):
        load_pretrained_clip(source.model, str(source.pretrained), progress=lambda line: None)


def _full_context(texts: list[str]) -> torch.Tensor:
    from open_clip.tokenizer import SimpleTokenizer

    tokens_BL: torch.Tensor = SimpleTokenizer(context_length=24)(texts)
    return tokens_BL


def test_a_file_of_a_named_model_is_read_with_the_preprocessing_of_its_tags(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"x")
    path = str(tmp_path / "a.pt")
    assert pretrained_preprocessing("PE-Core-T-16-384", path).resize_mode == "squash"
    assert pretrained_preprocessing("ViT-L-14", path) == CLIP_PREPROCESSING  # its tags do not agree


def test_weights_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps(FAMILIES["pe-core"]))
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"^clipn\.pretrained: .*a\.safetensors is damaged or does not fit") as caught:
        load_pretrained(str(tmp_path / "m.json"), str(tmp_path / "a.safetensors"), progress=lambda line: None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"mean": [0.5, 0.5]}, "mean is .*one number per channel"),
        ({"mean": "x"}, "mean is x"),
        ({"std": 0}, "std has a 0"),
        ({"resize_mode": "longest"}, "resize_mode is 'longest'; supported are shortest and squash"),
        ({"interpolation": "random"}, "interpolation is 'random'; supported are bicubic and bilinear"),
    ],
)
def test_bad_preprocessing_is_told(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_preprocessing(entry, "m.json")


def test_a_tokeniser_that_cannot_be_had_says_which_files_to_put_where(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    def fail(name: str, **settings: object) -> object:
        raise OSError("no network")

    monkeypatch.setattr("open_clip.tokenizer.HFTokenizer", fail)
    config = {**FAMILIES["siglip"], "text_cfg": {**FAMILIES["siglip"]["text_cfg"], "hf_tokenizer_name": "a/b"}}
    with pytest.raises(ValueError, match=r"the tokeniser a/b is not in the cache .*into the folder .*tokenizers/a--b"):
        OpenTowers(config)


class _Words:
    """In place of open_clip's wrapper of the package transformers: one token per word, 9 for the end, 1 for padding."""

    def __init__(self, name: str, *, context_length: int, clean: str, **settings: object) -> None:
        assert clean == "canonicalize"
        self.tokenizer_mode, self.clean_fn, self._length = "", str.lower, context_length
        self.tokenizer = lambda texts, add_special_tokens: {"input_ids": [[*text.split(), 9] for text in texts]}

    def __call__(self, texts: list[str]) -> torch.Tensor:
        rows = [[len(word) for word in text.split()] + [9] for text in texts]
        return torch.tensor([row + [1] * (self._length - len(row)) for row in rows])


def test_a_models_own_tokeniser_is_used_and_a_text_too_long_for_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("open_clip.tokenizer.HFTokenizer", _Words)
    own = {"hf_tokenizer_name": "a/b", "tokenizer_kwargs": {"clean": "canonicalize"}, "context_length": 5}
    towers = OpenTowers({**FAMILIES["siglip"], "text_cfg": {**FAMILIES["siglip"]["text_cfg"], **own}})
    tokens = towers.tokenize(["a bird", "one two three four"])
    assert tokens.tolist() == [[1, 4, 9, 1, 1], [3, 3, 5, 4, 9]]
    torch.testing.assert_close(towers.encode_yes(tokens), towers.model.encode_text(tokens))
    with pytest.raises(ValueError, match="'one two three four five' needs 6 tokens and the model reads at most 5"):
        towers.tokenize(["one two three four five"])


def test_the_logit_bias_changes_no_decision() -> None:
    """SigLIP's bias is the same for all texts: every score here is of cosines, or of ratios in which it cancels."""
    from strategies.purity.scores import Evidence, energy, maxlogit, mcm

    cosines = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    plain, moved = (Evidence(yes_NK=cosines + bias / 20, no_NK=cosines) for bias in (0.0, -10.0))
    torch.testing.assert_close(mcm(plain, 20.0), mcm(moved, 20.0))
    for scores in (energy, maxlogit):
        torch.testing.assert_close(scores(plain, 20.0) - 10 / 20, scores(moved, 20.0), atol=1e-5, rtol=0)


def test_clipn_is_strict(tmp_path: Path) -> None:
    assert clipn_source.clip_config("ViT-B-16")["embed_dim"] == 512
    (tmp_path / "a.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match="ViT-B-16-SigLIP is not a plain CLIP"):
        clipn_source.weights_identity(
            ClipnSource(checkpoint=tmp_path / "a.pt", model="ViT-B-16-SigLIP"), small_data_set()
        )
