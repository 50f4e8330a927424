"""SGD with momentum and weight decay, one fused kernel for each group of parameters.

The numbers are torch.optim.SGD's, to the bit: it launches the same kernel. Its constructor, though, imports dynamo,
inductor and sympy for a switch that says "do not compile me": 1.0 to 2 CPU seconds and 300 MB in every process, half of
a short trial (torch 2.15, n = 5). The kernel's entry point is private; tests/models/classifier/test_sgd.py fails if a
new torch moves it or computes otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(slots=True, kw_only=True, eq=False)
class Group:
    """Parameters that learn at one rate."""

    params: Sequence[nn.Parameter]
    rate: float | Tensor
    """A tensor () on the parameters' device is read by a recorded step at each replay."""
    nesterov: bool = False
    momentum_buffers: dict[nn.Parameter, Tensor] = field(default_factory=dict)
    """Made at the first gradient, as zeros: the first step's momentum then is the gradient, as it should be."""

    def momentum_buffer(self, parameter: nn.Parameter) -> Tensor:
        """That of a parameter, whose first gradient may come now."""
        if parameter not in self.momentum_buffers:
            self.momentum_buffers[parameter] = torch.zeros_like(parameter)
        return self.momentum_buffers[parameter]

    def set_rate(self, rate: float) -> None:
        """Learn at `rate` from the next step on; a tensor is filled in place, so that recorded steps see it."""
        if isinstance(self.rate, Tensor):
            self.rate.fill_(rate)
        else:
            self.rate = rate


class Sgd:
    """Steps on the gradients that `backward` left at the parameters; one without a gradient stays as it is."""

    def __init__(self, groups: Sequence[Group], *, momentum: float, weight_decay: float) -> None:
        """Momentum and weight decay are those of all groups; the parameters of a group lie on one device."""
        self.groups = groups
        self._momentum, self._weight_decay = momentum, weight_decay

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for group in self.groups:
            for parameter in group.params:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One step of every group."""
        for group in self.groups:
            weights: list[Tensor] = []
            gradients: list[Tensor] = []
            buffers: list[Tensor] = []
            for parameter in group.params:
                if parameter.grad is not None:
                    weights.append(parameter)
                    gradients.append(parameter.grad)
                    buffers.append(group.momentum_buffer(parameter))
            if not weights:
                continue
            torch._fused_sgd_(
                weights,
                gradients,
                buffers if self._momentum else [],
                weight_decay=self._weight_decay,
                momentum=self._momentum,
                lr=group.rate,
                dampening=0.0,
                nesterov=group.nesterov,
                maximize=False,
                is_first_step=False,
            )
