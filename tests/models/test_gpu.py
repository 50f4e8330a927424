"""On a CUDA device: recorded and compiled steps against plain ones, determinism, memory, passes over a pool.

Where there is none, a stand-in takes its place in all but the tests of memory and of the compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.imageset import ArrayImages
from models import graphs
from models.classifier import resident
from models.classifier.crops import CropSource, Tower
from models.classifier.energy import EnergyObjective
from models.classifier.evidential import EvidentialObjective, add_evidence
from models.classifier.fit import CrossEntropy, fit
from models.classifier.inputs import Normalise
from models.classifier.loss_prediction import LossPrediction, add_loss_prediction
from models.classifier.negative import NegativeObjective
from models.classifier.networks import build_classifier
from models.classifier.open_set import OpenSetObjective, build_detector
from models.classifier.predict import predict
from models.classifier.recipe import Recipe
from models.classifier.steps import Objective
from models.clipn.captions import ClassCaptions
from models.clipn.encode import ClassRows, ImageRows, SentenceRows
from models.clipn.prompts import default_templates
from models.clipn.recipe import ClipRecipe, NoTowerRecipe, small_resnet_config
from models.clipn.tokens import tokenize_classes
from models.clipn.training import CaptionedImages, new_clipn, train_clip, train_no_tower
from models.contrastive.encoder import ContrastiveFeatures
from models.contrastive.recipe import ContrastiveRecipe
from models.device import Machine, pick_device, use_arithmetic
from models.graphs import CompiledForward, compiled_forward
from tests.card import card

HAS_CARD = torch.cuda.is_available()
ON_CARD = [pytest.mark.gpu, pytest.mark.skipif(not HAS_CARD, reason="torch sees no CUDA device")]
ON_STAND_IN = [pytest.mark.skipif(HAS_CARD, reason="the card itself is there")]
PIXELS = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(100, dtype=np.int64) % 4
HALF = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture(params=[pytest.param("card", marks=ON_CARD), pytest.param("stand-in", marks=ON_STAND_IN)])
def gpu(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The device, computing deterministically until the test's end."""
    if request.param == "stand-in":
        with card():
            yield pick_device(1.0)
        return
    device = pick_device(1.0)
    use_arithmetic(device, deterministic=True)
    yield device
    use_arithmetic(device, deterministic=False)


by_the_card_itself = pytest.mark.parametrize("gpu", [pytest.param("card", marks=ON_CARD)], indirect=True)
"""For tests of memory and of the compiler, which a stand-in does not have."""


def trained(gpu: torch.device, recipe: Recipe, *, ll: bool = False, plain_steps: bool = False) -> list[torch.Tensor]:
    network: nn.Module = build_classifier(recipe, 4, weights_seed=0)
    objective: Objective | None = None
    if ll:
        network = add_loss_prediction(network, hidden=16, weights_seed=0)  # type: ignore[arg-type]
        objective = LossPrediction(weight=1.0, margin=1.0, detach_after=0.5)
    fit(
        network, PIXELS, LABELS, recipe=recipe, normalise=Normalise(*HALF, gpu), batches_seed=1,
        machine=Machine(device=gpu, plain_steps=plain_steps),
        objective=objective,
    )  # fmt: skip
    return [value.cpu() for value in network.state_dict().values()]


RECIPES = {
    "steps": {"steps": 20},
    "passes with a smaller batch": {"epochs": 8},
    "dropout and rotation": {"steps": 16, "head_dropout": 0.5, "rotation": 20.0},
}
REPLAYS = {
    # All steps but the first three of each phase and batch size. LL's head is detached after half of the training.
    ("steps", False): 17,
    ("steps", True): 8 + 6,
    ("passes with a smaller batch", False): 2 * 5,
    ("passes with a smaller batch", True): 2 * (2 + 0),
    ("dropout and rotation", False): 13,
    ("dropout and rotation", True): 6 + 4,
}


@pytest.mark.parametrize("ll", [False, True])
@pytest.mark.parametrize("name", RECIPES)
def test_recorded_steps_equal_plain_ones_to_the_bit(
    name: str, ll: bool, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays = counted_replays(monkeypatch)
    recipe = Recipe(width=4, batch_size=64, **RECIPES[name])  # type: ignore[arg-type]
    plain = trained(gpu, recipe, ll=ll, plain_steps=True)
    assert not replays
    recorded = trained(gpu, recipe, ll=ll)
    assert len(replays) == REPLAYS[name, ll]
    assert all(torch.equal(one, other) for one, other in zip(plain, recorded, strict=True))


def counted_replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets an entry for each replay from now on."""
    replays: list[int] = []
    record = graphs._Graphs.record

    def counting(self: graphs._Graphs, work: Callable[[], None]) -> Callable[[], object]:
        replay = record(self, work)
        return lambda: (replays.append(1), replay())

    monkeypatch.setattr(graphs._Graphs, "record", counting)
    return replays


class Waiting(CrossEntropy):
    """An objective that claims its steps could be recorded, and waits for the device in each."""

    def loss(self, network: nn.Module, images_B3HW: Tensor, labels_B: Tensor, picked_B: Tensor) -> Tensor:
        loss = super().loss(network, images_B3HW, labels_B, picked_B)
        assert loss.item() == loss.item()
        return loss


def test_steps_that_cannot_be_recorded_are_taken_plainly(gpu: torch.device, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe(width=4, steps=12, head_dropout=0.5)
    weights, ways = [], set[str]()
    for plain_steps in (True, False):
        network = build_classifier(recipe, 4, weights_seed=0)
        fit(
            network, PIXELS, LABELS, recipe=recipe, normalise=Normalise(*HALF, gpu), batches_seed=1,
            machine=Machine(device=gpu, plain_steps=plain_steps, ways=ways),
            objective=Waiting(),
        )  # fmt: skip
        weights.append([value.cpu() for value in network.state_dict().values()])
    assert ways == {"plain"}
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))
    assert capsys.readouterr().err.startswith("steps are launched kernel by kernel: they cannot be recorded (")
    # The generators draw again, and what can be recorded still is.
    again = trained(gpu, Recipe(width=4, steps=12, head_dropout=0.5))
    assert all(torch.equal(one, other) for one, other in zip(weights[0], again, strict=True))


@pytest.mark.slow
@by_the_card_itself
def test_compiled_steps_learn_what_plain_ones_learn(
    gpu: torch.device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_arithmetic(gpu, deterministic=False)
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path))
    monkeypatch.setattr(graphs, "COMPILE_FROM", 1)
    recipe = Recipe(width=4, steps=150, batch_size=64)
    pixels = PIXELS // 2
    pixels[np.arange(100), :, :, LABELS % 3] += 60
    right = []
    for no_compile in (True, False):
        network, ways = build_classifier(recipe, 4, weights_seed=0), set[str]()
        fit(
            network, pixels, LABELS % 3, recipe=recipe, normalise=Normalise(*HALF, gpu), batches_seed=1,
            machine=Machine(device=gpu, no_compile=no_compile, ways=ways),
        )  # fmt: skip
        assert ways == {"recorded" if no_compile else "compiled and recorded"}, graphs._Process.failure
        given = predict(
            network, ArrayImages(pixels), np.arange(100), recipe=recipe, normalise=Normalise(*HALF, gpu), device=gpu
        )
        right.append(float((given.logits_NK.argmax(axis=1) == LABELS % 3).mean()))
    assert min(right) > 0.95


@pytest.mark.slow
@by_the_card_itself
def test_a_compiled_gradient_is_the_plain_one(
    gpu: torch.device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_arithmetic(gpu, deterministic=False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path))
    images = torch.randn(32, 3, 32, 32, device=gpu).contiguous(memory_format=torch.channels_last)
    gradients = []
    network = build_classifier(Recipe(width=4), 4, weights_seed=0).to(gpu)
    compiled = CompiledForward(compiled_forward)
    for run in (lambda work: compiled.run(network, work, "kind"), lambda work: work()):
        network.zero_grad()
        run(lambda: network(images)[0].square().sum().backward())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert compiled.is_used, graphs._Process.failure
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-3


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
            head, source, LABELS, recipe=recipe, normalise=Normalise(*HALF, gpu), batches_seed=1,
            machine=Machine(device=gpu, plain_steps=plain_steps),
        )  # fmt: skip
        heads.append(head.head.weight.cpu())
    assert torch.equal(*heads)


def test_equal_seeds_give_equal_weights(gpu: torch.device) -> None:
    first, again = (trained(gpu, Recipe(width=4, steps=12)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_bfloat16_in_recorded_steps_learns(gpu: torch.device) -> None:
    weights = trained(gpu, Recipe(width=4, steps=12, precision="bf16"))
    assert all(torch.isfinite(value).all() for value in weights)


@by_the_card_itself
def test_twenty_trainings_take_the_memory_of_two(gpu: torch.device) -> None:
    reserved = []
    for _ in range(20):
        trained(gpu, Recipe(width=4, steps=10))
        torch.cuda.empty_cache()
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[-1] == reserved[1]


class CountingImages(ArrayImages):
    """Counts how often it is read."""

    reads = 0

    def load(self, idx: NDArray[np.int64]) -> NDArray[np.uint8]:
        self.reads += 1
        return super().load(idx)


@pytest.mark.parametrize("most_bytes", [None, 0], ids=["kept on the device", "read batch by batch"])
def test_a_pass_over_a_pool_says_what_a_cpu_says(
    most_bytes: int | None, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if most_bytes is not None:
        monkeypatch.setattr(resident, "_limit", lambda device: most_bytes)
    recipe, images, idx = Recipe(width=4, eval_batch_size=32), CountingImages(PIXELS), np.arange(99, 9, -1)
    network = build_classifier(recipe, 4, weights_seed=0)
    fit(network, PIXELS, LABELS, recipe=recipe.model_copy(update={"steps": 20}), normalise=Normalise(*HALF, gpu),
        batches_seed=1, machine=Machine(device=gpu))  # fmt: skip
    given = [
        predict(network.to(where), images, idx, recipe=recipe, normalise=Normalise(*HALF, where), device=where)
        for where in (gpu, torch.device("cpu"))
    ]
    for one, other in ((given[0].logits_NK, given[1].logits_NK), (given[0].features_ND, given[1].features_ND)):
        assert np.linalg.norm(one - other) < 1e-3 * np.linalg.norm(other)
    reads = images.reads
    predict(network.to(gpu), images, idx, recipe=recipe, normalise=Normalise(*HALF, gpu), device=gpu)
    assert (images.reads == reads) == (most_bytes is None)
    resident.forget_residents()


def eoal_weights(gpu: torch.device, *, plain_steps: bool) -> list[Tensor]:
    """Of a detector trained on images of which every fourth is OOD, in two clusters."""
    recipe = Recipe(width=4, epochs=10, batch_size=32)
    network = build_detector(build_classifier(recipe, 4, weights_seed=0), 3, weights_seed=0)
    clusters = torch.arange(25, device=gpu) % 2

    def cluster(features: Tensor) -> tuple[Tensor, Tensor]:
        return torch.stack([features[clusters == number].mean(dim=0) for number in (0, 1)]), clusters

    ood = torch.from_numpy(PIXELS[LABELS == 3]).to(gpu)
    objective = OpenSetObjective(
        num_known=3, is_ood_N=torch.from_numpy(LABELS == 3).to(gpu), temperature=0.5, alpha=0.8, regulariser=0.1,
        ood_features=lambda network: network(Normalise(*HALF, gpu)(ood))[1].detach(), cluster=cluster,
    )  # fmt: skip
    fit(
        network, PIXELS, LABELS, recipe=recipe, normalise=Normalise(*HALF, gpu), batches_seed=1,
        machine=Machine(device=gpu, plain_steps=plain_steps),
        objective=objective,
    )  # fmt: skip
    return [value.cpu() for value in network.state_dict().values()]


def test_a_detector_with_clusters_is_recorded(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    replays = counted_replays(monkeypatch)
    plain = eoal_weights(gpu, plain_steps=True)
    recorded = eoal_weights(gpu, plain_steps=False)
    assert len(replays) == 10 * 4 - 2 * 3  # three batches of 32 and one of 4 in each pass
    assert all(torch.equal(one, other) for one, other in zip(plain, recorded, strict=True))


OBJECTIVES: dict[str, Callable[[torch.device], tuple[nn.Module, Objective]]] = {
    "negative": lambda gpu: (build_classifier(Recipe(width=4), 3, weights_seed=0), NegativeObjective(3)),
    "energy": lambda gpu: (
        build_classifier(Recipe(width=4), 4, weights_seed=0), EnergyObjective(weight=0.1, known=-5.0, unknown=-1.0)
    ),
    "evidential": lambda gpu: (
        add_evidence(build_classifier(Recipe(width=4), 3, weights_seed=0), num_known=3, num_hidden=1, weights_seed=0),
        EvidentialObjective(passes=10, temperature=0.5, device=gpu),  # its weight grows in every pass
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_is_recorded(name: str, gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    replays, weights = counted_replays(monkeypatch), []
    recipe = Recipe(width=4, epochs=4, batch_size=32)
    for plain_steps in (True, False):
        network, objective = OBJECTIVES[name](gpu)
        fit(
            network, PIXELS, LABELS, recipe=recipe, normalise=Normalise(*HALF, gpu), batches_seed=1,
            machine=Machine(device=gpu, plain_steps=plain_steps),
            objective=objective,
        )  # fmt: skip
        weights.append([value.cpu() for value in network.state_dict().values()])
    assert len(replays) == 4 * 4 - 2 * 3  # three batches of 32 and one of 4 in each pass
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_features_of_images_and_texts_are_a_cpu_s(precision: Literal["fp32", "bf16"], gpu: torch.device) -> None:
    clipn, found = new_clipn(small_resnet_config(32), 0).eval(), []
    for where in ("cpu", gpu):
        clipn.to(where)
        images = ImageRows(clipn, ArrayImages(PIXELS), precision=precision)
        texts = (
            ClassRows(clipn, ("red", "green"), default_templates()[:3]),
            SentenceRows(clipn, ("a cat", "two red dogs")),
        )
        found.append([images.compute(0, 60), images.compute(60, 100), *(rows.compute(0, 2) for rows in texts)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 if precision == "fp32" else 2e-2)


@contextmanager
def recording_nothing(device: torch.device, generator: torch.Generator, *, wanted: bool) -> Iterator[None]:
    yield None


def test_both_stages_of_clipn_are_recorded(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    replays = counted_replays(monkeypatch)
    found = []
    for is_recorded in (False, True):
        with monkeypatch.context() as patch:
            if not is_recorded:
                patch.setattr("models.clipn.training.recorder", recording_nothing)
            clipn = new_clipn(small_resnet_config(32), 0).to(gpu)
            tokens_CTL = tokenize_classes(("red", "green", "blue", "grey"), default_templates()[:3], 32)
            data = CaptionedImages(images=ArrayImages(PIXELS), captions=ClassCaptions(LABELS, tokens_CTL))
            generator = torch.Generator(gpu).manual_seed(0)
            clip, no_tower = ClipRecipe(steps=12, batch_size=16), NoTowerRecipe(steps=10, batch_size=16, num_passes=1)
            train_clip(clipn, data, clip, generator, lambda line: None)
            train_no_tower(clipn, data, clip, no_tower, generator, lambda line: None)
            found.append([value.cpu() for value in clipn.state_dict().values()])
    assert len(replays) == (12 - 3) + (10 - 3)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert all(torch.isfinite(value).all() for value in found[0])


@pytest.mark.parametrize("lars", [True, False])
def test_a_contrastive_training_is_recorded(
    lars: bool, gpu: torch.device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    replays = counted_replays(monkeypatch)
    found = []
    for is_recorded in (False, True):
        with monkeypatch.context() as patch:
            patch.setenv("VLPURE_CACHE", str(tmp_path / str(is_recorded)))
            if not is_recorded:
                patch.setattr("models.contrastive.encoder.recorder", recording_nothing)
            recipe = ContrastiveRecipe(width=4, epochs=4, batch_size=32, warmup_epochs=1, lars=lars)
            features = ContrastiveFeatures(ArrayImages(PIXELS), "csi", recipe, device=gpu, progress=lambda line: None)
            found.append([value.cpu() for value in features.encoder.state_dict().values()])
    assert len(replays) == 4 * 3 - 3
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@by_the_card_itself
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
