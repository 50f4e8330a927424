"""Which features are missing for a data set, and their cost, for planning. Importing this needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from data.imageset import DataSet
from models.clipn.cost import seconds_on_a_core
from models.clipn.features import FeatureEntries
from models.clipn.recipe import small_clip_config
from models.clipn.source import POSITIONS, TOKENS, ClipnSource
from models.clipn.stand_in import is_trained
from models.feature_store import rows_present, seconds_a_row


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureBill:
    """The features that have to be computed before a data set's images can be scored, and their cost."""

    num_images: int
    num_missing: int
    seconds: float | None
    """Estimated seconds for the missing features; None if the weights are not known yet, or the size of the tower."""
    is_measured: bool
    """Whether the estimate comes from an earlier computation here; else it is for one CPU core, from the number of the
    network's operations."""
    num_bytes: int = 0
    """Size of the missing features in the cache."""
    waits_for_stand_in: bool = False
    """Whether the small CLIPN that computes them has to be trained first."""


def feature_bill(data_set: DataSet, source: ClipnSource) -> FeatureBill:
    """The missing features and their cost; nothing is loaded or computed. Raises the errors of `clipn_identity`."""
    num_images = len(data_set.train.images)
    uses_stand_in = source.checkpoint is None and source.pretrained is None
    if uses_stand_in and not is_trained(source, data_set):
        return FeatureBill(
            num_images=num_images,
            num_missing=num_images,
            seconds=None,
            is_measured=False,
            waits_for_stand_in=True,
            num_bytes=_row_bytes(small_clip_config(data_set.image_size)) * num_images,
        )
    features = FeatureEntries(data_set, source, "cpu", lambda line: None)
    missing = num_images - rows_present(features.image_key, num_images)
    measured = seconds_a_row(features.image_key) if missing else 0.0
    seconds = missing * measured if measured is not None else seconds_on_a_core(features.config, missing)
    return FeatureBill(
        num_images=num_images,
        num_missing=missing,
        seconds=seconds,
        is_measured=measured is not None,
        num_bytes=_row_bytes(features.config) * missing,
    )


def caption_bill(data_set: DataSet, source: ClipnSource) -> FeatureBill | None:
    """The missing captions of a source's captioner and their cost, as far as it was measured; None without one."""
    if source.captioner is None:
        return None
    key = FeatureEntries(data_set, source, "cpu", lambda line: None).caption_key
    num_images = len(data_set.train.images)
    missing = num_images - rows_present(key, num_images)
    measured = seconds_a_row(key) if missing else 0.0
    return FeatureBill(
        num_images=num_images,
        num_missing=missing,
        seconds=None if measured is None else missing * measured,
        is_measured=measured is not None,
        num_bytes=4 * POSITIONS * TOKENS * missing,
    )


def _row_bytes(config: dict[str, Any]) -> int:
    """Size of one image's features in bytes, float32."""
    return 4 * int(config["embed_dim"])
