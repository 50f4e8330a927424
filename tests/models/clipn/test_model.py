"""CLIPN's towers, texts and preprocessing against the reference's outputs (tests/golden/clipn/README.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.clipn.encode import (
    ClassRows,
    ImageRows,
    encode_classes,
    network_input,
    resize_and_crop,
    resize_batch,
)
from models.clipn.model import Clipn
from models.clipn.source import clip_config
from models.clipn.tokens import tokenize, tokenize_classes
from models.clipn.weights import load_clipn
from strategies.purity.scores import Evidence, atd, judged_id

EXCERPT = Path(__file__).parents[2] / "golden" / "clipn"
FEATURES, CLASS_FEATURES, LOGITS = 1e-5, 1e-6, 1e-3  # largest absolute differences allowed
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """The reference's outputs, and our CLIPN with its weights."""

    clipn: Clipn
    arrays: Mapping[str, NDArray[Any]]
    texts: Mapping[str, Any]

    def largest_difference(self, name: str, got: torch.Tensor | NDArray[np.float32]) -> float:
        """Between an array of the reference and ours."""
        assert np.asarray(got).shape == self.arrays[name].shape
        return float(np.abs(np.asarray(got) - self.arrays[name]).max())


def open_golden(folder: Path, checkpoint: Path) -> Golden:
    config = json.loads((folder / "tiny-clipn.json").read_text(encoding="utf-8"))
    with np.load(folder / "golden.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    texts = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    return Golden(clipn=load_clipn(checkpoint, config), arrays=arrays, texts=texts)


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Golden:
    """The excerpt, its checkpoint rebuilt with zeros for the tokens that no text here uses."""
    with np.load(EXCERPT / "tensors.npz", allow_pickle=False) as archive:
        tensors = {name: archive[name] for name in archive.files}
    token_idx = tensors.pop("token_idx")
    for name in ("token_embedding.weight", "token_embedding_no.weight"):
        table = np.zeros((49408, tensors[name].shape[1]), dtype=np.float32)
        table[token_idx] = tensors[name]
        tensors[name] = table
    path = tmp_path_factory.mktemp("clipn") / "rebuilt.pt"
    torch.save({"state_dict": {f"module.{name}": torch.from_numpy(value) for name, value in tensors.items()}}, path)
    return open_golden(EXCERPT, path)


@torch.inference_mode()
def image_features(golden: Golden) -> torch.Tensor:
    return golden.clipn.encode_image(network_input(golden.arrays["images_uint8"], CPU))


def unit(features: torch.Tensor) -> torch.Tensor:
    return functional.normalize(features, dim=-1)


def class_features(golden: Golden, templates: str) -> tuple[torch.Tensor, torch.Tensor]:
    tokens_CTL = tokenize_classes(golden.texts["id_class_names"], golden.texts[templates], 77)
    return encode_classes(golden.clipn, tokens_CTL)


def check_all(golden: Golden) -> None:
    """Everything that image, "yes" and "no" tower give, from pixels and words."""
    features_ND = image_features(golden)
    assert golden.largest_difference("image_features", features_ND) < FEATURES
    for templates, prefix in (("templates", ""), ("vl_templates", "vl_")):
        yes_CD, no_CD = class_features(golden, templates)
        assert golden.largest_difference(f"{prefix}text_yes", yes_CD) < CLASS_FEATURES
        assert golden.largest_difference(f"{prefix}text_no", no_CD) < CLASS_FEATURES
    yes_CD, no_CD = class_features(golden, "templates")
    own_scale = float(golden.clipn.logit_scale.detach().exp())
    assert own_scale == pytest.approx(13.168727)
    for scale, prefix in ((100.0, ""), (own_scale, "own_")):
        yes_logits_NC, no_logits_NC = (scale * unit(features_ND) @ text_CD.T for text_CD in (yes_CD, no_CD))
        assert golden.largest_difference(f"{prefix}yes_logits", yes_logits_NC) < LOGITS
        assert golden.largest_difference(f"{prefix}no_logits", no_logits_NC) < LOGITS
        p_yes_NC = torch.sigmoid(yes_logits_NC - no_logits_NC)
        assert golden.largest_difference(f"{prefix}p_yes", p_yes_NC) < 1e-4


def test_matches_the_reference(golden: Golden) -> None:
    check_all(golden)


def test_matches_the_reference_from_its_untouched_checkpoint() -> None:
    root = os.environ.get("VLPURE_TEST_GOLDEN")
    if not root:
        pytest.skip("$VLPURE_TEST_GOLDEN does not name the folder with the full golden data (clipn/...)")
    folder = Path(root) / "clipn"
    check_all(open_golden(folder, folder / "clipn_tiny_epoch_10.pt"))


def test_text_features_of_each_template(golden: Golden) -> None:
    tokens_BL = torch.from_numpy(golden.arrays["tokens"]).long().flatten(0, 1)
    with torch.inference_mode():
        yes_BD, no_BD = golden.clipn.encode_yes(tokens_BL), golden.clipn.encode_no(tokens_BL)
    assert golden.largest_difference("text_yes_per_template", yes_BD.view(128, 4, -1)) < FEATURES
    assert golden.largest_difference("text_no_per_template", no_BD.view(128, 4, -1)) < FEATURES


def test_token_ids_are_the_references(golden: Golden) -> None:
    tokens_CTL = tokenize_classes(golden.texts["id_class_names"], golden.texts["templates"], 77)
    expected_TCL = golden.arrays["tokens"]
    length = tokens_CTL.shape[2]
    assert length < 77
    np.testing.assert_array_equal(tokens_CTL.transpose(0, 1), expected_TCL[:, :, :length])
    assert not expected_TCL[:, :, length:].any()


def test_free_texts(golden: Golden) -> None:
    """The empty text and HTML entities included; the fourth is too long, and is refused where the reference cuts it."""
    texts = golden.texts["free_texts"]
    fitting = [0, 1, 2, 4]
    tokens_BL = tokenize([texts[i] for i in fitting], 77)
    np.testing.assert_array_equal(tokens_BL, golden.arrays["free_tokens"][fitting, : tokens_BL.shape[1]])
    with pytest.raises(ValueError, match=r"text too long: 'x x x .*' needs \d+ tokens and the model reads at most 77"):
        tokenize(texts, 77)
    tokens_BL = torch.from_numpy(golden.arrays["free_tokens"]).long()
    with torch.inference_mode():
        assert golden.largest_difference("free_text_yes", golden.clipn.encode_yes(tokens_BL)) < FEATURES
        assert golden.largest_difference("free_text_no", golden.clipn.encode_no(tokens_BL)) < FEATURES


def test_cutting_the_padding_changes_nothing(golden: Golden) -> None:
    tokens_BL = torch.from_numpy(golden.arrays["tokens"][::16]).long().flatten(0, 1)
    length = int(tokens_BL.argmax(dim=1).max()) + 1
    with torch.inference_mode():
        for encode in (golden.clipn.encode_yes, golden.clipn.encode_no):
            torch.testing.assert_close(encode(tokens_BL[:, :length]), encode(tokens_BL), atol=2e-6, rtol=0)


def test_the_golden_data_shows_wrong_models(golden: Golden) -> None:
    """What `check_all` must catch lies far outside its tolerances."""
    yes_CD, no_CD = class_features(golden, "templates")
    assert golden.largest_difference("text_yes", no_CD) > 1e4 * CLASS_FEATURES  # towers swapped
    other_yes_CD, _ = class_features(golden, "vl_templates")
    assert golden.largest_difference("text_yes", other_yes_CD) > 1e4 * CLASS_FEATURES  # other templates
    logits_NC = 100 * image_features(golden) @ yes_CD.T
    assert golden.largest_difference("yes_logits", logits_NC) > 1e4 * LOGITS  # images not normalised
    tokens_BL = torch.from_numpy(golden.arrays["tokens"]).long().flatten(0, 1)
    with torch.inference_mode():
        without_prompts_BD = golden.clipn.encode_no(tokens_BL, torch.zeros(77, 16))
    assert golden.largest_difference("text_no_per_template", without_prompts_BD.view(128, 4, -1)) > 1e3 * FEATURES
    mean_TCD = unit(torch.from_numpy(golden.arrays["text_yes_per_template"])).mean(dim=0)
    assert golden.largest_difference("text_yes", mean_TCD) > 1e3 * CLASS_FEATURES  # sum not normalised


def test_preprocessing_is_the_references(golden: Golden) -> None:
    case_HW3 = golden.arrays["resize_case_uint8"]
    resized = resize_and_crop(case_HW3, 32)[np.newaxis]
    np.testing.assert_array_equal(network_input(resized, CPU)[0], golden.arrays["resize_case"])
    images_BHW3 = golden.arrays["images_uint8"][:4]
    np.testing.assert_array_equal(network_input(resize_batch(images_BHW3, 32), CPU), golden.arrays["images"][:4])


@pytest.mark.parametrize("shape", [(41, 50), (50, 41), (32, 33), (33, 32), (16, 16), (100, 7), (64, 96)])
def test_resizing_and_cropping_is_torchvisions(shape: tuple[int, int]) -> None:
    from PIL import Image
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    image_HW3 = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = CenterCrop(32)(Resize(32, InterpolationMode.BICUBIC)(Image.fromarray(image_HW3)))
    np.testing.assert_array_equal(resize_and_crop(image_HW3, 32), np.asarray(expected))


def test_rows_for_the_store(golden: Golden) -> None:
    """Unit rows of the images asked for, whatever the cut; "yes" and "no" class features side by side."""
    rows = ImageRows(golden.clipn, StoredImages(golden.arrays["images_uint8"]))
    assert rows.facts == {"logit_scale": pytest.approx(13.168727)}
    part = rows.compute(10, 13)
    assert part.dtype == np.float32
    np.testing.assert_allclose(part, golden.arrays["image_features_norm"][10:13], atol=FEATURES)
    classes = ClassRows(golden.clipn, golden.texts["id_class_names"], golden.texts["templates"])
    expected = np.concatenate([golden.arrays["text_yes"], golden.arrays["text_no"]], axis=1)
    np.testing.assert_allclose(classes.compute(1, 3), expected[1:3], atol=CLASS_FEATURES)


def test_bf16_decides_nearly_as_float32(golden: Golden) -> None:
    """Cosines within 0.01, and at most 2 % of the decisions otherwise, at the scales where purity is decided."""
    images = StoredImages(golden.arrays["images_uint8"])
    exact, fast = (
        torch.from_numpy(ImageRows(golden.clipn, images, precision=precision).compute(0, 48))
        for precision in ("fp32", "bf16")
    )
    assert not torch.equal(exact, fast)
    assert (exact * fast).sum(dim=1).min() > 0.999
    yes_KD, no_KD = (torch.from_numpy(golden.arrays[name]) for name in ("text_yes", "text_no"))
    changed = [
        judged_id(*atd(Evidence(yes_NK=exact @ yes_KD.T, no_NK=exact @ no_KD.T), scale))
        != judged_id(*atd(Evidence(yes_NK=fast @ yes_KD.T, no_NK=fast @ no_KD.T), scale))
        for scale in (2.0, 10.0, 100.0)
    ]
    assert (exact @ yes_KD.T - fast @ yes_KD.T).abs().max() < 0.01
    assert torch.stack(changed).float().mean() <= 0.02


class StoredImages:
    """Images of one array."""

    fingerprint = "f" * 64
    image_size = 32

    def __init__(self, pixels_NHW3: NDArray[np.uint8]) -> None:
        self.pixels_NHW3 = pixels_NHW3

    def __len__(self) -> int:
        return len(self.pixels_NHW3)

    def load(self, idx: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.asarray(self.pixels_NHW3[idx])


TINY = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 8, "patch_size": 4, "layers": 1, "width": 8, "head_width": 4},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


def test_a_new_clipn_says_no_as_it_says_yes() -> None:
    clipn = Clipn(TINY)
    tokens_BL = tokenize(["a cat", "a very large dog"], 8)
    with torch.no_grad():
        torch.testing.assert_close(clipn.encode_no(tokens_BL), clipn.encode_yes(tokens_BL), atol=0, rtol=0)
        clipn.prompt_no.normal_()
        assert not torch.allclose(clipn.encode_no(tokens_BL), clipn.encode_yes(tokens_BL))
        clipn.copy_text_to_no()
        torch.testing.assert_close(clipn.encode_no(tokens_BL), clipn.encode_yes(tokens_BL), atol=0, rtol=0)


def test_the_published_architecture_has_the_published_size() -> None:
    """ViT-B-16: 452 tensors, of which prompt_no is 16 x 77 x 512; nothing is allocated."""
    with torch.device("meta"):
        clipn = Clipn(clip_config("ViT-B-16"))
    assert len(clipn.state_dict()) == 452
    assert sum(parameter.numel() for parameter in clipn.parameters()) == 213_679_617
    assert clipn.prompt_no.shape == (16, 77, 512)


@pytest.mark.parametrize("change", [{"no_causal_mask": True}, {"pool_type": "last"}, {"proj_bias": True}])
def test_other_text_towers_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="CLIPN needs a text tower like CLIP's"):
        Clipn(TINY | {"text_cfg": TINY["text_cfg"] | change})  # type: ignore[operator]


@pytest.mark.gpu
def test_cuda_in_float32_matches_the_cpu(golden: Golden) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    rows = ImageRows(golden.clipn.to("cuda"), StoredImages(golden.arrays["images_uint8"]))
    try:
        np.testing.assert_allclose(rows.compute(0, 48), golden.arrays["image_features_norm"], atol=FEATURES)
    finally:
        golden.clipn.to("cpu")
