"""Beliefs about a table's images: a shard of features in, a shard of probabilities out, on whatever machine.

Shapes: N images of a shard, L answered images, K classes, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.annotate.head import Head
from experiments.annotate.photos import Photos
from experiments.annotate.table.encoding import text_towers
from experiments.annotate.table.parquet import Shard, as_matrix, is_made, read_rows, read_shard, write_shard
from experiments.annotate.wanted import Answers, Curve, Floats, Given, Judge, Scores
from models.clipn.features import VisionLanguage
from models.clipn.source import ClipnSource

WANTED = "wanted"
"""Column of the probability of being wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSource:
    """The place of a table's features: shards that were made of its images, or a column of its own."""

    table: str
    image_column: str
    own_column: str | None
    """The table's own column of features; None for shards that were made of its images."""
    folder: str

    def num_rows(self, shard: Shard) -> int:
        """Images with features."""
        return shard.num_rows if self.own_column else read_shard(self.folder, shard, ["row"]).num_rows

    def names(self, shard: Shard, rows: NDArray[np.int64]) -> list[str]:
        """Addresses of some images of a shard."""
        return self._read(shard, self.image_column, "image").take(rows).to_pylist()  # type: ignore[no-any-return]

    def features(self, shard: Shard) -> NDArray[np.float32]:
        """Unit features (N, D) of a shard's images."""
        what = f"column {self.own_column!r} of {shard.path}" if self.own_column else f"{self.folder}/{shard.name}"
        return as_matrix(self._read(shard, self.own_column, "features"), what)

    def _read(self, shard: Shard, own: str | None, made: str) -> Any:
        if self.own_column is not None and own is not None:
            return read_rows(self.table, shard, [own])[own]
        return read_shard(self.folder, shard, [made])[made]


@dataclass(kw_only=True)
class Beliefs:
    """What the answers say; the same on every machine."""

    weights: ClipnSource | None
    """Where texts are from; None without texts."""
    classes: tuple[str, ...]
    detector: str | None
    features_LD: NDArray[np.float32]
    classes_L: NDArray[np.int64]

    @property
    def answers(self) -> Answers:
        """The answers, the answered images first among all."""
        idx = np.arange(len(self.classes_L), dtype=np.int64)
        return Answers(idx=idx, classes=self.classes_L, num_classes=len(self.classes))

    @cached_property
    def towers(self) -> VisionLanguage | None:
        """The text towers."""
        return None if self.weights is None else text_towers(self.weights, self.classes)

    def photos(self, features_ND: NDArray[np.float32], identity: str) -> Photos:
        """The answered images and some others, as the parts for folders take them."""
        rows_MD = np.concatenate([self.features_LD, features_ND])
        towers = self.towers
        return Photos(
            names=("",) * len(rows_MD),
            damaged={},
            num_other=0,
            features_ND=rows_MD,
            towers=None
            if towers is None
            else VisionLanguage(
                image_features_ND=rows_MD,
                logit_scale=towers.logit_scale,
                encode_classes=towers.text_features,
                encode_texts=towers.sentence_features,
            ),
            identity=identity,
        )

    def scores(self, features_ND: NDArray[np.float32], identity: str) -> Scores:
        """The detector's scores of the answered images and these."""
        texts: frozenset[Given] = frozenset()
        if self.weights is not None:
            texts = frozenset({"text", "no text"}) if self.weights.checkpoint else frozenset({"text"})
        return Judge(self.photos(features_ND, identity), self.classes, texts).scores(self.detector, self.answers)

    def __getstate__(self) -> dict[str, Any]:
        """Without the towers: each machine opens its own."""
        return {name: value for name, value in self.__dict__.items() if name != "towers"}


@dataclass(kw_only=True)
class ScoreShard:
    """Makes the probabilities of a shard."""

    source: FeatureSource
    beliefs: Beliefs
    curve: Curve
    head: Head
    answered: dict[int, list[int]]
    """Shard -> rows of its answered images."""
    folder: str
    """Folder or address that the shards of probabilities are written to; another for each set of answers."""

    def __call__(self, shard: Shard) -> int:
        """Number of its images; a shard that is there is not made again."""
        if is_made(self.folder, shard):
            return int(read_shard(self.folder, shard, [WANTED]).num_rows)
        features_ND = self.source.features(shard)
        num_known = len(self.beliefs.classes_L)
        wanted_N = self.curve.probabilities(self.beliefs.scores(features_ND, shard.name).all_N[num_known:])
        shares_NK = self.head.probabilities(features_ND)
        is_free_N = np.ones(len(features_ND), dtype=bool)
        is_free_N[self.answered.get(shard.number, [])] = False
        columns = {
            WANTED: wanted_N.astype(np.float32),
            "predicted": shares_NK.argmax(axis=1).astype(np.int16),
            "probability": shares_NK.max(axis=1).astype(np.float32),
            "free": is_free_N,
        }
        write_shard(self.folder, shard, columns, group_rows=1 << 20)
        return len(features_ND)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """Some images of a table, those most probably wanted first."""

    places_M2: NDArray[np.int64]
    """Shard and row of each."""
    names: list[str]
    """Addresses."""
    features_MD: NDArray[np.float32]
    wanted_M: Floats
    """Probabilities of being wanted."""

    @staticmethod
    def join(parts: Sequence[Candidates]) -> Candidates:
        """Those of several shards."""
        wanted_M = np.concatenate([part.wanted_M for part in parts])
        order = np.argsort(-wanted_M, kind="stable")
        names = [name for part in parts for name in part.names]
        return Candidates(
            places_M2=np.concatenate([part.places_M2 for part in parts])[order],
            names=[names[place] for place in order.tolist()],
            features_MD=np.concatenate([part.features_MD for part in parts])[order],
            wanted_M=wanted_M[order],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeRows:
    """Reads some rows of a shard."""

    source: FeatureSource
    rows: dict[int, list[int]]
    """Shard -> its rows."""
    folder: str | None
    """Folder of the probabilities; None where there are none yet, which makes them 0."""

    def __call__(self, shard: Shard) -> Candidates:
        """The rows of this shard, in order."""
        rows = np.array(self.rows[shard.number], dtype=np.int64)
        wanted_M = np.zeros(len(rows))
        if self.folder is not None:
            wanted_M = read_shard(self.folder, shard, [WANTED])[WANTED].to_numpy()[rows].astype(np.float64)
        return Candidates(
            places_M2=np.stack([np.full(len(rows), shard.number, dtype=np.int64), rows], axis=1),
            names=self.source.names(shard, rows),
            features_MD=self.source.features(shard)[rows],
            wanted_M=wanted_M,
        )


class Best:
    """The rows with the largest values of a stream of shards, in bounded memory."""

    def __init__(self, count: int) -> None:
        """Keep `count`."""
        self._count = count
        self.values: Floats = np.empty(0)
        self._keys: Floats = np.empty(0)
        self.places: NDArray[np.int64] = np.empty((0, 2), dtype=np.int64)
        """Shard and row of each, the largest value first."""

    def add(self, shard: int, rows: NDArray[np.int64], values: Floats, keys: Floats) -> None:
        """Take the rows of a shard; ties go to the larger key."""
        places = np.stack([np.full(len(rows), shard, dtype=np.int64), rows], axis=1)
        values, keys = np.concatenate([self.values, values]), np.concatenate([self._keys, keys])
        order = np.lexsort((-keys, -values))[: self._count]
        self.values, self._keys = values[order], keys[order]
        self.places = np.concatenate([self.places, places])[order]


@dataclass(kw_only=True)
class Stream:
    """One pass over the shards of probabilities: what a round is made of, in bounded memory."""

    likely: Best
    border: Best
    drawn: Best
    num_free: int = 0
    total: float = 0.0
    """Expected number of wanted images among those without an answer."""
    variance: float = 0.0

    def read(self, folder: str, shards: Sequence[Shard], seed: int) -> None:
        """Read all shards, one after the other."""
        for shard in shards:
            table = read_shard(folder, shard, [WANTED, "free"])
            rows = np.flatnonzero(table["free"].to_numpy())
            wanted_N = table[WANTED].to_numpy()[rows].astype(np.float64)
            # One key for each image, whatever the shards: the largest are a draw in which each has the same chance, and
            # among equal probabilities (no texts, no answers: all are) the first rows of a table are as good as any.
            keys = np.random.default_rng([seed, shard.number]).random(len(rows))
            self.drawn.add(shard.number, rows, keys, keys)
            # Other keys for ties, or the images drawn would be the likeliest too.
            self.likely.add(shard.number, rows, wanted_N, 1 - keys)
            self.border.add(shard.number, rows, -np.abs(wanted_N - 0.5), 1 - keys)
            self.num_free += len(rows)
            self.total += float(wanted_N.sum())
            self.variance += float((wanted_N * (1 - wanted_N)).sum())
