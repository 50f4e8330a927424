"""Configuration of a contrastive encoder's training. Importing this needs no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Method = Literal["simclr", "csi"]
_CODE_VERSION = 1
"""Version, raised if the same recipe gives other weights, so that older encoders are not taken for new ones."""


class ContrastiveRecipe(BaseModel):
    """Settings of the one encoder per data set and method that all trials share. The defaults are MQNet's."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    width: Annotated[int, Field(ge=1, le=1024)] = 64
    """Channels of the first stage of the ResNet-18; the projection's hidden layer has 8 times as many units."""
    epochs: Annotated[int, Field(ge=1)] = 1000
    """Passes over the images, in random order; a last batch that is not full is omitted."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    """Images per step; each counts twice for SimCLR, eight times for CSI."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    """Start of the rate: it warms up to ten times this, then follows a cosine."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 10
    """Passes of the warm-up."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-6
    """L2 penalty."""
    lars: bool = True
    """Whether each parameter's step is scaled by its own length (LARS), for CSI; SimCLR never is."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5
    """Temperature of the contrastive loss."""
    flip: bool = True
    """Mirror each view left-right with probability 1/2."""
    smallest_crop: Annotated[float, Field(gt=0, le=1)] = 0.08
    """Smallest share of the area that a random crop keeps."""
    colour: bool = True
    """Whether colours are jittered (probability 0.8) and dropped (0.2)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic: 32-bit floats, or bfloat16 autocast."""
    pool_only: bool = False
    """Train on the trial's own pool (labelled and unlabelled) in place of all training images."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of weights, batches and views."""

    def identity(self, method: Method) -> dict[str, Any]:
        """Everything that decides an encoder apart from the images, as a JSON-like value."""
        return {"method": method, "recipe": self.model_dump(mode="json"), "code": _CODE_VERSION}
