"""Random resized crops against torchvision's on PIL images: the same pixels, the same boxes with the same chances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import RandomResizedCrop

from models.classifier.crops import CropSource, Tower, random_boxes, resized_crops
from models.classifier.fit import fit
from models.classifier.inputs import FeatureRows, Normalise, training_inputs
from models.classifier.networks import build_classifier
from models.classifier.recipe import Recipe
from models.device import Machine

CPU = torch.device("cpu")
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [56, 32, 20, 7])
@pytest.mark.parametrize("box", [(0, 0, 32, 32), (1, 2, 30, 29), (5, 0, 20, 32), (31, 31, 1, 1)])
def test_pixels_are_those_of_pil(box: tuple[int, int, int, int], size: int) -> None:
    top, left, height, width = box
    image = Image.fromarray(NOISE).crop((left, top, left + width, top + height))
    expected = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).astype(int)
    boxes = torch.tensor([box, (0, 0, 32, 32)])
    ours = resized_crops(torch.from_numpy(np.stack([NOISE, NOISE])), boxes, size)[0].permute(1, 2, 0)
    difference = np.abs(ours.numpy() - expected)
    # PIL rounds weights to 22 bits, so what lies halfway between two levels may go the other way, across and down.
    assert difference.max() <= 2
    assert (difference > 1).sum() <= 1
    assert (difference > 0).mean() < 0.01


def test_each_image_has_its_own_box() -> None:
    images = torch.from_numpy(np.stack([NOISE, NOISE[::-1].copy()]))
    boxes = torch.tensor([(0, 0, 8, 8), (10, 20, 4, 6)])
    both = resized_crops(images, boxes, 16)
    for number in range(2):
        alone = resized_crops(images[number : number + 1], boxes[number : number + 1], 16)
        torch.testing.assert_close(both[number], alone[0], atol=1.0, rtol=0)


@pytest.mark.parametrize(("size", "smallest"), [(32, 0.9), (224, 0.9), (32, 0.2)])
def test_boxes_have_the_chances_of_torchvision(size: int, smallest: float) -> None:
    num = 4000
    ours = random_boxes(num, size, smallest, torch.Generator().manual_seed(0)).double()
    torch.manual_seed(0)
    image = torch.empty(3, size, size)
    get = RandomResizedCrop.get_params
    theirs = torch.tensor([get(image, [smallest, 1.0], [3 / 4, 4 / 3]) for _ in range(num)]).double()
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 2:] >= 1).all()
    assert (ours[:, :2] + ours[:, 2:] <= size).all()
    area = ours[:, 2] * ours[:, 3] / size**2
    assert area.max() == 1.0
    assert area.min() >= smallest - 2 / size
    # Means over 4,000: five standard errors of the difference.
    bound = 5 * (ours.std(dim=0) ** 2 / num + theirs.std(dim=0) ** 2 / num).sqrt()
    assert ((ours.mean(dim=0) - theirs.mean(dim=0)).abs() <= bound).all()
    whole, expected = ((boxes[:, 2:] == size).all(dim=1).double().mean() for boxes in (ours, theirs))
    assert abs(whole - expected) < 0.04


class Mean(nn.Module):
    """Features: the mean of each channel."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[1:] == (3, 12, 12)
        assert not torch.is_grad_enabled()
        return images.mean(dim=(2, 3))


def tower() -> Tower:
    half = (0.5, 0.5, 0.5)
    return Tower(network=Mean(), prepare=lambda pixels, device: torch.empty(0), image_size=12, mean=half, std=half)


LINEAR = {"network": "linear", "encoder": "clipn", "flip": False, "crop_padding": 0, "smallest_crop": 0.9}


def test_batches_are_features_of_new_crops() -> None:
    level = np.repeat(np.array([0, 255], dtype=np.uint8), 16 * 16 * 3).reshape(2, 16, 16, 3)
    recipe = Recipe(**LINEAR, batch_size=4, steps=3)  # type: ignore[arg-type]
    batches = CropSource(pixels_NHH3=level, tower=tower()).batches(recipe, torch.Generator().manual_seed(0))
    drawn = list(batches.positions())
    assert [len(picked) for picked in drawn] == [4, 4, 4]
    assert batches.augment(torch.tensor([1, 0])).tolist() == [[1.0] * 3, [-1.0] * 3]
    noisy = CropSource(pixels_NHH3=NOISE[None], tower=tower()).batches(recipe, torch.Generator().manual_seed(0))
    assert len(noisy.augment(torch.zeros(8, dtype=torch.int64)).unique(dim=0)) > 1


def test_a_head_learns_on_crops_and_equal_seeds_give_equal_heads() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(12, dtype=np.int64) % 2
    pixels = rng.integers(0, 120, (12, 16, 16, 3), dtype=np.uint8)
    pixels[labels == 1] += 100
    rows = FeatureRows(np.zeros((12, 3), dtype=np.float32), identity="-", crops=lambda idx: source(pixels[idx]))
    recipe = Recipe(**LINEAR, batch_size=8, steps=60, learning_rate=0.5)  # type: ignore[arg-type]

    def trained() -> nn.Module:
        head = build_classifier(recipe, 2, weights_seed=0, num_features=3)
        normalise = Normalise((0.0,) * 3, (1.0,) * 3, CPU)
        inputs = training_inputs(rows, np.arange(12))
        return fit(
            head, inputs, labels, recipe=recipe, normalise=normalise, batches_seed=0, machine=Machine(device=CPU)
        )

    def source(some: np.ndarray) -> CropSource:
        return CropSource(pixels_NHH3=some, tower=tower())

    head = trained()
    assert all(torch.equal(one, other) for one, other in zip(head.parameters(), trained().parameters(), strict=True))
    features = torch.from_numpy(pixels).float().div(255).sub(0.5).div(0.5).mean(dim=(1, 2))
    assert head(features)[0].argmax(dim=1).tolist() == labels.tolist()


def test_rows_without_crops_are_trained_on_as_they_are() -> None:
    rows = FeatureRows(np.arange(6, dtype=np.float32).reshape(2, 3), identity="-")
    np.testing.assert_array_equal(training_inputs(rows, np.array([1])), [[3.0, 4.0, 5.0]])  # type: ignore[arg-type]
