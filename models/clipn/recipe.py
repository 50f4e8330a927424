"""Settings of the training of a small CLIP and its "no" tower. Importing this needs no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from data.files import content_hash

_CODE_VERSION = 1
"""Version, raised if the same recipe gives other weights, so that older weights are not taken for new ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRecipe:
    """Settings of stage 1: image tower and text tower from labelled images. The token table is not trained."""

    steps: int = 400
    """Number of optimiser steps."""
    batch_size: int = 128
    """Images per step, drawn with replacement."""
    learning_rate: float = 2e-3
    """Peak of AdamW's rate: linear warm-up, then a cosine down to 0."""
    warmup_steps: int = 20
    """Steps of warm-up."""
    weight_decay: float = 0.05
    """AdamW's weight decay, on tensors of two or more dimensions."""
    logit_scale: float = 20.0
    """Logit scale, which is not trained."""
    # Around 20 the "no" features can act as thresholds; 10 and below spread the classes too far apart, and at 100
    # nothing is learnt.
    noise: float = 0.1
    """Standard deviation of the noise added to preprocessed images."""
    max_shift: float = 0.06
    """Random shift of an image, at most this share of its size in each direction."""
    max_degrees: float = 10.0
    """Largest random rotation in either direction, in degrees."""
    max_zoom: float = 0.1
    """Random change of size, at most this share up or down."""
    flip: bool = False
    """Whether an image is mirrored left to right, at even odds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoTowerRecipe:
    """Settings of stage 2: the "no" tower and its prompts; everything else is frozen."""

    steps: int = 200
    """Number of optimiser steps."""
    batch_size: int = 512
    """Image features per step, drawn with replacement from the cached passes."""
    num_passes: int = 4
    """Number of augmented passes over the images whose features are cached."""
    learning_rate: float = 2e-3
    """Start of AdamW's rate; a cosine down to 0, no warm-up."""
    weight_decay: float = 0.2
    """AdamW's weight decay, on tensors of two or more dimensions."""
    semantic_weight: float = 0.2
    """Weight of the text semantic-opposite loss relative to the binary-opposite one."""
    # The paper's is 1; with the few texts of a small CLIPN 0.2 separates ID from OOD far better at the decision, at
    # the same ranking.


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallClipnRecipe:
    """Settings of a small CLIPN that is trained from scratch on labelled images."""

    clip: ClipRecipe = field(default_factory=ClipRecipe)
    no_tower: NoTowerRecipe = field(default_factory=NoTowerRecipe)
    seed: int = 0
    """Seed of weights, batches, augmentation and templates."""

    def identity(self) -> dict[str, Any]:
        """Everything that decides the weights apart from the images, as a JSON-like value."""
        recipe = asdict(self)
        if not self.clip.flip:
            del recipe["clip"]["flip"]  # the field is newer than the first identities, which must not change
        return {"recipe": recipe, "code": _CODE_VERSION}


def small_clip_config(image_size: int) -> dict[str, Any]:
    """An open_clip model config for small images: a transformer over 4 x 4 patches (2 x 2 for 8 pixels).

    The vocabulary is CLIP's, so that the usual tokeniser serves; the context of 32 tokens holds the usual templates.
    """
    return {
        "embed_dim": 64,
        "vision_cfg": {
            "image_size": image_size,
            "patch_size": max(4, image_size // 4),
            "layers": 3,
            "width": 64,
            "head_width": 16,
        },
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }


def small_resnet_config(image_size: int, *, context_length: int = 32) -> dict[str, Any]:
    """An open_clip model config for small photographs: CLIP's ResNet with one block per stage and 16 channels at first.

    `image_size` is a multiple of 32.
    """
    # Not a transformer: on 32-pixel photographs this learns faster on a CPU than one of the same cost.
    return {
        "embed_dim": 64,
        "vision_cfg": {
            "image_size": image_size,
            "layers": [1, 1, 1, 1],
            "width": 16,
            "head_width": 32,
            "patch_size": None,
        },
        "text_cfg": {"context_length": context_length, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }


def training_identity(
    recipe: SmallClipnRecipe, *, config: dict[str, Any], images: str, class_names: tuple[str, ...]
) -> str:
    """Identity (64 hex digits) of the weights that a training gives; `images` identifies images and labels."""
    return content_hash(
        {"training": recipe.identity(), "config": config, "images": images, "class_names": list(class_names)}
    )
