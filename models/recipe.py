"""How a classifier is trained, as configuration. Reading it needs no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0, lt=1)]


class Recipe(BaseModel):
    """One training from scratch. The defaults are the paper's for CIFAR-10 (protocol P10, P11)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    network: Literal["resnet18"] = "resnet18"
    """Architecture: a ResNet-18 with the 3x3 stem for small images."""
    width: Annotated[int, Field(ge=1, le=1024)] = 64
    """Channels of the first stage; the later ones have 2, 4 and 8 times as many."""
    steps: Annotated[int, Field(ge=1)] = 20_000
    """Number of SGD steps."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Images a step, drawn uniformly with replacement."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    """Initial learning rate of SGD."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD (not Nesterov)."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5e-4
    """L2 penalty, on every parameter."""
    milestones: tuple[Fraction, ...] = Field(default=(0.5, 0.75), strict=False)
    """Shares of `steps` after which the learning rate is multiplied by `decay`."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor applied to the learning rate at each milestone."""
    flip: bool = True
    """Mirror each image left-right with probability 1/2."""
    crop_padding: Annotated[int, Field(ge=0)] = 4
    """Pixels of black border added before a random crop to the original size; 0 switches the crop off."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of training and inference: 32-bit floats, or bfloat16 autocast."""
    eval_batch_size: Annotated[int, Field(ge=1)] = 512
    """Images a batch when nothing is trained."""
