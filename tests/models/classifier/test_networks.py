"""The ResNet-18 for small images: sizes, start, and that weights come from the seed alone."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.resnet import BasicBlock as TorchvisionBlock

from models.classifier.networks import BasicBlock, ConvNet, ResNet18, build_classifier
from models.classifier.recipe import Recipe


def test_the_papers_size() -> None:
    # Protocol 1.5: 11.17 million parameters for two classes.
    network = ResNet18(2)
    assert sum(p.numel() for p in network.parameters()) == 11_169_858


@pytest.mark.parametrize("size", [8, 32, 64])
def test_shapes(size: int) -> None:
    logits, features = ResNet18(3, width=4)(torch.zeros(2, 3, size, size))
    assert logits.shape == (2, 3)
    assert features.shape == (2, 32)


def test_each_block_starts_as_the_identity() -> None:
    network = ResNet18(2, width=4).eval()
    images = torch.rand(1, 3, 8, 8)
    hidden = network.stem(images)
    assert torch.equal(network.stages[0](hidden), hidden)  # hidden is not negative, so the last ReLU keeps it


def test_features_feed_the_head() -> None:
    network = ResNet18(3, width=4).eval()
    logits, features = network(torch.rand(2, 3, 8, 8))
    assert torch.allclose(network.head(features), logits)


def test_weights_come_from_the_seed_alone() -> None:
    recipe = Recipe(width=4)
    first = build_classifier(recipe, 2, weights_seed=5).state_dict()
    torch.manual_seed(123)
    state = torch.get_rng_state()
    again = build_classifier(recipe, 2, weights_seed=5).state_dict()
    other = build_classifier(recipe, 2, weights_seed=6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("width", [2, 4, 8])
def test_narrow_networks_can_be_trained(width: int) -> None:
    # A strided 1x1 convolution of few channels aborted the process in its backward pass (torch 2.15, AVX2).
    network = build_classifier(Recipe(width=width), 2, weights_seed=0)
    for _ in range(3):
        network(torch.rand(8, 3, 8, 8))[0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_a_block_is_torchvisions_to_the_bit() -> None:
    shortcut = [torch.nn.Conv2d(4, 6, 1, 2, bias=False, dtype=torch.float32) for _ in range(2)]
    shortcut[1].load_state_dict(shortcut[0].state_dict())
    blocks = []
    for make, way in ((BasicBlock, shortcut[0]), (TorchvisionBlock, shortcut[1])):
        torch.manual_seed(7)
        blocks.append(make(4, 6, 2, way).train())
    ours, theirs = blocks
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(ours.state_dict()[name], theirs.state_dict()[name]) for name in ours.state_dict())
    images = torch.rand(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    outputs = [block(images.clone()) for block in blocks]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)


@pytest.mark.parametrize(("size", "last"), [(2, 1), (8, 2), (33, 9)])
def test_the_convnet_halves_twice_and_its_features_feed_the_head(size: int, last: int) -> None:
    network = build_classifier(Recipe(network="convnet", width=3), 4, weights_seed=0).eval()
    assert isinstance(network, ConvNet)
    images = torch.rand(2, 3, size, size)
    logits, features, outputs = network.with_stages(images)
    assert [tuple(output.shape[1:]) for output in outputs][::2] == [(3, size, size), (12, last, last)]
    assert network.stage_widths == (3, 6, 12)
    assert torch.allclose(features, outputs[-1].mean(dim=(2, 3)))
    assert torch.allclose(network.head(features), logits)
    # 3 -> 3 -> 6 -> 12 channels of 3x3 without bias, a scale and a shift each, and the head.
    assert sum(p.numel() for p in network.parameters()) == 9 * (9 + 18 + 72) + 2 * 21 + 13 * 4
