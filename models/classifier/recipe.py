"""Configuration of a classifier's training: the recipe, recipes by name, the name of a frozen encoder.

Importing this needs no torch. `recipe: {name: paper-cifar, steps: 300}` is a named recipe with one number changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data.cache import file_hash_once
from data.console import unknown_name
from data.files import content_hash, user_path

Fraction = Annotated[float, Field(gt=0, lt=1)]
PIXEL_NETWORKS = ("resnet18", "convnet")
"""Networks that read pixels and are trained completely; the others read an encoder's features."""


class Recipe(BaseModel):
    """Settings of one training from scratch. The defaults are the paper's for CIFAR-10."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    network: Literal["resnet18", "convnet", "linear", "zero-shot"] = "resnet18"
    """Architecture: a ResNet-18 with the 3x3 stem for small images, three convolutions, a linear head on stored
    features, or without any training the class whose "yes" text is nearest to the image in CLIPN."""
    encoder: str | None = None
    """For `linear`: the frozen encoder of those features (`models.classifier.frozen`). For `zero-shot`: `clipn`."""
    width: Annotated[int, Field(ge=1, le=1024)] = 64
    """Channels of the first stage; each later one has twice as many as the one before it."""
    steps: Annotated[int, Field(ge=1)] = 20_000
    """Number of SGD steps, each on a batch drawn uniformly with replacement."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    """In place of `steps`: passes over all images in random order, the last batch of each as large as what is left."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Images per step."""
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
    """Largest random rotation of each image in either direction, in degrees; the corners are filled with black."""
    smallest_crop: Annotated[float, Field(gt=0, lt=1)] | None = None
    """For `linear`: the head is trained on features of random crops, each of at least this share of its image's area
    and resized to the encoder's size; unset: on the stored features of the whole images."""
    head_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the pooled features dropped before the last layer, in training."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of training and inference: 32-bit floats, or bfloat16 autocast."""
    eval_batch_size: Annotated[int, Field(ge=1)] = 512
    """Largest number of images per batch in prediction, limited by memory; on a CPU at most 64
    (`models.classifier.predict`). It changes no number, and finished rounds stay finished if it is changed."""

    @model_validator(mode="after")
    def _check_encoder(self) -> Recipe:
        """Check that a linear head has an encoder and only crops as augmentation, that networks of pixels have no
        encoder, and that zero-shot has CLIPN."""
        sees_pixels = self.network in PIXEL_NETWORKS
        if sees_pixels != (self.encoder is None):
            raise ValueError(
                "network linear needs an encoder, such as timm:vit_base_patch16_224; resnet18 and convnet have none"
            )
        if self.network == "zero-shot" and self.encoder != "clipn":
            raise ValueError("network zero-shot compares images with CLIPN's texts: set encoder=clipn")
        if self.network != "linear" and self.smallest_crop is not None:
            raise ValueError("smallest_crop is for a linear head's encoder; resnet18 and convnet have crop_padding")
        if not sees_pixels and (self.flip or self.crop_padding or self.rotation):
            raise ValueError(
                "stored features cannot be flipped, shifted or rotated: set flip=false, crop_padding=0, rotation=0"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """All fields that change numbers, as plain values, for fingerprints.

        A field that was added after the first records counts only if it is set.
        """
        # Only memory depends on eval_batch_size, so its first default always stands for it: a user who followed our
        # advice to lower it found a finished grid at zero. Without the entry all existing fingerprints would change.
        fields = self.model_dump(mode="json") | {"eval_batch_size": 512}
        return {name: value for name, value in fields.items() if name != "smallest_crop" or value is not None}

    def num_steps(self, num_images: int) -> int:
        """SGD steps of one training on that many images."""
        return self.steps if self.epochs is None else self.epochs * self.batches_a_pass(num_images)

    @property
    def length(self) -> str:
        """Length of a training in words."""
        if self.network == "zero-shot":
            return "no training"
        return f"{self.steps} training steps" if self.epochs is None else f"{self.epochs} passes of training"

    def batches_a_pass(self, num_images: int) -> int:
        """Number of batches of one pass over that many images."""
        # A single image that is left over joins the batch before it: batch statistics need two.
        full, left = divmod(num_images, self.batch_size)
        return max(1, full + (left > 1))


CLIP_LINEAR: dict[str, Any] = {
    "network": "linear",
    "encoder": "clipn",
    "steps": 500,
    "learning_rate": 0.01,
    "milestones": (0.5, 0.7),
    "flip": False,
    "crop_padding": 0,
}
RECIPES: dict[str, dict[str, Any]] = {
    # The paper's ResNet-18 training; Recipe's own defaults.
    "paper-cifar": {},
    # The same number of steps, by the paper's text; the official code trains for 30,000.
    "paper-tiny": {},
    # The protocol of the open-set annotation line (LfOSA, EOAL, EAOA, E2OAL): stages of 16, 32, 64 and 128 channels,
    # the rate halved after 60, 120 and 180 of 200 passes.
    "resnet18-narrow": {
        "width": 16,
        "epochs": 200,
        "batch_size": 128,
        "learning_rate": 0.01,
        "milestones": (0.3, 0.6, 0.9),
        "decay": 0.5,
    },
    # A linear head on a frozen ViT-B/16.
    "paper-domainnet": {
        "network": "linear",
        "encoder": "timm:vit_base_patch16_224.augreg_in21k",
        "epochs": 100,
        "learning_rate": 0.01,
        "flip": False,
        "crop_padding": 0,
    },
    # A linear head on CLIPN's image tower: 10 times 50 steps, the rate falls after 5 and 7 (Table 6). On
    # stored features; -crops trains it, as the official code does, on crops of the images; -tiny takes twice the steps.
    "paper-clip-linear": CLIP_LINEAR,
    "paper-clip-linear-tiny": CLIP_LINEAR | {"steps": 1000},
    "paper-clip-linear-crops": CLIP_LINEAR | {"smallest_crop": 0.9},
    "paper-clip-linear-crops-tiny": CLIP_LINEAR | {"smallest_crop": 0.9, "steps": 1000},
    # CLIPN as it is, with the names of the ID classes (Table 6).
    "zero-shot": {"network": "zero-shot", "encoder": "clipn", "flip": False, "crop_padding": 0, "rotation": 0},
    # For scikit-learn's digits; both chosen on the images set apart for the small CLIPN, which are in no pool and no
    # test (450 of them as the pool, 150 as the test; 10 seeds): RANDOM and CONF reach an AUBC of 0.888 and 0.906 in
    # 0.5 CPU seconds with three convolutions (0.877 and 0.896 at half the width), 0.875 and 0.897 in 3.7 CPU seconds
    # with the narrow ResNet-18.
    "digits": {
        "network": "convnet",
        "width": 16,
        "steps": 60,
        "batch_size": 32,
        "learning_rate": 0.1,
        "crop_padding": 1,
        "flip": False,  # a mirrored digit is a different character
    },
    "demo": {
        "width": 8,
        "steps": 100,
        "batch_size": 32,
        "learning_rate": 0.1,
        "crop_padding": 1,
        "flip": False,
    },
    # For 32-pixel photographs on a CPU.
    "cpu": {"width": 16, "steps": 300, "learning_rate": 0.05},
}


def named_recipe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a recipe with those of its `name`, if it has one, under them.

    `steps` given with a name whose recipe counts passes replace these. Raises ValueError for an unknown name (the
    nearest is suggested), and if steps and passes are both given with a name.
    """
    changed = dict(settings)
    name = changed.pop("name", None)
    if name is None:
        return changed
    if not isinstance(name, str) or name not in RECIPES:  # a list has no hash
        raise unknown_name("recipe", str(name), RECIPES)
    if changed.get("epochs") is not None and "steps" in changed:
        raise ValueError(
            f"recipe.steps = {changed['steps']} and recipe.epochs = {changed['epochs']}: give one, because both "
            "set the length of the training"
        )
    passes = ["epochs"] if "steps" in changed else []
    return {field: value for field, value in RECIPES[name].items() if field not in passes} | changed


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderName:
    """A frozen encoder as a user writes it.

    timm:<model>            a timm model with its published weights
    timm:<model>@<file>     the same architecture with weights from a file (safetensors or .pth)
    untrained:<model>       a timm model with random weights of a fixed seed, for trying things out
    clipn                   the image tower of the trial's CLIPN, features as they come (not of unit length)
    """

    kind: Literal["timm", "untrained", "clipn"]
    model: str = ""
    file: Path | None = None

    @classmethod
    def parse(cls, text: str) -> EncoderName:
        """The encoder that `text` names. Raises ValueError for text that has none of the forms above."""
        kind, _, rest = text.partition(":")
        model, _, file = rest.partition("@")
        if text == "clipn":
            return cls(kind="clipn")
        if kind == "timm" and model:
            return cls(kind="timm", model=model, file=user_path(file) if file else None)
        if kind == "untrained" and model and not file:
            return cls(kind="untrained", model=model)
        raise ValueError(
            f"recipe.encoder = {text!r}: expected clipn, timm:<model>, timm:<model>@<file of weights> or "
            "untrained:<model>"
        )

    def identity(self, *, clipn: str | None) -> str:
        """Identity (64 hex digits) of the weights; `clipn` is the identity of the trial's CLIPN.

        A file is identified by its bytes. Raises ValueError if there is no such file.
        """
        weights = {"clipn": clipn} if self.kind == "clipn" else {"model": self.model, "kind": self.kind}
        return content_hash(weights | ({"file": file_hash_once(self.file)} if self.file else {}))
