"""How a classifier is trained, as configuration. Reading it needs no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(gt=0, lt=1)]


class Recipe(BaseModel):
    """One training from scratch. The defaults are the paper's for CIFAR-10 (protocol P10, P11)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    network: Literal["resnet18", "linear", "zero-shot"] = "resnet18"
    """Architecture: a ResNet-18 with the 3x3 stem for small images, a linear head on stored features, or without any
    training the class whose "yes" text is nearest to the image in CLIPN."""
    encoder: str | None = None
    """For `linear`: the frozen encoder of those features (`models.classifier.frozen`). For `zero-shot`: `clipn`."""
    width: Annotated[int, Field(ge=1, le=1024)] = 64
    """Channels of the first stage; the later ones have 2, 4 and 8 times as many."""
    steps: Annotated[int, Field(ge=1)] = 20_000
    """Number of SGD steps, each on a batch drawn uniformly with replacement."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    """In place of `steps`: passes over all images in random order, the last batch of each as large as what is left."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Images a step."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    """Initial learning rate of SGD."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Whether the momentum is Nesterov's."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5e-4
    """L2 penalty, on every parameter."""
    milestones: tuple[Fraction, ...] = Field(default=(0.5, 0.75), strict=False)
    """Shares of the steps (or epochs) after which the learning rate is multiplied by `decay`."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor applied to the learning rate at each milestone."""
    flip: bool = True
    """Mirror each image left-right with probability 1/2."""
    crop_padding: Annotated[int, Field(ge=0)] = 4
    """Pixels of black border added before a random crop to the original size; 0 switches the crop off."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Degrees: each image is turned by a random angle of at most so much either way, the corners filled with black."""
    smallest_crop: Annotated[float, Field(gt=0, lt=1)] | None = None
    """For `linear`: the head is trained on features of random crops, each of at least this share of its image's area
    and resized to the encoder's size; none: on the stored features of the whole images."""
    head_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the pooled features dropped before the last layer, in training."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of training and inference: 32-bit floats, or bfloat16 autocast."""
    eval_batch_size: Annotated[int, Field(ge=1)] = 512
    """Images a batch when nothing is trained; on a CPU at most 64 (`models.classifier.predict`)."""

    @model_validator(mode="after")
    def _check_encoder(self) -> Recipe:
        """A linear head has an encoder and no augmentation but its crops; a ResNet has none; zero-shot reads CLIPN."""
        if (self.network == "resnet18") != (self.encoder is None):
            raise ValueError(
                "network linear needs an encoder, such as timm:vit_base_patch16_224, and resnet18 has none"
            )
        if self.network == "zero-shot" and self.encoder != "clipn":
            raise ValueError("network zero-shot compares images with CLIPN's texts: encoder=clipn")
        if self.network != "linear" and self.smallest_crop is not None:
            raise ValueError("smallest_crop is for a linear head's encoder; resnet18 has crop_padding")
        if self.network != "resnet18" and (self.flip or self.crop_padding or self.rotation):
            raise ValueError(
                "stored features cannot be flipped, shifted or turned: flip=false, crop_padding=0, rotation=0"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """All fields as plain values, for fingerprints; what came after the first records counts where it is set."""
        fields = self.model_dump(mode="json")
        return {name: value for name, value in fields.items() if name != "smallest_crop" or value is not None}

    def num_steps(self, num_images: int) -> int:
        """SGD steps of one training on that many images."""
        return self.steps if self.epochs is None else self.epochs * self.batches_a_pass(num_images)

    @property
    def length(self) -> str:
        """How long a training is, in words."""
        if self.network == "zero-shot":
            return "no training"
        return f"{self.steps} training steps" if self.epochs is None else f"{self.epochs} passes of training"

    def batches_a_pass(self, num_images: int) -> int:
        """Batches of one pass. A single image left over joins the batch before it: batch statistics need two."""
        full, left = divmod(num_images, self.batch_size)
        return max(1, full + (left > 1))
