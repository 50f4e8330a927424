"""Recipes by name: `recipe: {name: paper-cifar, steps: 300}` is that recipe with one number changed. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data.naming import unknown_name

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
    # The paper's ResNet-18 training (protocol P10, P11); Recipe's own defaults.
    "paper-cifar": {},
    # The same number of steps, as the paper's text says; the official code trains 30,000.
    "paper-tiny": {},
    # A linear head on a frozen ViT-B/16 (protocol P17).
    "paper-domainnet": {
        "network": "linear",
        "encoder": "timm:vit_base_patch16_224.augreg_in21k",
        "epochs": 100,
        "learning_rate": 0.01,
        "flip": False,
        "crop_padding": 0,
    },
    # A linear head on CLIPN's image tower: 10 times 50 steps, the rate falls after 5 and 7 (protocol 1.9, Table 6). On
    # stored features; -crops trains it, as the official code does, on crops of the images; -tiny takes twice the steps.
    "paper-clip-linear": CLIP_LINEAR,
    "paper-clip-linear-tiny": CLIP_LINEAR | {"steps": 1000},
    "paper-clip-linear-crops": CLIP_LINEAR | {"smallest_crop": 0.9},
    "paper-clip-linear-crops-tiny": CLIP_LINEAR | {"smallest_crop": 0.9, "steps": 1000},
    # CLIPN as it is, with the names of the ID classes (protocol 1.9, Table 6).
    "zero-shot": {"network": "zero-shot", "encoder": "clipn", "flip": False, "crop_padding": 0, "rotation": 0},
    # For scikit-learn's digits; chosen on the images set apart for the small CLIPN, which are in no pool and no test.
    "demo": {
        "width": 8,
        "steps": 100,
        "batch_size": 32,
        "learning_rate": 0.1,
        "crop_padding": 1,
        "flip": False,  # a mirrored digit is another sign
    },
    # For 32-pixel photographs on a CPU.
    "cpu": {"width": 16, "steps": 300, "learning_rate": 0.05},
}


def named_recipe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a recipe with those of its `name`, if it has one, under them.

    `steps` given with a name whose recipe counts passes take the place of these. Raises ValueError for an unknown name
    (the nearest is suggested), and where steps and passes are both given with a name.
    """
    changed = dict(settings)
    name = changed.pop("name", None)
    if name is None:
        return changed
    if name not in RECIPES:
        raise unknown_name("recipe", str(name), RECIPES)
    if changed.get("epochs") is not None and "steps" in changed:
        raise ValueError(
            f"recipe.steps = {changed['steps']} and recipe.epochs = {changed['epochs']}: give one, they both say how "
            "long to train"
        )
    passes = ["epochs"] if "steps" in changed else []
    return {field: value for field, value in RECIPES[name].items() if field not in passes} | changed
