"""Choice of the CLIPN that a run uses, and the identity of its features. Importing this needs no torch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from data.cache import file_hash_once
from data.console import unknown_name
from data.files import content_hash, user_path
from data.imageset import DataSet, ImageSet
from models.clipn.prompts import DEFAULT_TEMPLATES_HASH, read_templates, templates_hash
from models.clipn.recipe import SmallClipnRecipe, small_clip_config, training_identity

DEFAULT_MODEL = "ViT-B-16"
PRETRAINED = "clipn.pretrained"
"""Setting of a plain CLIP's weights, as errors name it."""
STAND_IN_RECIPE = SmallClipnRecipe()
"""Recipe of the stand-in, which is trained if no checkpoint is given."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of each channel in CLIP's preprocessing, for pixels in [0, 1]; `CLIP_STD` is the standard deviation."""
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_PREPROCESSING = {"mean": CLIP_MEAN, "std": CLIP_STD, "interpolation": "bicubic", "resize_mode": "shortest"}
_CONFIG_FIELDS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}

_LARGEST = {
    "embed_dim": 100_000, "image_size": 10_000, "patch_size": 10_000, "width": 100_000, "head_width": 100_000,
    "layers": 1_000, "heads": 10_000, "context_length": 10_000, "vocab_size": 10_000_000,
}  # fmt: skip
"""Far above every CLIP there is: a slip of the finger would fill the memory, or build layers for hours."""


class ClipnSource(BaseModel):
    """Settings of a trial's CLIPN: its weights, and the texts in which it reads the classes.

    Without checkpoint and pretrained it is a small stand-in, trained on the data set's own `pretrain` images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    checkpoint: Annotated[Path | None, Field(strict=False)] = None
    """File in the format of CLIPN's authors."""
    pretrained: Annotated[str, Field(min_length=1)] | None = None
    """In place of a checkpoint: a plain CLIP, by open_clip tag or path of a weights file; only for detector `mcm`."""
    model: str = DEFAULT_MODEL
    """open_clip architecture of the weights: a name, or the path of an open_clip JSON configuration."""
    templates: Annotated[Path | None, Field(strict=False)] = None
    """Text file of prompt templates, one per line, each with one {}; unset: the built-in 128."""
    clean_names: bool = False
    """Whether underscores in class names become spaces; off: names are read as they are, as the paper's code does."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the image tower: bfloat16 products are several times faster on a GPU; of 100 images near the
    border between ID and OOD a few are then judged differently."""
    domain: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] | None = None
    """Word put before each class name, as for DomainNet ("real": "a photo of a real airplane."); unset: no word."""


def clipn_identity(source: ClipnSource, data_set: DataSet) -> str:
    """Identity (64 hex digits) of all that decides this CLIPN's features of a data set's images and class names.

    Nothing is trained or computed; a checkpoint's bytes are hashed (once for each size and time of change of the file).
    Raises ValueError for a source that cannot be used with this data set.
    """
    return content_hash(
        {
            "weights": weights_identity(source, data_set),
            "templates": used_templates_hash(source),
            "clean_names": source.clean_names,
            "domain": source.domain,
            "precision": source.precision,
        }
    )


def weights_identity(source: ClipnSource, data_set: DataSet) -> str:
    """Identity (64 hex digits) of weights and architecture. Raises the errors of `clipn_identity`."""
    if source.checkpoint is not None and source.pretrained is not None:
        raise ValueError(
            f"clipn.pretrained: {source.pretrained!r} and the checkpoint {source.checkpoint} are both given; give one: "
            "a CLIPN checkpoint holds all towers"
        )
    if source.pretrained is not None:
        return pretrained_identity(source.model, source.pretrained)
    if source.checkpoint is not None:
        config = clip_config(source.model)
        return content_hash({"checkpoint": file_hash_once(source.checkpoint), "config": config})
    pretrain = stand_in_images(source, data_set)
    return training_identity(
        STAND_IN_RECIPE,
        config=small_clip_config(data_set.image_size),
        images=_identity(pretrain),
        class_names=data_set.class_names,
    )


def pretrained_identity(model: str, pretrained: str) -> str:
    """Identity (64 hex digits) of a plain CLIP: by a weights file's bytes, or by the tag, whose weights are published.

    Nothing is downloaded. Raises ValueError for unknown names, and tags with another preprocessing than CLIP's.
    """
    config, path = clip_config(model), user_path(pretrained)
    if path.is_file():
        return content_hash({"clip": file_hash_once(path), "config": config})
    published_weights(model, pretrained)
    return content_hash({"clip": pretrained, "config": config, "model": model})


def stand_in_images(source: ClipnSource, data_set: DataSet) -> ImageSet:
    """The images that a stand-in is trained on. Raises ValueError if the data set has none, or if a model is set."""
    if data_set.pretrain is None:
        raise ValueError(
            f"clipn.checkpoint: {data_set.name} has no images set apart for training a stand-in CLIPN, so give a CLIPN "
            "checkpoint file (the authors publish some; the README says where)"
        )
    if source.model != DEFAULT_MODEL:
        raise ValueError(
            f"clipn.model: {source.model!r} is used only with a checkpoint or with pretrained weights; give one, or "
            "omit --clip-model"
        )
    return data_set.pretrain


def used_templates_hash(source: ClipnSource) -> str:
    """Identity of the templates that the source names. Raises ValueError for a file without templates."""
    return DEFAULT_TEMPLATES_HASH if source.templates is None else templates_hash(read_templates(source.templates))


def clip_config(model: str) -> dict[str, Any]:
    """The open_clip config of an architecture, by its name or from the `.json` file at that path.

    Raises ValueError for an unknown name (the nearest is suggested), a missing or bad file, and for an architecture
    that is not a plain CLIP.
    """
    path = user_path(model)
    if path.suffix != ".json":
        known = {path.stem: path for path in _config_folder().glob("*.json")}
        if model not in known:
            raise unknown_name("clipn.model", model, sorted(known))
        path = known[model]
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"clipn.model: there is no file {path}") from error
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, no JSON, or a number of thousands of digits
        raise ValueError(f"clipn.model: {path} is not an open_clip config: {error}") from error
    except RecursionError:
        raise ValueError(f"clipn.model: {path} is not an open_clip config: nested too deeply") from None
    return _checked_config(config, model)


def _checked_config(config: object, model: str) -> dict[str, Any]:
    """The config unchanged. Raises ValueError unless it describes a plain CLIP with square images."""
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys() <= _CONFIG_FIELDS:
        raise ValueError(
            f"clipn.model: {model} is not a plain CLIP; its config needs embed_dim, vision_cfg and text_cfg, may have "
            "quick_gelu, and nothing else. Use for example ViT-B-16"
        )
    for tower in ("vision_cfg", "text_cfg"):
        if not isinstance(config[tower], dict):
            raise ValueError(f"clipn.model: {model}: {tower} needs settings of its own, in braces")
        _check_sizes(config[tower], f"{model}: {tower}.")
    _check_sizes(config, f"{model}: ")
    if not isinstance(config["vision_cfg"].get("image_size"), int):
        raise ValueError(
            f"clipn.model: {model} has no single image_size in its vision_cfg; only square images are read"
        )
    return config


def _check_sizes(part: Mapping[str, Any], place: str) -> None:
    """Raises ValueError for a size that is no whole number, or that no CLIP has."""
    for name, largest in _LARGEST.items():
        size = part.get(name, 1)
        for each in size if isinstance(size, list) and name in ("layers", "image_size") else [size]:
            if each is None and name == "patch_size":
                continue  # as open_clip's own configs of ResNets have it
            if type(each) is not int or not 1 <= each <= largest:
                raise ValueError(
                    f"clipn.model: {place}{name} is {str(each)[:40]}; expected a whole number from 1 to {largest:,}"
                )


def _config_folder() -> Path:
    """Folder of open_clip's model configs."""
    # Found without importing open_clip, which would import torch.
    found = importlib.util.find_spec("open_clip")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("open_clip is not installed; install the project's dependencies")
    return Path(found.origin).parent / "model_configs"


def _identity(image_set: ImageSet) -> str:
    """Identity (64 hex digits) of images and labels."""
    labels = np.ascontiguousarray(image_set.labels, dtype="<i8")
    return content_hash({"images": image_set.images.fingerprint, "labels": hashlib.sha256(labels.data).hexdigest()})


def published_weights(model: str, pretrained: str) -> dict[str, Any]:
    """open_clip's entry for a tag: where the weights are, and their preprocessing of images. Downloads nothing.

    Raises ValueError for a tag that open_clip does not have, or whose weights need another preprocessing than CLIP's.
    """
    # Here, because it imports torch, which only those who name a tag need.
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    known: dict[str, Any] = get_pretrained_cfg(model, pretrained)
    if not known:
        tags = list_pretrained_tags_by_model(model)
        raise unknown_name(f"clipn.pretrained (neither a file nor a tag of {model})", pretrained, tags)
    if any(known.get(name) != value for name, value in _PREPROCESSING.items()):
        raise ValueError(
            f"clipn.pretrained: {pretrained} of {model} was trained with another preprocessing than CLIP's"
        )
    return known
