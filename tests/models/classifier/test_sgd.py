"""Our SGD against torch's, to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.classifier.sgd import Group, Sgd


def _parameters() -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(5, 3, 3, 3), (17,), (4, 9), (1,)]
    drawn = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    drawn[0].data = drawn[0].data.contiguous(memory_format=torch.channels_last)
    return drawn[:2], drawn[2:]


def _set_gradients(parameters: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for number, parameter in enumerate(parameters):
        # The last one gets its first gradient late, as a part of a network that joins a training does.
        parameter.grad = None if (number, step) == (3, 0) else torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_numbers_are_those_of_torch(momentum: float, as_tensor: bool) -> None:
    own, own_others = _parameters()
    theirs, their_others = _parameters()
    rate: float | Tensor = torch.tensor(0.25) if as_tensor else 0.25
    ours = Sgd(
        [Group(params=own, rate=rate), Group(params=own_others, rate=0.125, nesterov=momentum > 0)],
        momentum=momentum,
        weight_decay=0.01,
    )
    groups = [
        {"params": theirs},
        {"params": their_others[:1], "lr": 0.125, "nesterov": momentum > 0},
        {"params": their_others[1:], "lr": 0.125, "nesterov": momentum > 0},
    ]
    reference = torch.optim.SGD(groups, lr=0.25, momentum=momentum, weight_decay=0.01, fused=True)
    for step in range(4):
        if step == 2:
            ours.groups[0].set_rate(0.0625)
            reference.param_groups[0]["lr"] = 0.0625
        _set_gradients([*own, *own_others], step)
        _set_gradients([*theirs, *their_others], step)
        ours.step()
        reference.step()
        for mine, other in zip([*own, *own_others], [*theirs, *their_others], strict=True):
            assert torch.equal(mine, other)
    ours.zero_grad()
    assert [parameter.grad for parameter in [*own, *own_others]] == [None] * 4


def test_a_rate_on_the_device_is_changed_in_place() -> None:
    rate = torch.tensor(0.5)
    group = Group(params=[], rate=rate)
    group.set_rate(0.25)
    assert group.rate is rate
    assert rate.item() == 0.25
