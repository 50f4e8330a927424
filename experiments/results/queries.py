"""The images that trials queried, as far as they are at hand: pixels, which are OOD, and how pure each was judged.

Only images that are decoded already are looked at, and only if the trial's records fit them: a report decodes no data
set, and shows no image of another one.

Shapes: R queries, Q images of a query, S height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.cache import only_kept
from data.imageset import DataSet
from data.pool import Pool
from data.registry import open_data_set
from data.splits.draw import draw_data_split
from experiments.results.statistics import condition_of
from orchestrator.plan import PlannedTrial
from orchestrator.settings.trial import TrialConfig

MOST_IMAGES = 20_000
"""Most images of a report: as small pictures about 8 MB, encoded in a second or two."""
MOST_PER_QUERY = 20
"""Most images of a query, its first ones: the most wanted."""
SIZE = 32
"""Pixels of a larger image's small picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueriedImages:
    """The first images of one query."""

    round: int
    """The round whose training set they led to."""
    num_queried: int
    """Size of the whole query."""
    pixels_QSS3: NDArray[np.uint8]
    is_ood: tuple[bool, ...]
    """The oracle's answers."""
    purity: tuple[float, ...]
    """ID minus OOD score of each; empty without a purity step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """The queries of each trial whose images are at hand, and why there are none of the others."""

    by_fingerprint: Mapping[str, tuple[QueriedImages, ...]]
    reasons: Mapping[str, str]
    """Fingerprint -> why its images are not shown."""


def queries_of(planned: Sequence[PlannedTrial], *, most_images: int = MOST_IMAGES) -> Queries:
    """The first images of each query: of all trials if `most_images` allow five of each, else of each cell's first."""
    asked = [each for each in planned if any(record.queried_idx for record in each.records)]
    shown = asked
    if 5 * _num_queries(asked) > most_images:
        first: dict[tuple[object, ...], PlannedTrial] = {}
        for each in asked:
            first.setdefault((*condition_of(each.trial), each.row), each)
        shown = list(first.values())
    per_query = max(1, min(MOST_PER_QUERY, most_images // max(1, _num_queries(shown))))
    chosen = {each.fingerprint for each in shown}
    reasons = {
        each.fingerprint: "in a grid of this size, only those of the first seed are kept"
        for each in asked
        if each.fingerprint not in chosen
    }
    opened: dict[tuple[str, str, str], DataSet | str] = {}
    by_fingerprint = {}
    for each in shown:
        where = (each.trial.dataset, str(each.trial.data_root), each.trial.on_bad_image)
        if where not in opened:
            opened[where] = _open(each.trial)
        data = opened[where]
        found = data if isinstance(data, str) else _of_trial(each, data, per_query)
        if isinstance(found, str):
            reasons[each.fingerprint] = found
        else:
            by_fingerprint[each.fingerprint] = found
    return Queries(by_fingerprint=by_fingerprint, reasons=reasons)


def _num_queries(planned: Sequence[PlannedTrial]) -> int:
    return sum(bool(record.queried_idx) for each in planned for record in each.records)


def _open(trial: TrialConfig) -> DataSet | str:
    """The trial's data set, or why it cannot be had without decoding it."""
    try:
        with only_kept():
            return open_data_set(trial.dataset, root=trial.data_root, skip_bad_images=trial.on_bad_image == "skip")
    except ValueError as error:
        return f"the data set was not at hand when this page was written ({error})"


def _of_trial(planned: PlannedTrial, data: DataSet, per_query: int) -> tuple[QueriedImages, ...] | str:
    """The images of a trial, or why they are not those that it queried."""
    other = "the data set at hand when this page was written is not the one of the records"
    try:
        split = draw_data_split(data, planned.trial.split)
    except ValueError:
        return other
    # The checksum of the first pool: another data set of the same name must not pass for the one that was queried.
    if Pool.from_split(split).checksum() != planned.records[0].pool_checksum:
        return other
    is_ood_N = ~np.isin(data.train.labels, split.id_classes)
    queries = []
    for record in planned.records:
        idx = np.array(record.queried_idx[:per_query], dtype=np.int64)
        if not len(idx):
            continue
        try:
            pixels = data.train.images.load(idx)
        except ValueError as error:
            return f"an image cannot be read ({error})"
        queries.append(
            QueriedImages(
                round=record.round,
                num_queried=len(record.queried_idx),
                pixels_QSS3=_small(pixels),
                is_ood=tuple(is_ood_N[idx].tolist()),
                purity=tuple(record.purity[:per_query]),
            )
        )
    return tuple(queries)


def _small(pixels_QHW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The images with at most `SIZE` pixels per side."""
    if pixels_QHW3.shape[1] <= SIZE:
        return pixels_QHW3
    from PIL import Image

    shrunk = [Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BOX) for image in pixels_QHW3]
    return np.stack([np.asarray(image) for image in shrunk])
