"""Choice of the CLIPN that a run uses, and the identity of its features. Importing this needs no torch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from data.cache import file_hash_once
from data.console import unknown_name
from data.files import content_hash, user_path
from data.imageset import DataSet, ImageSet
from models.clipn.preprocessing import CLIP_PREPROCESSING, Preprocessing, read_preprocessing
from models.clipn.prompts import DEFAULT_TEMPLATES_HASH, read_templates, templates_hash
from models.clipn.recipe import SmallClipnRecipe, small_clip_config, training_identity

DEFAULT_MODEL = "ViT-B-16"
NUM_TOKENS = 49_408
"""Tokens of CLIP's byte pairs."""
DEFAULT_CAPTIONER = "coca_ViT-B-32"
PUBLISHED_CAPTIONER = "mscoco_finetuned_laion2b_s13b_b90k"
"""Tag of the weights of both published sizes of CoCa that were trained to caption."""
POSITIONS, TOKENS = 10, 35
"""Positions of a caption at which so many of the likeliest tokens are read, as in ZOC's code."""
PRETRAINED = "clipn.pretrained"
"""Setting of a plain CLIP's weights, as errors name it."""
STAND_IN_RECIPE = SmallClipnRecipe()
"""Recipe of the stand-in, which is trained if no checkpoint is given."""
_NEEDED = {"embed_dim", "vision_cfg", "text_cfg"}
_CONFIG_FIELDS = _NEEDED | {"quick_gelu"}
_OTHER_FIELDS = {"custom_text", "multimodal_cfg", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"}
_OTHER_TEXT = {"hf_model_name", "hf_tokenizer_name", "no_causal_mask", "embed_cls", "proj_bias", "output_tokens"}
"""Settings of a text tower that does not read as CLIP's."""

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
    """In place of a checkpoint, for detectors without "no": a model of open_clip, by tag or path of a weights file."""
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
    captioner: Annotated[str, Field(min_length=1)] | None = None
    """Weights of the captioner whose words the detector zoc reads: a CoCa of open_clip, by tag or path of a file."""
    captioner_model: str = DEFAULT_CAPTIONER
    """open_clip architecture of the captioner: a name, or the path of an open_clip JSON configuration."""

    def settings_read(self) -> dict[str, Any]:
        """Plain values of the settings that count, for fingerprints and reports."""
        # Absent unless used: these are newer than the first records.
        unread = {"captioner", "captioner_model"} if self.captioner is None else set()
        return self.model_dump(mode="json", exclude=unread)


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
            **({} if source.captioner is None else {"captioner": captioner_identity(source)}),
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

    Nothing is downloaded. Raises ValueError for unknown names, and for a model that needs a package that is missing.
    """
    config, path = any_config(model), user_path(pretrained)
    _check_packages(config, model)
    preprocessing = pretrained_preprocessing(model, pretrained)
    # Absent for CLIP's: a new entry for all would have changed the keys of features that are stored.
    other = {} if preprocessing == CLIP_PREPROCESSING else {"preprocessing": preprocessing.words}
    if path.is_file():
        return content_hash({"clip": file_hash_once(path), "config": config, **other})
    return content_hash({"clip": pretrained, "config": config, "model": model, **other})


def captioner_identity(source: ClipnSource) -> str:
    """Identity (64 hex digits) of a captioner and of what is read of its captions.

    Nothing is downloaded. Raises ValueError for unknown names, and for a model without captions in CLIP's tokens.
    """
    assert source.captioner is not None
    with about_captioner():
        text = any_config(source.captioner_model)["text_cfg"]
        decodes = "multimodal_cfg" in any_config(source.captioner_model)
        if not decodes or text.get("hf_tokenizer_name") or text.get("vocab_size", NUM_TOKENS) != NUM_TOKENS:
            raise ValueError(
                f"clipn.captioner_model: {source.captioner_model} writes no captions in CLIP's {NUM_TOKENS:,} tokens; "
                f"take {DEFAULT_CAPTIONER} or coca_ViT-L-14"
            )
        weights = pretrained_identity(source.captioner_model, source.captioner)
    return content_hash({"weights": weights, "positions": POSITIONS, "tokens": TOKENS})


@contextmanager
def about_captioner() -> Iterator[None]:
    """Errors of the code for pretrained weights, which name the setting, are about the captioner's settings here."""
    try:
        yield
    except ValueError as error:
        text = str(error).replace("clipn.model", "clipn.captioner_model").replace(PRETRAINED, "clipn.captioner")
        raise ValueError(text) from error


def stand_in_images(source: ClipnSource, data_set: DataSet) -> ImageSet:
    """The images that a stand-in is trained on. Raises ValueError if the data set has none, or if a model is set."""
    if data_set.pretrain is None:
        raise ValueError(
            f"clipn.checkpoint: {data_set.name} has no images set apart for training a stand-in CLIPN, so give a CLIPN "
            "checkpoint file with --clipn-checkpoint (the authors publish some; the README says where)"
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
    """The open_clip config of a plain CLIP, by its name or from the `.json` file at that path.

    Raises ValueError for an unknown name (the nearest is suggested), a missing or bad file, and for an architecture
    that is not a plain CLIP.
    """
    return _checked_config(_read_config(model), model)


def _read_config(model: str) -> object:
    """The content of an architecture's file. Raises ValueError if there is none that can be read."""
    path = user_path(model)
    if path.suffix != ".json":
        known = {path.stem: path for path in _config_folder().glob("*.json")}
        if model not in known:
            raise unknown_name("clipn.model", model, sorted(known))
        path = known[model]
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"clipn.model: there is no file {path}") from error
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, no JSON, or a number of thousands of digits
        raise ValueError(f"clipn.model: {path} is not an open_clip config: {error}") from error
    except RecursionError:
        raise ValueError(f"clipn.model: {path} is not an open_clip config: nested too deeply") from None


def any_config(model: str) -> dict[str, Any]:
    """The open_clip config of any contrastive model, by its name or from the `.json` file at that path.

    Such a file is a config, or what the hub has as open_clip_config.json: {"model_cfg": ..., "preprocess_cfg": ...}.
    Raises the errors of `clip_config`, but accepts other texts and towers than CLIP's.
    """
    return _checked_config(_model_part(_read_config(model)), model, others=True)


def is_plain_clip(config: Mapping[str, Any]) -> bool:
    """Whether the texts of this open_clip config are read as CLIP's, so that a CLIPN has the same towers."""
    text = config["text_cfg"]
    return (
        config.keys() <= _CONFIG_FIELDS
        and not any(text.get(name) for name in _OTHER_TEXT)
        and text.get("pool_type", "argmax") == "argmax"
        and text.get("proj_type", "linear") == "linear"
    )


def pretrained_preprocessing(model: str, pretrained: str) -> Preprocessing:
    """Preprocessing of images that pretrained weights expect.

    By the tag; for a weights file, by the `preprocess_cfg` of the model's JSON file, or by the tags of the named model
    if these agree; otherwise CLIP's. Raises the errors of `pretrained_identity`.
    """
    if not user_path(pretrained).is_file():
        return read_preprocessing(published_weights(model, pretrained), f"clipn.pretrained: {pretrained} of {model}")
    if user_path(model).suffix == ".json":
        content = _read_config(model)
        given = content.get("preprocess_cfg", {}) if isinstance(content, dict) and "model_cfg" in content else {}
        return read_preprocessing(_settings(given, f"{model}: preprocess_cfg"), f"clipn.model: {model}: preprocess_cfg")
    # Here, because it imports torch, which only those who name pretrained weights need.
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    known = {
        read_preprocessing(get_pretrained_cfg(model, tag), f"clipn.pretrained: {tag} of {model}")
        for tag in list_pretrained_tags_by_model(model)
    }
    return known.pop() if len(known) == 1 else CLIP_PREPROCESSING


def _model_part(content: object) -> object:
    """The model's part of a file of the hub, or the content itself."""
    return content["model_cfg"] if isinstance(content, dict) and "model_cfg" in content else content


def _settings(part: object, place: str) -> dict[str, Any]:
    """The part unchanged. Raises ValueError unless it is settings in braces."""
    if not isinstance(part, dict):
        raise ValueError(f"clipn.model: {place} needs settings of its own, in braces")
    return part


def _check_packages(config: Mapping[str, Any], model: str) -> None:
    """Raise ValueError for a text side that needs a package that is not installed."""
    text = config["text_cfg"]
    name = text.get("hf_model_name") or text.get("hf_tokenizer_name")
    if name and importlib.util.find_spec("transformers") is None:
        part = "text tower" if text.get("hf_model_name") else "tokeniser"
        raise ValueError(
            f"clipn.model: {model} reads texts with the {part} {name}, which needs the packages transformers and "
            "sentencepiece; install them (pip install transformers sentencepiece)"
        )


def _checked_config(config: object, model: str, *, others: bool = False) -> dict[str, Any]:
    """The config unchanged. Raises ValueError unless it describes a CLIP with square images; `others`: of any kind."""
    allowed = _CONFIG_FIELDS | (_OTHER_FIELDS if others else set())
    if not isinstance(config, dict) or not _NEEDED <= config.keys() <= allowed:
        raise ValueError(
            f"clipn.model: {model} is not {'a model of open_clip' if others else 'a plain CLIP'}; its config needs "
            f"embed_dim, vision_cfg and text_cfg, may have {' and '.join(sorted(allowed - _NEEDED))}, and nothing "
            "else. Use for example ViT-B-16"
        )
    for tower in ("vision_cfg", "text_cfg"):
        _check_sizes(_settings(config[tower], f"{model}: {tower}"), f"{model}: {tower}.")
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

    Raises ValueError for a tag that open_clip does not have.
    """
    # Here, because it imports torch, which only those who name a tag need.
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    known: dict[str, Any] = get_pretrained_cfg(model, pretrained)
    if not known:
        tags = list_pretrained_tags_by_model(model)
        raise unknown_name(f"clipn.pretrained (neither a file nor a tag of {model})", pretrained, tags)
    return known
