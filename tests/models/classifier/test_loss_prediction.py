"""Predicted losses against the reference's numbers (tests/golden/strategies/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from data.imageset import ArrayImages
from models.classifier.fit import fit
from models.classifier.inputs import Normalise
from models.classifier.loss_prediction import LossPredicting, LossPrediction, LossPredictionHead, ranking_loss
from models.classifier.networks import build_classifier
from models.classifier.predict import predict
from models.classifier.recipe import Recipe
from models.device import Machine

GOLDEN = Path(__file__).parents[2] / "golden" / "strategies"
CPU = torch.device("cpu")
PLAIN = Normalise((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), CPU)


@pytest.mark.parametrize("case", ["even", "odd", "ties"])
@pytest.mark.parametrize(("name", "margin"), [("m100", 1.0), ("m025", 0.25)])
def test_ranking_loss_and_its_gradient(case: str, name: str, margin: float) -> None:
    golden = np.load(GOLDEN / "ll_loss.npz")
    predicted = torch.from_numpy(golden[f"{case}_pred"]).requires_grad_()
    loss = ranking_loss(predicted, torch.from_numpy(golden[f"{case}_true"]), margin)
    assert loss.item() == pytest.approx(float(golden[f"{case}_{name}_loss"]), abs=1e-6)
    loss.backward()
    assert predicted.grad is not None
    np.testing.assert_allclose(predicted.grad.numpy(), golden[f"{case}_{name}_grad"], atol=1e-6)


def test_a_batch_without_a_pair_has_nothing_to_rank() -> None:
    predicted = torch.tensor([2.0], requires_grad=True)
    loss = ranking_loss(predicted, torch.tensor([1.0]), 1.0)
    loss.backward()
    assert (loss.item(), predicted.grad) == (0.0, torch.tensor([0.0]))


def test_the_head() -> None:
    golden = np.load(GOLDEN / "ll_module.npz")
    stages = [torch.from_numpy(golden[f"feat{number}"]) for number in range(1, 5)]
    hidden = len(golden["FC1_bias"])
    head = LossPredictionHead([stage.shape[1] for stage in stages], hidden=hidden)
    weights = {"out.weight": golden["linear_weight"], "out.bias": golden["linear_bias"]}
    for number in range(4):
        weights[f"stages.{number}.weight"] = golden[f"FC{number + 1}_weight"]
        weights[f"stages.{number}.bias"] = golden[f"FC{number + 1}_bias"]
    head.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    np.testing.assert_allclose(head(stages).detach().numpy(), golden["out"], atol=1e-5)


def ll_network() -> LossPredicting:
    torch.manual_seed(0)
    return LossPredicting(build_classifier(Recipe(width=2), 3, weights_seed=0), hidden=4)


def test_the_head_stops_training_the_network_after_its_share() -> None:
    objective = LossPrediction(weight=1.0, margin=1.0, detach_after=0.6)
    network, images, labels = ll_network(), torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    moves = []
    for done in (0.0, 0.6, 0.61):
        objective.prepare(network, done)
        network.zero_grad()
        _, _, predicted = network(images)
        predicted.sum().backward()
        stem = network.network.stem[0].weight.grad
        assert network.predictor.out.weight.grad is not None
        moves.append(stem is not None and bool(stem.abs().sum() > 0))
    assert moves == [True, True, False]
    assert objective.loss(network, images, labels, labels).isfinite()


def test_the_true_loss_is_a_constant_of_the_ranking() -> None:
    """With a head that predicts a constant, all gradient on the network is the cross entropy's."""
    network, images, labels = ll_network().eval(), torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    for parameter in network.predictor.parameters():
        nn.init.zeros_(parameter)
    grads = []
    for weight in (0.0, 1.0):
        network.zero_grad()
        LossPrediction(weight=weight, margin=1.0, detach_after=0.6).loss(network, images, labels, labels).backward()
        assert network.head.weight.grad is not None
        grads.append(network.head.weight.grad.clone())
    torch.testing.assert_close(grads[0], grads[1])


def test_trained_and_asked() -> None:
    """On two colours, of which one has random labels, the losses of that one are predicted to be larger."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60, size=(60, 8, 8, 3), dtype=np.uint8)
    pixels[30:, :, :, 0] += 150
    labels = np.concatenate([np.zeros(30, dtype=np.int64), rng.integers(1, 3, 30)])
    recipe = Recipe(width=4, steps=60, batch_size=20, learning_rate=0.02)
    network = LossPredicting(build_classifier(recipe, 3, weights_seed=0), hidden=8)
    objective = LossPrediction(weight=1.0, margin=1.0, detach_after=0.6)
    fit(
        network,
        pixels,
        labels,
        recipe=recipe,
        normalise=PLAIN,
        batches_seed=0,
        machine=Machine(device=CPU),
        objective=objective,
    )
    given = predict(network, ArrayImages(pixels), np.arange(60), recipe=recipe, normalise=PLAIN, device=CPU)
    assert given.predicted_losses_N is not None
    assert given.head is not None
    assert given.predicted_losses_N[30:].min() > given.predicted_losses_N[:30].max()
