"""Contrastive encoders: losses and steps as the originals', views in range, training continued to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.imageset import ArrayImages
from models.contrastive import encoder as contrastive
from models.contrastive import views as contrastive_views
from models.contrastive.encoder import ROTATIONS, ContrastiveFeatures
from models.contrastive.losses import Lars, nt_xent, warmup_cosine
from models.contrastive.recipe import ContrastiveRecipe, Method
from models.contrastive.views import Views
from models.device import use_threads

GOLDEN = Path(__file__).parents[2] / "golden" / "strategies"
CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "width": 2, "epochs": 3, "batch_size": 4, "learning_rate": 0.01, "warmup_epochs": 1, "smallest_crop": 0.5,
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_threads(1)
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("name", "temperature", "loss_tolerance", "grad_tolerance"), [("t05", 0.5, 1e-5, 1e-6), ("t01", 0.1, 1e-3, 1e-4)]
)
def test_nt_xent_is_the_references(name: str, temperature: float, loss_tolerance: float, grad_tolerance: float) -> None:
    golden = np.load(GOLDEN / "ssl_ntxent.npz")
    projections = torch.from_numpy(golden["z"]).requires_grad_()
    loss = nt_xent(projections, temperature)
    loss.backward()
    assert loss.item() == pytest.approx(float(golden[f"{name}_loss"]), abs=loss_tolerance)
    assert projections.grad is not None
    np.testing.assert_allclose(projections.grad.numpy(), golden[f"{name}_grad"], atol=grad_tolerance)


def test_the_rate_is_the_references() -> None:
    golden = np.load(GOLDEN / "ssl_optim.npz")
    rates = [warmup_cosine(epoch, base=0.1, epochs=int(golden["n_epochs"]), warmup=10) for epoch in golden["epoch"]]
    np.testing.assert_allclose(rates, golden["lr"], rtol=1e-9)
    assert warmup_cosine(0.0, base=0.1, epochs=5, warmup=0) == pytest.approx(1.0)


def test_lars_is_the_references() -> None:
    golden = np.load(GOLDEN / "ssl_optim.npz")
    number = int(golden["n_params"])
    parameters = [torch.nn.Parameter(torch.from_numpy(golden[f"p{i}_init"].copy())) for i in range(number)]
    optimiser = Lars(
        parameters, lr=0.0, momentum=float(golden["lars_momentum"]), weight_decay=float(golden["lars_weight_decay"])
    )
    for step, rate in enumerate(golden["lars_lr"]):
        optimiser.param_groups[0]["lr"] = float(rate)
        for i, parameter in enumerate(parameters):
            parameter.grad = torch.from_numpy(golden[f"g{i}_step{step}"].copy())
        optimiser.step()
        for i, parameter in enumerate(parameters):
            np.testing.assert_allclose(parameter.detach().numpy(), golden[f"p{i}_step{step}"], atol=1e-6)


def test_views_stay_in_range_and_are_drawn_anew() -> None:
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    views = Views(crop=(0.08, 1.0), flip=True, colour=True)
    first, again, other = (views.draw(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.shape == images.shape
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_view_of_everything_is_the_image() -> None:
    images = torch.rand(3, 3, 8, 8)
    whole = Views(crop=(1.0, 1.0), flip=False, colour=False)
    # The side ratio still varies, but no side is longer than the image, so that a row or a column may be cut.
    views = whole.draw(torch.ones_like(images), torch.Generator().manual_seed(0))
    torch.testing.assert_close(views, torch.ones_like(images))


def test_about_half_of_the_views_are_mirrored() -> None:
    images = torch.zeros(400, 3, 8, 8)
    images[..., 4:] = 1.0
    views = Views(crop=(1.0, 1.0), flip=True, colour=False).draw(images, torch.Generator().manual_seed(0))
    mirrored = (views[..., 0].mean(dim=(1, 2)) > 0.5).float().mean().item()
    assert mirrored == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 400))


def test_about_a_fifth_of_the_views_are_grey() -> None:
    images = torch.tensor([0.9, 0.2, 0.1]).view(1, 3, 1, 1).expand(400, 3, 4, 4).contiguous()
    views = Views(crop=(1.0, 1.0), flip=False, colour=True).draw(images, torch.Generator().manual_seed(0))
    grey = ((views.amax(dim=1) - views.amin(dim=1)).amax(dim=(1, 2)) < 1e-5).float().mean().item()
    assert grey == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 400))
    untouched = ((views - images).abs().amax(dim=(1, 2, 3)) < 1e-5).float().mean().item()
    assert untouched == pytest.approx(0.2 * 0.8, abs=0.08)  # neither jittered nor grey


def images(num: int = 12) -> ArrayImages:
    return ArrayImages(np.random.default_rng(0).integers(0, 256, (num, 8, 8, 3), dtype=np.uint8))


def features(method: Method = "csi", lines: list[str] | None = None, **changes: Any) -> ContrastiveFeatures:
    heard = [] if lines is None else lines
    return ContrastiveFeatures(
        images(), method, ContrastiveRecipe(**(TINY | changes)), device=CPU, progress=heard.append
    )


@pytest.mark.parametrize("method", ["csi", "simclr"])
def test_trained_once_and_kept(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    first = features(method)
    projections, views = first.projections, first.view_projections
    assert projections.shape == (12, 128)
    assert views.shape == (12, ROTATIONS, 128)
    assert np.isfinite(projections).all()
    assert np.isfinite(views).all()
    monkeypatch.setattr(contrastive, "_Training", None)
    again = features(method)
    np.testing.assert_array_equal(again.projections, projections)
    np.testing.assert_array_equal(
        again.encoder.state_dict()["projection.0.weight"], first.encoder.state_dict()["projection.0.weight"]
    )


def test_methods_recipes_and_images_have_encoders_of_their_own() -> None:
    identities = {
        features()._identity,
        features("simclr")._identity,
        features(epochs=4)._identity,
        features(seed=1)._identity,
        ContrastiveFeatures(images(13), "csi", ContrastiveRecipe(**TINY), device=CPU, progress=print)._identity,
        ContrastiveFeatures(
            images(), "csi", ContrastiveRecipe(**TINY, pool_only=True), device=CPU, progress=print,
            pool_idx=np.array([3, 1, 5]),
        )._identity,
    }  # fmt: skip
    assert len(identities) == 6


@pytest.mark.parametrize("lars", [True, False])
def test_a_killed_training_goes_on_to_the_same_bits(lars: bool, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = features(lars=lars).encoder.state_dict()
    monkeypatch.setenv("VLPURE_CACHE", str(cache / "other"))
    monkeypatch.setattr(contrastive, "CHECKPOINT_EVERY", 0.0)
    original = contrastive._Training._pass

    def die(self: Any, epoch: int, *given: Any) -> None:
        if epoch == 2:
            raise KeyboardInterrupt
        original(self, epoch, *given)

    with monkeypatch.context() as patch:
        patch.setattr(contrastive._Training, "_pass", die)
        with pytest.raises(KeyboardInterrupt):
            _ = features(lars=lars).encoder
    lines: list[str] = []
    continued = features(lars=lars, lines=lines).encoder.state_dict()
    assert lines[0] == "csi encoder: continued after pass 2"
    assert all(torch.equal(expected[name], continued[name]) for name in expected)
    folder = next((cache / "other" / "encoders").iterdir())
    assert sorted(path.name for path in folder.iterdir()) == ["encoder.pt", "lock"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip])
def test_a_damaged_encoder_is_trained_again(damage: Callable[[Path], None], cache: Path) -> None:
    expected = features().encoder.state_dict()
    path = next((cache / "encoders").glob("*/encoder.pt"))
    damage(path)
    lines: list[str] = []
    again = features(lines=lines).encoder.state_dict()
    assert lines[0] == f"{path} is damaged; its content is computed again"
    assert all(torch.equal(expected[name], again[name]) for name in expected)


def test_an_encoder_of_an_earlier_version_is_used(cache: Path) -> None:
    expected = features().encoder.state_dict()
    path = next((cache / "encoders").glob("*/encoder.pt"))
    torch.save({name: value + 1 for name, value in expected.items()}, path)
    lines: list[str] = []
    found = features(lines=lines).encoder.state_dict()
    assert all(torch.equal(expected[name] + 1, found[name]) for name in expected)
    assert lines == []


def test_a_damaged_state_of_a_training_is_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = features().encoder.state_dict()
    monkeypatch.setenv("VLPURE_CACHE", str(cache / "other"))
    monkeypatch.setattr(contrastive, "CHECKPOINT_EVERY", 0.0)
    original = contrastive._Training._pass

    def die(self: Any, epoch: int, *given: Any) -> None:
        if epoch == 2:
            raise KeyboardInterrupt
        original(self, epoch, *given)

    with monkeypatch.context() as patch:
        patch.setattr(contrastive._Training, "_pass", die)
        with pytest.raises(KeyboardInterrupt):
            _ = features().encoder
    flip(next((cache / "other" / "encoders").glob("*/state.pt")))
    lines: list[str] = []
    again = features(lines=lines).encoder.state_dict()
    assert "state.pt is damaged; its content is computed again" in lines[0]
    assert all(torch.equal(expected[name], again[name]) for name in expected)


def test_a_training_that_diverges_says_so() -> None:
    with pytest.raises(ArithmeticError, match=r"options\.contrastive\.learning_rate"):
        _ = features("simclr", learning_rate=1e30).encoder


def test_the_encoder_learns_to_tell_images_apart() -> None:
    """After training, two views of an image are more alike than views of two images."""
    recipe = {"epochs": 30, "width": 4, "smallest_crop": 0.6, "colour": False, "flip": False, "batch_size": 12}
    encoder = features("simclr", **recipe).encoder
    pixels = torch.from_numpy(images().load(np.arange(12))).permute(0, 3, 1, 2).float() / 255
    views = Views(crop=(0.6, 1.0), flip=False, colour=False)
    with torch.no_grad():
        first, second = (
            torch.nn.functional.normalize(encoder(views.draw(pixels, torch.Generator().manual_seed(seed)))[0], dim=1)
            for seed in (5, 6)
        )
    cosines = first @ second.T
    same, others = cosines.diagonal().mean(), cosines[~torch.eye(12, dtype=torch.bool)].mean()
    assert same > others + 0.2


def test_both_orders_computed_at_once_are_those_computed_one_by_one() -> None:
    pictures = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    orders = []
    for contrast_first in (True, False):
        first, again = (torch.Generator().manual_seed(3) for _ in range(2))
        at_once = contrastive_views._in_either_order(pictures, torch.tensor(contrast_first), first)
        factor, colours = contrastive_views._contrast_factor(6, again), contrastive_views._colour_map(6, again)
        changes = [
            lambda given, factor=factor: contrastive_views._with_contrast(given, factor),
            lambda given, colours=colours: torch.einsum("bij,bjhw->bihw", colours, given),
        ]
        one_by_one = pictures
        for change in changes if contrast_first else reversed(changes):
            one_by_one = change(one_by_one).clamp(0, 1)
        assert torch.equal(at_once, one_by_one)
        orders.append(at_once)
    assert not torch.equal(*orders)


def test_lars_takes_the_same_step_with_its_rate_in_a_tensor() -> None:
    found = []
    for rate in (0.3, torch.tensor(0.3)):
        parameter = torch.nn.Parameter(torch.arange(1.0, 5.0))
        optimiser = Lars([parameter], lr=0.3, momentum=0.9, weight_decay=0.01)
        optimiser.param_groups[0]["lr"] = rate
        for _ in range(3):
            parameter.grad = parameter.detach().cos()
            optimiser.step()
        found.append(parameter.detach().clone())
    torch.testing.assert_close(*found)
