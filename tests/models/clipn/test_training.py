"""The losses and the small trainer."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data.imageset import ArrayImages
from models.clipn.captions import ClassCaptions, PairCaptions
from models.clipn.encode import encode_classes, network_input
from models.clipn.losses import binary_opposite_loss, contrastive_loss, masked_mean, semantic_opposite_loss
from models.clipn.model import Clipn
from models.clipn.prompts import default_templates
from models.clipn.recipe import ClipRecipe, NoTowerRecipe, SmallClipnRecipe, small_clip_config, training_identity
from models.clipn.snapshots import FileSnapshots, Stage
from models.clipn.tokens import tokenize_classes
from models.clipn.training import CaptionedImages, augment, new_clipn, train_clip, train_no_tower, train_small_clipn

GOLDEN = Path(__file__).parents[2] / "golden" / "clipn"
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 8, "patch_size": 4, "layers": 1, "width": 16, "head_width": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
COLOURS = ("red", "green", "blue", "white")
SHORT = SmallClipnRecipe(clip=ClipRecipe(steps=3), no_tower=NoTowerRecipe(steps=3, num_passes=1))


def quiet(line: str) -> None:
    """Progress that nobody reads."""


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with np.load(GOLDEN / "golden.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.mark.parametrize("case", ["loss_a", "loss_b"])
def test_losses_are_the_references(case: str, golden: dict[str, Any]) -> None:
    image_ND, yes_ND, no_ND = (torch.from_numpy(golden[f"loss_{n}"]) for n in ("image", "text", "text_no"))
    scale, itbo_yes, itbo_no, tso, total = golden[case].tolist()
    matches, others = binary_opposite_loss(image_ND, yes_ND, no_ND, torch.eye(8, dtype=torch.bool), scale)
    opposite = semantic_opposite_loss(yes_ND, no_ND)
    assert float(matches) == pytest.approx(itbo_yes, abs=1e-5)
    assert float(others) == pytest.approx(itbo_no, abs=1e-5)
    assert float(opposite) == pytest.approx(tso, abs=1e-5)
    assert float(matches + others + opposite) / 2 == pytest.approx(total, abs=1e-5)


def test_losses_of_the_first_step_and_of_opposites() -> None:
    """Where "no" equals "yes" both terms are ln 2 and TSO is 2 - 0.01; of opposites TSO is 0 up to its 1e-4."""
    yes_MD = torch.eye(3)
    first = binary_opposite_loss(torch.eye(3), yes_MD, yes_MD, torch.eye(3, dtype=torch.bool), 20.0)
    assert [float(term) for term in first] == pytest.approx([math.log(2)] * 2)
    assert float(semantic_opposite_loss(yes_MD, yes_MD)) == pytest.approx(1.99)
    assert float(semantic_opposite_loss(yes_MD, -yes_MD)) == pytest.approx(2 - math.sqrt(4.0001), abs=1e-6)


def test_binary_opposite_loss_by_hand() -> None:
    """Margins s (f.g - f.h): image 0 has (2, -4), image 1 (0, 6); both images share text 0, so text 1 matches none."""
    image_ND = torch.eye(2)
    yes_MD = torch.tensor([[1.0, 0.0], [-2.0, 3.0]])
    no_MD = torch.zeros(2, 2)
    match_mask_NM = torch.tensor([[True, False], [True, False]])
    matches, others = binary_opposite_loss(image_ND, yes_MD, no_MD, match_mask_NM, 2.0)
    assert float(matches) == pytest.approx((math.log1p(math.exp(-2)) + math.log(2)) / 2)
    assert float(others) == pytest.approx((math.log1p(math.exp(-4)) + math.log1p(math.exp(6))) / 2)
    with pytest.raises(ValueError, match="pairs that match and pairs that do not"):
        binary_opposite_loss(image_ND, yes_MD, no_MD, torch.ones(2, 2, dtype=torch.bool), 2.0)


def test_binary_opposite_loss_does_not_overflow() -> None:
    one = torch.ones(1, 1)
    matches, others = binary_opposite_loss(
        torch.tensor([[1.0], [-1.0]]), one, -one, torch.tensor([[False], [True]]), 1e4
    )
    assert float(matches) == float(others) == 2e4


def test_contrastive_loss_by_hand() -> None:
    """Images 0 and 1 share text 0, image 2 has text 2, text 1 has none and gives no text-to-image term."""
    image_ND = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    text_MD = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    logits = 2 * np.array([[1, -1, 0], [0.6, -0.6, 0.8], [0, 0, 1.0]])
    rows = -np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    columns = -np.log(np.exp(logits) / np.exp(logits).sum(axis=0, keepdims=True))
    image_to_text = (rows[0, 0] + rows[1, 0] + rows[2, 2]) / 3
    text_to_image = ((columns[0, 0] + columns[1, 0]) / 2 + columns[2, 2]) / 2
    loss = contrastive_loss(image_ND, text_MD, torch.tensor([0, 0, 2]), 2.0)
    assert float(loss) == pytest.approx((image_to_text + text_to_image) / 2, rel=1e-5)


def coloured(num: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noisy 8x8 images of one colour each; the label is the colour's place in COLOURS."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, len(COLOURS), num)
    colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200], [220, 220, 220]])
    noise = generator.integers(-30, 31, (num, 8, 8, 3))
    return np.clip(colours[labels][:, None, None] + noise, 0, 255).astype(np.uint8), labels


def train(recipe: SmallClipnRecipe, *, num: int = 40) -> Clipn:
    return train_small_clipn(*coloured(num, seed=0), COLOURS, config=TINY, recipe=recipe, progress=quiet)


def weights(clipn: Clipn) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in clipn.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """First parts of the names of the tensors that differ, and whole names of token tables."""
    names = (name for name in before if not torch.equal(before[name], after[name]))
    return {name if "token" in name else name.split(".")[0] for name in names}


def test_equal_recipes_give_equal_weights_and_leave_no_trace() -> None:
    first, other = train(SHORT), train(replace(SHORT, seed=1))
    threads = torch.get_num_threads()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        second = train(SHORT)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)
    assert changed(weights(first), weights(second)) == set()
    assert changed(weights(first), weights(other)) >= {"visual", "text", "text_no", "prompt_no"}
    assert not first.training


def labelled(num: int = 16) -> CaptionedImages:
    """Coloured images captioned by class, in three templates."""
    pixels, labels = coloured(num, seed=0)
    tokens_CTL = tokenize_classes(COLOURS, default_templates()[:3], 20)
    return CaptionedImages(images=ArrayImages(pixels), captions=ClassCaptions(labels, tokens_CTL))


def paired(num: int = 16) -> CaptionedImages:
    """Coloured images, each with a caption of its own, some of them equal."""
    pixels, labels = coloured(num, seed=0)
    captions = [f"a {COLOURS[label]} thing, number {number % 6}" for number, label in enumerate(labels)]
    return CaptionedImages(images=ArrayImages(pixels), captions=PairCaptions(captions, 20))


@pytest.mark.parametrize("data", [labelled(), paired()], ids=["classes", "pairs"])
def test_each_stage_trains_its_part_only(data: CaptionedImages) -> None:
    clipn = new_clipn(TINY, 0)
    generator = torch.Generator().manual_seed(0)
    start = weights(clipn)
    train_clip(clipn, data, SHORT.clip, generator, quiet)
    middle = weights(clipn)
    assert changed(start, middle) == {"visual", "text", "logit_scale"}
    assert float(clipn.logit_scale.detach().exp()) == pytest.approx(20.0)
    train_no_tower(clipn, data, SHORT.clip, SHORT.no_tower, generator, quiet)
    assert changed(middle, weights(clipn)) == {"text_no", "prompt_no"}
    standing = NoTowerRecipe(steps=1, num_passes=1, learning_rate=0)
    train_no_tower(clipn, data, SHORT.clip, standing, generator, quiet)
    assert changed(clipn.text.state_dict(), clipn.text_no.state_dict()) == set()
    assert not clipn.prompt_no.any()


def stopped_at(path: Path, stop: int | None, offers: list[int] | None = None) -> FileSnapshots:
    """Snapshots whose user wants to stop at the offer with this number, counted from 1; `offers` gets the numbers."""
    seen: list[int] = [] if offers is None else offers

    def wants_stop() -> bool:
        seen.append(len(seen) + 1)
        return len(seen) == stop

    return FileSnapshots(path, identity="mine", every_seconds=1e9, wants_stop=wants_stop)


def train_both(data: CaptionedImages, snapshots: FileSnapshots | None) -> Clipn:
    clipn, generator = new_clipn(TINY, 0), torch.Generator().manual_seed(0)
    train_clip(clipn, data, SHORT.clip, generator, quiet, snapshots)
    train_no_tower(clipn, data, SHORT.clip, SHORT.no_tower, generator, quiet, snapshots)
    return clipn


@pytest.mark.parametrize("data", [labelled(), paired()], ids=["classes", "pairs"])
def test_a_stopped_training_goes_on_as_if_never_stopped(data: CaptionedImages, tmp_path: Path) -> None:
    """Stopped at each of the 7 offers: three steps, the cached features, three steps."""
    whole = weights(train_both(data, None))
    for stop in range(1, 8):
        path = tmp_path / f"{stop}.training"
        with pytest.raises(KeyboardInterrupt):
            train_both(data, stopped_at(path, stop))
        offers: list[int] = []
        snapshots = stopped_at(path, None, offers)
        assert snapshots.found == (f"stage clip, step {stop}" if stop <= 3 else f"stage no_tower, step {stop - 4}")
        assert changed(whole, weights(train_both(data, snapshots))) == set(), stop
        assert len(offers) == 7 - stop  # nothing is done twice


def test_state_is_kept_every_so_often_and_at_the_end_of_a_stage(tmp_path: Path) -> None:
    """A stop without a state of its own (a kill) goes on from the last one written."""

    def kept(every: float, *, die_at: int) -> str | None:
        path = tmp_path / f"{every}.training"
        offers = iter(range(1, 10**6))

        def die() -> bool:
            if next(offers) == die_at:
                raise RuntimeError("killed")
            return False

        with pytest.raises(RuntimeError, match="killed"):
            train_both(labelled(), FileSnapshots(path, identity="mine", every_seconds=every, wants_stop=die))
        return stopped_at(path, None).found if path.exists() else None

    assert kept(0.0, die_at=3) == "stage clip, step 2"
    assert kept(1e9, die_at=3) is None
    assert kept(1e8, die_at=6) == "stage clip, step 3"


def test_state_of_another_training_and_damaged_state_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.training"
    with pytest.raises(KeyboardInterrupt):
        train_both(labelled(), stopped_at(path, 1))
    with pytest.raises(ValueError, match="other settings or images"):
        FileSnapshots(path, identity="yours", every_seconds=1, wants_stop=lambda: False)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be read; remove it to start again"):
        stopped_at(path, None)


def test_class_captions_give_each_class_one_template() -> None:
    tokens_CTL = torch.arange(2 * 3 * 4).view(2, 3, 4)
    captions = ClassCaptions(np.array([1, 0, 1, 1]), tokens_CTL)
    generator = torch.Generator().manual_seed(0)
    drawn = [captions.draw(torch.tensor([3, 1]), generator) for _ in range(30)]
    assert all(target_B.tolist() == [1, 0] for _, target_B in drawn)
    assert {int(texts_M[0]) for texts_M, _ in drawn} == {0, 1, 2}
    assert {int(texts_M[1]) for texts_M, _ in drawn} == {3, 4, 5}
    assert torch.equal(captions.tokens_UL[5], tokens_CTL[1, 2])


def test_pair_captions_share_equal_ones() -> None:
    captions = PairCaptions(["two dogs", "a cat", "two dogs", "a bird"], 20)
    texts_M, target_B = captions.draw(torch.tensor([2, 1, 0]), torch.Generator())
    assert len(captions) == 4
    assert captions.tokens_UL.shape[0] == 3
    assert len(texts_M) == 2
    assert target_B[0] == target_B[2] != target_B[1]
    cat_L = PairCaptions(["a cat", "two dogs"], 20).tokens_UL[0]
    assert torch.equal(captions.tokens_UL[texts_M[target_B[1]]], cat_L)
    with pytest.raises(ValueError, match="needs 6 tokens and the model reads at most 5"):
        PairCaptions(["one two three four"], 5)


def test_flip_mirrors_about_half_the_images() -> None:
    still = ClipRecipe(noise=0, max_shift=0, max_degrees=0, max_zoom=0, flip=True)
    images_B3SS = torch.rand(200, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    moved_B3SS = augment(images_B3SS, still, torch.Generator().manual_seed(0))
    same_B = torch.isclose(moved_B3SS, images_B3SS, atol=1e-5).flatten(1).all(dim=1)
    mirrored_B = torch.isclose(moved_B3SS, images_B3SS.flip(3), atol=1e-5).flatten(1).all(dim=1)
    assert (same_B ^ mirrored_B).all()
    assert 70 < int(mirrored_B.sum()) < 130


def test_it_learns_names_and_what_is_none_of_them() -> None:
    """On unseen images: the named colours are told apart, and white is none of red, green and blue."""
    recipe = SmallClipnRecipe(clip=ClipRecipe(steps=120), no_tower=NoTowerRecipe(steps=120, num_passes=1))
    clipn = train(recipe, num=80)
    pixels, labels = coloured(100, seed=1)
    yes_CD, no_CD = encode_classes(clipn, tokenize_classes(COLOURS, default_templates(), 20))
    with torch.inference_mode():
        features_ND = clipn.encode_image(network_input(pixels, torch.device("cpu")))
    features_ND = features_ND / features_ND.norm(dim=1, keepdim=True)
    assert float((features_ND @ yes_CD.T).argmax(dim=1).eq(torch.from_numpy(labels)).float().mean()) > 0.95
    yes_N3, no_N3 = 20 * features_ND @ yes_CD[:3].T, 20 * features_ND @ no_CD[:3].T
    score_N = (yes_N3.softmax(dim=1) * torch.sigmoid(yes_N3 - no_N3)).sum(dim=1).numpy()  # Eq. 4 (ATD): high for ID
    white = labels == 3
    assert (score_N[~white, None] > score_N[white]).mean() > 0.95
    assert (score_N[~white] > 0.5).mean() > 0.9
    assert (score_N[white] < 0.5).mean() > 0.9


def test_a_loss_that_is_no_number_is_told() -> None:
    with pytest.raises(ValueError, match=r"the loss is nan at step \d+; lower the learning rate"):
        train(replace(SHORT, clip=ClipRecipe(steps=20, learning_rate=1e30, warmup_steps=1)))


def test_augmenting_by_nothing_is_the_identity() -> None:
    still = ClipRecipe(noise=0, max_shift=0, max_degrees=0, max_zoom=0)
    images_B3SS = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(augment(images_B3SS, still, generator), images_B3SS)
    assert not torch.allclose(augment(images_B3SS, ClipRecipe(noise=0), generator), images_B3SS, atol=0.01)


def test_identity_of_a_training() -> None:
    given: dict[str, Any] = {"config": small_clip_config(8), "images": "i", "class_names": ("a", "b")}
    own = training_identity(SHORT, **given)
    assert training_identity(SHORT, **given) == own
    others = [
        training_identity(replace(SHORT, seed=1), **given),
        training_identity(replace(SHORT, clip=ClipRecipe(steps=4)), **given),
        *(
            training_identity(SHORT, **(given | change))
            for change in ({"config": small_clip_config(16)}, {"images": "j"}, {"class_names": ("b", "a")})
        ),
        training_identity(replace(SHORT, clip=ClipRecipe(steps=3, flip=True)), **given),
    ]
    assert len({own, *others}) == 7
    stand_in = training_identity(SmallClipnRecipe(), **given)
    assert stand_in == "8c1fbcab846fa58e3a3451155946fd0765a94347425f26645b6c433830edc407", (
        "weights that users have in their caches would be trained again"
    )


def test_config_is_plain_json() -> None:
    assert json.loads(json.dumps(small_clip_config(32)))["vision_cfg"]["patch_size"] == 8


def test_a_masked_mean_is_the_mean_of_what_the_mask_picks() -> None:
    values, mask = torch.tensor([[1.0, 5.0], [2.0, float("inf")]]), torch.tensor([[True, False], [True, False]])
    assert masked_mean(values, mask).item() == 1.5
    values.requires_grad_()
    masked_mean(values, mask).backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert values.grad.tolist() == [[0.5, 0.0], [0.5, 0.0]]


def test_a_state_of_another_kind_of_device_is_refused(tmp_path: Path) -> None:
    clipn, generator = new_clipn(TINY, 0), torch.Generator().manual_seed(0)
    optimiser = torch.optim.SGD(clipn.parameters(), lr=0.1)
    stage = Stage(name="clip", steps=3, clipn=clipn, optimiser=optimiser, generator=generator)
    path = tmp_path / "state.pt"
    FileSnapshots(path, identity="-", every_seconds=0, wants_stop=lambda: False).offer(stage, 1)
    kept = torch.load(path, weights_only=True)
    torch.save(kept | {"generator": kept["generator"][:16]}, path)
    with pytest.raises(ValueError, match="another kind of device"):
        FileSnapshots(path, identity="-", every_seconds=0, wants_stop=lambda: False).restore(stage)
