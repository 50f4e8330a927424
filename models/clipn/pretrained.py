"""Weights of a plain CLIP, by open_clip's architecture and tag or from a file.

A "no" tower can be trained on these towers, and they are sufficient for maximum concept matching, which needs none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from open_clip.pretrained import download_pretrained

from data.cache import is_hub_file_whole
from data.console import Progress
from data.files import cache_root, user_path
from models.clipn.model import Clipn
from models.clipn.source import PRETRAINED, clip_config, published_weights
from models.clipn.weights import check_names_and_shapes, file_name, read_tensors


def load_pretrained_clip(model: str, pretrained: str, *, progress: Progress) -> Clipn:
    """A CLIPN with the image and text tower of a plain CLIP, on the CPU, in evaluation mode.

    Its "no" tower is a copy of the text tower and its prompts are zero: the state in which training it starts.

    Args:
        model: open_clip architecture, a name or a path to a config (`.json`).
        pretrained: an open_clip tag of that architecture, downloaded once into the cache, or a path to a weights file.

    Raises ValueError for unknown names, weights that do not fit, tags with another preprocessing than CLIP's, and
    missing weights that cannot be downloaded: the message then names the file and where to put it.
    """
    config, path = clip_config(model), user_path(pretrained)
    if not path.is_file():
        known = published_weights(model, pretrained)
        config |= {"quick_gelu": True} if known.get("quick_gelu") else {}
        path = _find_or_download(model, pretrained, known, progress)
    clipn = Clipn.without_weights(config)
    own = {
        name: tensor for name, tensor in clipn.state_dict().items() if not name.startswith(("text_no.", "prompt_no"))
    }
    tensors = read_tensors(path, setting=PRETRAINED)
    check_names_and_shapes(path, tensors, {file_name(name): tensor for name, tensor in own.items()}, setting=PRETRAINED)
    weights = {name: tensors[file_name(name)] for name in own}
    text_no = {
        name.replace("text.", "text_no.", 1): tensor.clone()
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


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Suppress the hub library's warnings about its retries."""
    # It warns at each retry, for up to a minute; the one error that follows holds all that a user needs.
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
