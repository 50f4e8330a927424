"""A small CoCa of random weights as the captioner: its tokens, their entry in the store, and errors in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from open_clip.coca_model import CoCa
from torch.nn import functional

from data.files import content_hash
from data.imageset import ArrayImages, DataSet, ImageSet, make_data_set
from models.clipn import captioner
from models.clipn.captioner import END, START, CaptionTokens, likely_tokens, load_captioner
from models.clipn.features import FeatureEntries
from models.clipn.source import POSITIONS, TOKENS, ClipnSource, captioner_identity, clipn_identity
from tests.factories import make_captioner


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def source(tmp_path: Path) -> ClipnSource:
    return ClipnSource(pretrained="openai", **make_captioner(tmp_path))


def small_data_set(num: int = 5) -> DataSet:
    pixels = np.random.default_rng(0).integers(0, 256, (num, 20, 20, 3), dtype=np.uint8)
    images = ImageSet(images=ArrayImages(pixels), labels=np.arange(num) % 2)
    return make_data_set(
        name="small", class_names=("a", "b"), train=images, test=images, pretrain=None, mean=(0.5,) * 3, std=(0.2,) * 3
    )


@torch.inference_mode()
def test_tokens_are_those_of_a_plain_greedy_loop(source: ClipnSource) -> None:
    coca: Any = load_captioner(source, progress=lambda line: None).model
    images = functional.normalize(torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)))
    found = likely_tokens(coca, images)
    assert found.shape == (3, POSITIONS, TOKENS)
    captions = set()
    for image, tokens_PT in zip(images, found, strict=True):
        caption = [START]
        for tokens_T in tokens_PT:
            logits = coca(image[None], torch.tensor([caption]), output_labels=False)["logits"][0, -1]
            assert tokens_T.tolist() == sorted(range(len(logits)), key=lambda v: -float(logits[v]))[:TOKENS]
            caption.append(int(tokens_T[0]))
        captions.add(tuple(caption))
    assert len(captions) > 1  # the images count


class Scripted(CoCa):
    """A captioner that writes tokens 7, END, 9, 9, ... for the first image and 5 for the others."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.visual = lambda images: (images, images)

    def forward(self, image: Any, text: Any, **given: Any) -> Any:
        logits = torch.zeros(*text.shape, 49408)
        logits[0, :, {1: 7, 2: END}.get(text.shape[1], 9)] = 1
        logits[1:, :, 5] = 1
        return {"logits": logits}


def test_a_caption_ends_where_its_decoder_ends_it() -> None:
    found = likely_tokens(Scripted(), torch.zeros(2, 3, 4, 4))
    assert found[0, :, 0].tolist() == [7] + [END] * 9
    assert bool((found[0, 2:] == END).all())
    assert found[1, :, 0].tolist() == [5] * 10


def test_tokens_are_stored_and_an_interrupted_computation_is_continued(
    source: ClipnSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, computed = small_data_set(600), []

    def compute(self: CaptionTokens, start: int, stop: int) -> NDArray[np.float32]:
        if len(computed) == 1:
            computed.append((-1, -1))
            raise KeyboardInterrupt
        computed.append((start, stop))
        return np.full((stop - start, POSITIONS * TOKENS), START, dtype=np.float32)

    monkeypatch.setattr(CaptionTokens, "compute", compute)
    features = FeatureEntries(data, source, "cpu", lambda line: None)
    with pytest.raises(KeyboardInterrupt):
        features.of_captions()
    rows = features.of_captions()
    assert (rows.shape, computed) == ((600, 350), [(0, 256), (-1, -1), (256, 512), (512, 600)])
    monkeypatch.setattr("models.clipn.captioner.load_captioner", None)  # not opened again
    assert features.of_captions().shape == (600, 350)


def test_tokens_of_images_in_batches(source: ClipnSource, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small_data_set()
    features = FeatureEntries(data, source, "cpu", lambda line: None)
    rows = np.array(features.of_captions())
    monkeypatch.setattr(captioner, "BATCH", 2)
    towers = load_captioner(source, progress=lambda line: None)
    again = CaptionTokens(towers, data.train.images, features._captioner_preprocessing).compute(1, 5)
    np.testing.assert_array_equal(again, rows[1:])
    assert ((rows >= 0) & (rows < 49408) & (rows == np.round(rows))).all()


def test_the_captioner_counts_only_if_it_is_set(source: ClipnSource, tmp_path: Path) -> None:
    data = small_data_set()
    plain = source.model_copy(update={"captioner": None})
    # As before there were captioners: records that exist are found.
    assert clipn_identity(plain, data) == content_hash(
        {
            "weights": features_weights(plain, data),
            "templates": "5beb55ea1566c9c05bf15a51770f74669c5e1a1455bd5ea927d357e521c440d3",
            "clean_names": False, "domain": None, "precision": "fp32",
        }
    )  # fmt: skip
    assert "captioner" not in str(plain.settings_read())
    (tmp_path / "other.safetensors").write_bytes((tmp_path / "coca.safetensors").read_bytes() + b"x")
    other = source.model_copy(update={"captioner": str(tmp_path / "other.safetensors")})
    assert len({clipn_identity(each, data) for each in (plain, source, other)}) == 3
    kept = {FeatureEntries(data, each, "cpu", lambda line: None).image_key for each in (plain, source, other)}
    assert len(kept) == 1  # image features are the same


def features_weights(source: ClipnSource, data: DataSet) -> str:
    return FeatureEntries(data, source, "cpu", lambda line: None).weights


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"captioner": "laion3b", "captioner_model": "coca_ViT-B-32"}, r"^unknown clipn\.captioner .*'laion3b'"),
        (
            {"captioner": "openai", "captioner_model": "ViT-B-16"},
            r"^clipn\.captioner_model: ViT-B-16 writes no captions",
        ),
        ({"captioner": "x", "captioner_model": "coca_base"}, r"^clipn\.captioner_model: coca_base writes no captions"),
        ({"captioner": "x", "captioner_model": "coca_roberta-ViT-B-32"}, "writes no captions in CLIP's 49,408 tokens"),
        ({"captioner": "x", "captioner_model": "coca_B"}, r"^unknown clipn\.captioner_model 'coca_B'"),
    ],
)
def test_what_is_no_captioner_is_refused_in_one_line(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        captioner_identity(ClipnSource(**changes))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_weights_are_told_of_the_captioner(
    source: ClipnSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: Any, **given: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr("models.clipn.pretrained.download_pretrained", no_network)
    tag = ClipnSource(captioner="mscoco_finetuned_laion2b_s13b_b90k")
    with pytest.raises(
        ValueError, match=r"^clipn\.captioner: the weights .*laion/mscoco_finetuned_CoCa-ViT-B-32.*put it"
    ):
        load_captioner(tag, progress=lambda line: None)
    (tmp_path / "coca.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match=r"^clipn\.captioner: .*coca\.safetensors is damaged or does not fit"):
        load_captioner(source, progress=lambda line: None)
