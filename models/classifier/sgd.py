"""SGD with momentum and weight decay, one fused kernel for each group of parameters.

The numbers are torch.optim.SGD's, to the bit: it launches the same kernel. It is not used itself because its
constructor imports dynamo, inductor and sympy only to mark the step as not to be compiled: 1.0 to 2 CPU seconds and
300 MB in every process, half of a short trial (torch 2.15, n = 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(slots=True, kw_only=True, eq=False)
class Group:
    """Group of parameters that learn at one rate."""

    params: Sequence[nn.Parameter]
    rate: float | Tensor
    """Learning rate; a tensor () on the parameters' device is read by a recorded step at each replay."""
    nesterov: bool = False
    momentum_buffers: dict[nn.Parameter, Tensor] = field(default_factory=dict)
    """Momentum of each parameter, made as zeros at its first gradient, so that the first momentum is the gradient."""

    def momentum_buffer(self, parameter: nn.Parameter) -> Tensor:
        """The momentum of a parameter, made now if this is its first gradient."""
        if parameter not in self.momentum_buffers:
            self.momentum_buffers[parameter] = torch.zeros_like(parameter)
        return self.momentum_buffers[parameter]

    def set_rate(self, rate: float) -> None:
        """Set the learning rate from the next step on; a tensor is filled in place, so that recorded steps see it."""
        if isinstance(self.rate, Tensor):
            self.rate.fill_(rate)
        else:
            self.rate = rate


class Sgd:
    """SGD on the gradients that `backward` left at the parameters; a parameter without a gradient is not changed."""

    def __init__(self, groups: Sequence[Group], *, momentum: float, weight_decay: float) -> None:
        """Momentum and weight decay apply to all groups; the parameters of a group lie on one device."""
        self.groups = groups
        self._momentum, self._weight_decay = momentum, weight_decay

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for group in self.groups:
            for parameter in group.params:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take one step of every group."""
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
            # A private entry point: tests/models/classifier/test_sgd.py fails if a new torch moves or changes it.
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
