"""The small CLIPN that replaces the published one if no checkpoint is given. Importing this needs no torch.

It is trained once on images that the data set keeps apart for it, and kept in the cache.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from data.cache import STAND_INS, Entry, Meta, clear_write_errors, open_entry
from data.console import Progress
from data.imageset import DataSet
from models.clipn import source as clipn_source
from models.clipn.recipe import small_clip_config
from models.clipn.source import ClipnSource, stand_in_images, weights_identity


def _entry(source: ClipnSource, data_set: DataSet) -> Entry:
    return Entry(kind=STAND_INS, key=weights_identity(source, data_set)[:32], what=f"{data_set.name}: the small CLIPN")


def stand_in_path(source: ClipnSource, data_set: DataSet) -> Path:
    """Path of the stand-in's checkpoint, whether it exists or not. Raises the errors of `clipn_identity`."""
    entry = _entry(source, data_set)
    return entry.folder / STAND_INS.files


def is_trained(source: ClipnSource, data_set: DataSet) -> bool:
    """Whether the stand-in's checkpoint exists and its bytes are those that were written."""
    return _entry(source, data_set).open() is not None


def train_stand_in(source: ClipnSource, data_set: DataSet, progress: Progress) -> Path:
    """Path of the stand-in's checkpoint, trained first if it is missing; one process trains, others wait for it."""
    path = stand_in_path(source, data_set)
    open_entry(_entry(source, data_set), lambda _: _train(source, data_set, path, progress), progress=progress)
    return path


def _train(source: ClipnSource, data_set: DataSet, path: Path, progress: Progress) -> Meta:
    """Train the stand-in and write its checkpoint. Returns the meta data to keep with it."""
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
    with clear_write_errors(path.parent):
        save_clipn(clipn, path, epoch=1, name=f"stand-in for {data_set.name}")
    progress(f"{data_set.name}: the small CLIPN is trained ({seconds:.0f} s)")
    return {"seconds": seconds, "num_images": len(pretrain)}
