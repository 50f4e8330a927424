"""Weights of a plain CLIP or another model of open_clip, by architecture and tag or from a file.

A "no" tower can be trained on a plain CLIP only; the others are sufficient for detectors that need none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from open_clip.pretrained import download_pretrained

from data.cache import is_hub_file_whole
from data.console import Progress
from data.files import cache_root, user_path
from models.clipn.hub import quiet_hub
from models.clipn.model import Clipn
from models.clipn.preprocessing import CLIP_PREPROCESSING, read_preprocessing
from models.clipn.source import PRETRAINED, any_config, clip_config, is_plain_clip, published_weights
from models.clipn.towers import OpenTowers
from models.clipn.weights import check_names_and_shapes, file_name, read_tensors


def load_pretrained(model: str, pretrained: str, *, progress: Progress) -> Clipn | OpenTowers:
    """The towers of a model of open_clip, on the CPU, in evaluation mode: a plain CLIP's as a CLIPN.

    For features only: such a CLIPN's "no" tower is the text tower itself, which training would change too. Arguments
    and errors as of `load_pretrained_clip`, but for the preprocessing, which may be any
    (`models.clipn.source.pretrained_preprocessing`).
    """
    config, path = any_config(model), user_path(pretrained)
    if is_plain_clip(config):
        return _plain_clip(model, config, pretrained, progress, own_no=False)
    config, path = _with_weights(model, config, pretrained, progress)
    towers = OpenTowers(config)
    towers.load(path)
    return towers.eval()


def load_pretrained_clip(model: str, pretrained: str, *, progress: Progress) -> Clipn:
    """A CLIPN with the image and text tower of a plain CLIP, on the CPU, in evaluation mode.

    Its "no" tower is a copy of the text tower and its prompts are zero: the state in which training it starts.

    Args:
        model: open_clip architecture, a name or a path to a config (`.json`).
        pretrained: an open_clip tag of that architecture, downloaded once into the cache, or a path to a weights file.

    Raises ValueError for unknown names, weights that do not fit, tags with another preprocessing than CLIP's, and
    missing weights that cannot be downloaded: the message then names the file and where to put it.
    """
    config = clip_config(model)
    if not user_path(pretrained).is_file():
        known = published_weights(model, pretrained)
        if read_preprocessing(known, f"clipn.pretrained: {pretrained} of {model}") != CLIP_PREPROCESSING:
            raise ValueError(
                f"clipn.pretrained: {pretrained} of {model} was trained with another preprocessing than CLIP's, with "
                "which a CLIPN reads images; a 'no' tower cannot be trained on it"
            )
    return _plain_clip(model, config, pretrained, progress, own_no=True)


def _with_weights(
    model: str, config: dict[str, Any], pretrained: str, progress: Progress
) -> tuple[dict[str, Any], Path]:
    """The config with what the weights add to it, and the path of their file, downloaded if it is missing."""
    path = user_path(pretrained)
    if path.is_file():
        return config, path
    known = published_weights(model, pretrained)
    activation = {"quick_gelu": True} if known.get("quick_gelu") else {}
    return config | activation, _find_or_download(model, pretrained, known, progress)


def _plain_clip(model: str, config: dict[str, Any], pretrained: str, progress: Progress, *, own_no: bool) -> Clipn:
    """`load_pretrained_clip` for a config that is a plain CLIP's; the "no" tower has weights of its own if `own_no`."""
    config, path = _with_weights(model, config, pretrained, progress)
    clipn = Clipn.without_weights(config)
    if not own_no:
        clipn.text_no = clipn.text
    own = {
        name: tensor for name, tensor in clipn.state_dict().items() if not name.startswith(("text_no.", "prompt_no"))
    }
    tensors = read_tensors(path, setting=PRETRAINED)
    check_names_and_shapes(path, tensors, {file_name(name): tensor for name, tensor in own.items()}, setting=PRETRAINED)
    weights = {name: tensors[file_name(name)] for name in own}
    text_no = {
        name.replace("text.", "text_no.", 1): tensor.clone() if own_no else tensor
        for name, tensor in weights.items()
        if name.startswith("text.")
    }
    clipn.take(weights | text_no | {"prompt_no": torch.zeros(clipn.prompt_no.shape)})
    return clipn.eval()


def _find_or_download(model: str, pretrained: str, known: dict[str, Any], progress: Progress) -> Path:
    """Path of a tag's weights file: the one that a user has put into the cache, or open_clip's download."""
    folder = cache_root() / "open_clip"
    by_hand = folder / f"{model}.{pretrained}.safetensors"
    if by_hand.is_file():
        return by_hand
    origin = str(known.get("hf_hub") or known.get("url")).rstrip("/")
    progress(f"fetching the weights {pretrained} of {model} ({origin}) into {folder}")
    try:
        with quiet_hub():
            downloaded = Path(download_pretrained(known, cache_dir=str(folder)))
    except Exception as error:  # network libraries raise many kinds; all mean that the file cannot be had
        raise ValueError(
            f"clipn.pretrained: the weights {pretrained} of {model} are not in the cache and cannot be downloaded "
            f"({type(error).__name__}). Elsewhere, get open_clip_model.safetensors of {origin} and "
            f"put it at {by_hand}, or give the path of the file instead of the tag"
        ) from error
    # The weights' identity is their tag, so nothing else would notice a flipped bit in them.
    if not is_hub_file_whole(downloaded.resolve()):
        raise ValueError(
            f"clipn.pretrained: the weights in {downloaded.resolve()} are damaged; remove that file, and they are "
            "downloaded again"
        )
    return downloaded
