"""Loss, learning rate and LARS optimiser of contrastive encoders.

Shapes: B images of a batch, V = 2 B views, D projection.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

TOP = 10.0
"""Peak of the learning rate as a multiple of its start."""


def nt_xent(projections_VD: Tensor, temperature: float) -> Tensor:
    """Contrastive loss () of views i and i + B of the same image, all others being negatives (Chen et al. 2020)."""
    unit_VD = F.normalize(projections_VD, dim=1)
    num = len(unit_VD)
    cosines_VV = unit_VD @ unit_VD.T / temperature
    itself_VV = torch.eye(num, dtype=torch.bool, device=unit_VD.device)
    partners_V = torch.arange(num, device=unit_VD.device).roll(num // 2)
    return F.cross_entropy(cosines_VV.masked_fill(itself_VV, float("-inf")), partners_V)


def warmup_cosine(epoch: float, *, base: float, epochs: int, warmup: float) -> float:
    """Learning rate at a fractional epoch: a linear rise to ten times `base`, then a cosine.

    The cosine's half period is `epochs`, counted from the end of the warm-up, so that it does not quite reach 0.
    """
    if epoch <= warmup:
        return base * (1.0 + (TOP - 1.0) * epoch / warmup) if warmup else base * TOP
    return base * TOP * 0.5 * (1.0 + math.cos(math.pi * (epoch - warmup) / epochs))


class Lars(torch.optim.Optimizer):
    """SGD with momentum whose step for each parameter is scaled to the parameter's length (You et al. 2017).

    The gradient and the decay are multiplied by trust |w| / (|g| + decay |w| + eps), or by 1 if either length is 0.
    """

    def __init__(
        self,
        parameters: list[torch.nn.Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        trust: float = 0.001,
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "eps": eps}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step of all parameters that have a gradient, together."""
        assert closure is None
        for group in self.param_groups:
            weights = [parameter for parameter in group["params"] if parameter.grad is not None]
            gradients = [parameter.grad for parameter in weights]
            decay = group["weight_decay"]
            lengths, slopes = torch._foreach_norm(weights), torch._foreach_norm(gradients)
            ratios = [
                torch.where(
                    (length > 0) & (slope > 0), group["trust"] * length / (slope + decay * length + group["eps"]), 1.0
                )
                for length, slope in zip(lengths, slopes, strict=True)
            ]
            moves = torch._foreach_add(gradients, weights, alpha=decay)
            torch._foreach_mul_(moves, ratios)
            momenta = []
            for parameter, move in zip(weights, moves, strict=True):
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(move)
                momenta.append(state["momentum"])
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_add_(momenta, moves)
            if isinstance(group["lr"], Tensor):  # on the device, where a recorded step reads it
                torch._foreach_sub_(weights, torch._foreach_mul(momenta, group["lr"]))
            else:
                torch._foreach_add_(weights, momenta, alpha=-group["lr"])
