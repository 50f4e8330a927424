"""fit() and predict(): batches, schedule, learning, repeatability."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, cast

import numpy as np
import pytest
import torch
from torch import nn

from data.imageset import ArrayImages
from models.classifier.fit import CrossEntropy, fit
from models.classifier.inputs import Normalise, PixelBatches
from models.classifier.networks import ResNet18, build_classifier
from models.classifier.predict import predict
from models.classifier.recipe import Recipe
from models.classifier.sgd import Sgd
from models.device import Machine, pick_device, use_threads

CPU = torch.device("cpu")
PLAIN = Normalise((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), CPU)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    use_threads(1)


def two_colours(num: int) -> tuple[np.ndarray, np.ndarray]:
    """Images that are mostly red (class 0) or mostly blue (class 1), with noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(num, dtype=np.int64) % 2
    pixels = rng.integers(0, 100, size=(num, 8, 8, 3), dtype=np.uint8)
    pixels[np.arange(num), :, :, 2 * labels] += 100
    return pixels, labels


def batches(pixels: np.ndarray, seed: int = 0, **recipe: object) -> PixelBatches:
    return PixelBatches(pixels, Recipe(**recipe), PLAIN, torch.Generator().manual_seed(seed))  # type: ignore[arg-type]


def draw(source: PixelBatches) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions and pixels of the first batch."""
    picked = next(source.positions())
    return picked, source.pixels(picked)


def test_normalise_by_hand() -> None:
    normalise = Normalise((0.5, 0.25, 0.0), (0.5, 0.5, 1.0), CPU)
    pixels = torch.tensor([[[[255, 0, 51]]]], dtype=torch.uint8)
    assert normalise(pixels).flatten().tolist() == pytest.approx([1.0, -0.5, 0.2], abs=1e-6)


def test_batches_are_drawn_with_replacement() -> None:
    pixels = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), dtype=np.uint8)
    source = batches(pixels, batch_size=1000, flip=False, crop_padding=0)
    picked, images = draw(source)
    counts = torch.bincount(picked, minlength=4)
    assert ((counts > 200) & (counts < 300)).all()
    assert torch.equal(images[:, 0, 0, 0].long(), picked)


def test_flip_mirrors_half_of_the_images() -> None:
    row = np.arange(8, dtype=np.uint8)
    pixels = np.broadcast_to(row[None, None, :, None], (1, 8, 8, 3)).copy()
    _, images = draw(batches(pixels, batch_size=400, flip=True, crop_padding=0))
    forward = (images[:, 0, :, 0] == torch.from_numpy(row)).all(dim=1)
    backward = (images[:, 0, :, 0] == torch.from_numpy(row[::-1].copy())).all(dim=1)
    assert (forward ^ backward).all()
    assert 150 < forward.sum() < 250


def test_crop_shifts_by_up_to_the_padding_and_fills_with_black() -> None:
    pixels = np.full((1, 8, 8, 3), 9, dtype=np.uint8)
    _, images = draw(batches(pixels, batch_size=500, flip=False, crop_padding=2))
    inside = (images[..., 0] == 9).sum(dim=(1, 2))
    assert set(inside.tolist()) == {height * width for height in (6, 7, 8) for width in (6, 7, 8)}
    assert set(images.unique().tolist()) == {0, 9}


def test_every_shift_is_as_likely() -> None:
    pixels = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    pixels[0, 4, 4] = 1
    _, images = draw(batches(pixels, batch_size=5000, flip=False, crop_padding=1))
    places = images[..., 0].reshape(5000, 64).argmax(dim=1).bincount(minlength=64)
    assert (places > 0).sum() == 9
    assert places[places > 0].min() > 5000 / 9 * 0.8


def test_the_learning_rate_falls_at_the_milestones(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    original = Sgd.step

    def step(self: Sgd) -> None:
        rates.append(float(self.groups[0].rate))
        original(self)

    monkeypatch.setattr(Sgd, "step", step)
    pixels, labels = two_colours(4)
    recipe = Recipe(width=2, steps=8, batch_size=4, learning_rate=0.1)
    train(pixels, labels, recipe)
    assert rates == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2)


@pytest.mark.parametrize(("num_images", "sizes"), [(8, [4, 4]), (10, [4, 4, 2]), (9, [4, 5]), (3, [3]), (1, [2])])
def test_a_pass_takes_every_image_once(num_images: int, sizes: list[int]) -> None:
    pixels = np.zeros((num_images, 8, 8, 3), dtype=np.uint8)
    recipe = Recipe(epochs=2, batch_size=4)
    drawn = list(batches(pixels, epochs=2, batch_size=4).positions())
    assert [len(picked) for picked in drawn] == 2 * sizes
    assert recipe.num_steps(num_images) == len(drawn)
    passes = [torch.cat(drawn[: len(sizes)]), torch.cat(drawn[len(sizes) :])]
    assert all(set(positions.tolist()) == set(range(num_images)) for positions in passes)
    if num_images > 3:
        assert passes[0].tolist() != passes[1].tolist() != sorted(passes[1].tolist())


def test_pictures_are_turned_by_at_most_so_much() -> None:
    pixels = np.zeros((1, 33, 33, 3), dtype=np.uint8)
    pixels[0, 16, 28] = 255  # 12 pixels right of the centre
    source = batches(pixels, rotation=30, flip=False, crop_padding=0)
    turned = source.pixels(torch.zeros(400, dtype=torch.int64))[..., 0].float()
    rows, cols = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(33.0) - 16, indexing="ij")
    angles = torch.rad2deg(torch.atan2((turned * rows).sum(dim=(1, 2)), (turned * cols).sum(dim=(1, 2))))
    assert angles.abs().max() < 32
    assert angles.max() > 25
    assert angles.min() < -25
    assert turned.dtype == torch.float32
    assert batches(pixels, rotation=0, flip=False, crop_padding=0).pixels(torch.tensor([0]))[0, 16, 28, 0] == 255


def test_rates_fall_between_passes_and_other_parameters_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[list[tuple[float, bool]]] = []
    original = Sgd.step

    def step(self: Sgd) -> None:
        rates.append([(float(group.rate), group.nesterov) for group in self.groups])
        original(self)

    class HeadApart(CrossEntropy):
        told: ClassVar[list[float]] = []

        def prepare(self, network: nn.Module, done: float) -> None:
            self.told.append(done)

        def other_parameters(self, network: nn.Module) -> Iterable[nn.Parameter]:
            return cast(ResNet18, network).head.parameters()

    monkeypatch.setattr(Sgd, "step", step)
    recipe = Recipe(width=2, epochs=4, batch_size=4, learning_rate=0.1, milestones=(0.3, 0.5), decay=0.5)
    network = build_classifier(recipe, 2, weights_seed=0)
    fit(
        network,
        *two_colours(6),
        recipe=recipe,
        normalise=PLAIN,
        batches_seed=0,
        machine=Machine(device=CPU),
        objective=HeadApart(),
    )
    expected = [0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.025, 0.025]
    assert [step[0] for step in rates] == [(pytest.approx(rate), False) for rate in expected]
    assert {step[1] for step in rates} == {(0.1, True)}
    assert HeadApart.told == [0.0, 0.25, 0.5, 0.75]


def test_dropout_before_the_head_depends_on_the_seed_alone() -> None:
    recipe = Recipe(width=2, steps=5, batch_size=4, head_dropout=0.5)
    torch.manual_seed(3)
    first = train(*two_colours(8), recipe).state_dict()
    torch.manual_seed(4)
    state = torch.get_rng_state()
    again = train(*two_colours(8), recipe).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    without = train(*two_colours(8), recipe.model_copy(update={"head_dropout": 0.0})).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], without["head.weight"])


def test_a_temperature_divides_the_logits() -> None:
    images, labels = torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])
    logits = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    network = nn.Module()
    network.forward = lambda images: (logits, images)  # type: ignore[method-assign]
    cold, plain = (CrossEntropy(t).loss(network, images, labels, labels).item() for t in (0.5, 1.0))
    assert cold == pytest.approx((np.log1p(np.exp(-4)) + np.log(2)) / 2)
    assert plain == pytest.approx((np.log1p(np.exp(-2)) + np.log(2)) / 2)


def test_predictions_tell_the_last_layer() -> None:
    pixels, _ = two_colours(4)
    recipe = Recipe(width=2)
    network = build_classifier(recipe, 2, weights_seed=0)
    given = predict(network, ArrayImages(pixels), np.arange(4), recipe=recipe, normalise=PLAIN, device=CPU)
    assert given.head is not None
    by_hand = given.features_ND @ given.head.weight_KD.T + given.head.bias_K
    np.testing.assert_allclose(by_hand, given.logits_NK, atol=1e-5)
    assert given.predicted_losses_N is None


def train(pixels: np.ndarray, labels: np.ndarray, recipe: Recipe, *, seed: int = 0) -> nn.Module:
    network = build_classifier(recipe, 2, weights_seed=0)
    return fit(network, pixels, labels, recipe=recipe, normalise=PLAIN, batches_seed=seed, machine=Machine(device=CPU))


def test_it_learns() -> None:
    recipe = Recipe(width=4, steps=40, batch_size=16, learning_rate=0.05)
    network = train(*two_colours(20), recipe)
    pixels, labels = two_colours(50)
    given = predict(network, ArrayImages(pixels), np.arange(50), recipe=recipe, normalise=PLAIN, device=CPU)
    assert (given.logits_NK.argmax(axis=1) == labels).all()
    assert not network.training


def test_equal_seeds_give_equal_weights() -> None:
    recipe = Recipe(width=2, steps=5, batch_size=4)
    first, again = (train(*two_colours(8), recipe).state_dict() for _ in range(2))
    other = train(*two_colours(8), recipe, seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_progress_is_told() -> None:
    recipe = Recipe(width=2, steps=200, batch_size=2)
    heard: list[tuple[int, int]] = []
    network = build_classifier(recipe, 2, weights_seed=0)
    fit(
        network,
        *two_colours(4),
        recipe=recipe,
        normalise=PLAIN,
        batches_seed=0,
        machine=Machine(device=CPU),
        progress=lambda *step: heard.append(step),
    )
    assert heard == [(100, 200), (200, 200)]


def test_nothing_to_train_on_is_said() -> None:
    with pytest.raises(ValueError, match="no labelled ID image"):
        train(np.empty((0, 8, 8, 3), dtype=np.uint8), np.empty(0, dtype=np.int64), Recipe(width=2, steps=1))


def test_prediction_follows_the_order_asked_for_and_not_the_batch_size() -> None:
    pixels, _ = two_colours(10)
    idx = np.array([7, 0, 3, 3, 9])
    given = [
        predict(
            build_classifier(recipe, 2, weights_seed=0),
            ArrayImages(pixels),
            idx,
            recipe=recipe,
            normalise=PLAIN,
            device=CPU,
        )
        for recipe in (Recipe(width=2, eval_batch_size=2), Recipe(width=2, eval_batch_size=100))
    ]
    np.testing.assert_allclose(given[0].logits_NK, given[1].logits_NK, atol=1e-5)
    np.testing.assert_array_equal(given[1].features_ND[2], given[1].features_ND[3])
    assert given[0].features_ND.shape == (5, 16)


def test_bfloat16_is_close_to_full_precision() -> None:
    pixels, _ = two_colours(6)
    network = build_classifier(Recipe(width=4), 2, weights_seed=0)
    full, half = (
        predict(
            network, ArrayImages(pixels), np.arange(6), recipe=Recipe(width=4, precision=precision), normalise=PLAIN,
            device=CPU,
        )
        for precision in ("fp32", "bf16")
    )  # fmt: skip
    assert half.logits_NK.dtype == np.float32
    np.testing.assert_allclose(half.logits_NK, full.logits_NK, atol=0.05)
    assert not np.array_equal(half.logits_NK, full.logits_NK)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="torch sees no GPU"):
        pick_device(0.5)


class ShortOfMemory(nn.Module):
    """Says what images it was shown, and has no memory for more than `most` of them."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.sizes = most, list[int]()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images.mean(dim=(2, 3)), images[:, :, 0, 0]


def look(network: nn.Module, num: int, eval_batch_size: int) -> np.ndarray:
    recipe, images = Recipe(eval_batch_size=eval_batch_size), ArrayImages(two_colours(num)[0])
    return predict(network, images, np.arange(num), recipe=recipe, normalise=PLAIN, device=CPU).logits_NK


def test_a_pass_goes_on_with_half_the_batch_where_memory_is_short() -> None:
    network = ShortOfMemory(most=3)
    given = look(network, 10, eval_batch_size=6)
    assert network.sizes == [6, 3, 3, 3, 1]
    np.testing.assert_array_equal(given, look(ShortOfMemory(most=10), 10, eval_batch_size=6))


@pytest.mark.parametrize(("size", "most", "tried"), [(6, 2, [6, 3]), (1, 0, [1])])
def test_a_pass_that_does_not_fit_says_what_to_lower(size: int, most: int, tried: list[int]) -> None:
    network = ShortOfMemory(most=most)
    with pytest.raises(MemoryError, match=rf"hold {tried[-1]} images .*lower recipe.eval_batch_size \(now {size}\)"):
        look(network, 10, eval_batch_size=size)
    assert network.sizes == tried


def test_a_training_that_does_not_fit_says_what_to_lower() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), ShortOfMemory(most=0))
    with pytest.raises(MemoryError, match=r"memory is too small in training: .* lower recipe\.batch_size"):
        fit(
            network, *two_colours(4), recipe=Recipe(steps=1), normalise=PLAIN, batches_seed=0,
            machine=Machine(device=CPU),
        )  # fmt: skip
