"""On a CUDA device: recorded steps against plain ones, determinism, memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from data.imageset import ArrayImages
from models.classifier.crops import CropSource, Tower
from models.classifier.fit import fit
from models.classifier.inputs import Normalise
from models.classifier.loss_prediction import LossPrediction, add_loss_prediction
from models.classifier.networks import build_classifier
from models.classifier.predict import predict
from models.classifier.recipe import Recipe
from models.classifier.steps import Objective, _Graphs
from models.device import pick_device, use_arithmetic

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
PIXELS = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(100, dtype=np.int64) % 4
HALF = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    """The device, computing deterministically until the test's end."""
    device = pick_device(1.0)
    use_arithmetic(device, deterministic=True)
    yield device
    use_arithmetic(device, deterministic=False)


def trained(gpu: torch.device, recipe: Recipe, *, ll: bool = False, plain_steps: bool = False) -> list[torch.Tensor]:
    network: nn.Module = build_classifier(recipe, 4, weights_seed=0)
    objective: Objective | None = None
    if ll:
        network = add_loss_prediction(network, hidden=16, weights_seed=0)  # type: ignore[arg-type]
        objective = LossPrediction(weight=1.0, margin=1.0, detach_after=0.5)
    fit(
        network, PIXELS, LABELS, recipe=recipe, normalise=Normalise(*HALF, gpu), batches_seed=1, device=gpu,
        objective=objective, plain_steps=plain_steps,
    )  # fmt: skip
    return [value.cpu() for value in network.state_dict().values()]


RECIPES = {
    "steps": {"steps": 40},
    "passes with a smaller batch": {"epochs": 8},
    "dropout and rotation": {"steps": 30, "head_dropout": 0.5, "rotation": 20.0},
}


@pytest.mark.parametrize("ll", [False, True])
@pytest.mark.parametrize("settings", RECIPES.values(), ids=RECIPES)
def test_recorded_steps_equal_plain_ones_to_the_bit(
    settings: dict[str, object], ll: bool, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays: list[int] = []
    record = _Graphs.record

    def counting(self: _Graphs, work: object) -> object:
        replay = record(self, work)  # type: ignore[arg-type]
        return lambda: (replays.append(1), replay())

    monkeypatch.setattr(_Graphs, "record", counting)
    recipe = Recipe(width=16, batch_size=64, **settings)  # type: ignore[arg-type]
    plain = trained(gpu, recipe, ll=ll, plain_steps=True)
    assert not replays
    recorded = trained(gpu, recipe, ll=ll)
    assert len(replays) > 5
    assert all(torch.equal(one, other) for one, other in zip(plain, recorded, strict=True))


def test_a_head_on_random_crops_is_recorded_too(gpu: torch.device) -> None:
    tower = Tower(
        network=nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.Flatten(), nn.Linear(8 * 49, 16)),
        prepare=lambda pixels, device: torch.empty(0),
        image_size=56,
        mean=HALF[0],
        std=HALF[1],
    )
    recipe = Recipe(
        network="linear", encoder="clipn", flip=False, crop_padding=0, smallest_crop=0.9, steps=20, batch_size=16
    )
    heads = []
    for plain_steps in (True, False):
        head = build_classifier(recipe, 4, weights_seed=0, num_features=16)
        source = CropSource(pixels_NHH3=PIXELS, tower=tower)
        fit(
            head, source, LABELS, recipe=recipe, normalise=Normalise(*HALF, gpu), batches_seed=1, device=gpu,
            plain_steps=plain_steps,
        )  # fmt: skip
        heads.append(head.head.weight.cpu())
    assert torch.equal(*heads)


def test_equal_seeds_give_equal_weights(gpu: torch.device) -> None:
    first, again = (trained(gpu, Recipe(width=16, steps=30)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_bfloat16_in_recorded_steps_learns(gpu: torch.device) -> None:
    weights = trained(gpu, Recipe(width=16, steps=30, precision="bf16"))
    assert all(torch.isfinite(value).all() for value in weights)


def test_a_training_leaves_no_memory_behind(gpu: torch.device) -> None:
    trained(gpu, Recipe(width=16, steps=10))
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    for _ in range(3):
        trained(gpu, Recipe(width=16, steps=10))
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before


def test_too_large_a_pass_falls_back_and_then_says_what_to_lower(gpu: torch.device) -> None:
    network = build_classifier(Recipe(width=64), 4, weights_seed=0).to(gpu)
    images, idx = ArrayImages(PIXELS), np.zeros(40_000, dtype=np.int64)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((1 << 30) / total)
    try:
        with pytest.raises(MemoryError, match=r"lower recipe\.eval_batch_size \(now 40000\)"):
            predict(
                network, images, idx, recipe=Recipe(eval_batch_size=40_000), normalise=Normalise(*HALF, gpu), device=gpu
            )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
