"""The small CLIPN that stands in for the published one where no checkpoint is given. Importing this needs no torch.

It is trained once on images that the data set keeps apart for it, and kept in the cache.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from data.cache import clear_write_errors
from data.console import Progress
from data.files import cache_root, file_hash, file_lock, write_text_atomically
from data.imageset import DataSet
from models.clipn import source as clipn_source
from models.clipn.recipe import small_clip_config
from models.clipn.source import ClipnSource, stand_in_images, weights_identity


def stand_in_path(source: ClipnSource, data_set: DataSet) -> Path:
    """Where the stand-in's checkpoint lies, whether it exists or not. Errors as `clipn_identity`."""
    return cache_root() / "clipn" / weights_identity(source, data_set)[:32] / "clipn.pt"


def is_trained(path: Path) -> bool:
    """Whether the stand-in's checkpoint is there and its bytes are those that were written."""
    try:
        meta = json.loads(path.with_name("meta.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError, json.JSONDecodeError):
        return False
    return path.is_file() and isinstance(meta, dict) and file_hash(path) == meta.get("checksum")


def train_stand_in(source: ClipnSource, data_set: DataSet, progress: Progress) -> Path:
    """The stand-in's checkpoint, trained first where the cache has none; one process trains, others wait for it."""
    path = stand_in_path(source, data_set)
    if is_trained(path):
        return path
    with clear_write_errors(path.parent), file_lock(path.with_name("lock")):
        if not is_trained(path):
            _train(source, data_set, path, progress)
    return path


def _train(source: ClipnSource, data_set: DataSet, path: Path, progress: Progress) -> None:
    """Train, and write the checkpoint and then its description."""
    from models.clipn.training import train_small_clipn
    from models.clipn.weights import save_clipn

    pretrain = stand_in_images(source, data_set)
    progress(
        f"{data_set.name}: training a small CLIPN on {len(pretrain)} images set apart for it "
        "(a stand-in for the published one; once, then it is kept)"
    )
    started = time.monotonic()
    clipn = train_small_clipn(
        pretrain.images.load(np.arange(len(pretrain))),
        pretrain.labels,
        data_set.class_names,
        config=small_clip_config(data_set.image_size),
        recipe=clipn_source.STAND_IN_RECIPE,
        progress=progress,
    )
    seconds = time.monotonic() - started
    save_clipn(clipn, path, epoch=1, name=f"stand-in for {data_set.name}")
    meta = {"checksum": file_hash(path), "seconds": seconds, "num_images": len(pretrain)}
    write_text_atomically(path.with_name("meta.json"), json.dumps(meta, indent=2) + "\n")
    progress(f"{data_set.name}: the small CLIPN is trained ({seconds:.0f} s)")
