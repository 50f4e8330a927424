"""Features of a table's images: a shard of addresses in, a shard of features out, on whatever machine.

Shapes: N images of a shard, B of a block, S pixels, D embedding.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.decoding import decode_content
from data.imageset import ArrayImages, DataSet, ImageSet, make_data_set
from experiments.annotate.table.parquet import Shard, as_column, is_made, opened, read_rows, read_shard, write_shard
from models.clipn.features import VisionLanguage, VisionLanguageTowers, open_vision_language
from models.clipn.source import ClipnSource, any_config, clip_config

BLOCK = 512
"""Images that are read and decoded together."""
READERS = 32
"""Images that are read at a time: a bucket answers in tens of milliseconds whatever their size."""


def no_images(source: ClipnSource, classes: tuple[str, ...]) -> DataSet:
    """A data set of two blank images, by which the towers and their texts are opened without any others."""
    config = any_config(source.model) if source.pretrained is not None else clip_config(source.model)
    size = config["vision_cfg"]["image_size"]
    blank = ArrayImages(np.zeros((2, size, size, 3), dtype=np.uint8))
    images = ImageSet(images=blank, labels=np.zeros(2, dtype=np.int64))
    return make_data_set(
        name="a table", class_names=classes, train=images, test=images, mean=(0.5,) * 3, std=(0.5,) * 3
    )


def text_towers(source: ClipnSource, classes: tuple[str, ...]) -> VisionLanguage:
    """The text towers, with the features of two blank images."""
    return open_vision_language(no_images(source, classes), source, progress=_quiet)


def _quiet(line: str) -> None:
    """A worker's lines are nobody's."""


@dataclass(kw_only=True)
class FeatureShard:
    """Makes the features of a shard; weights are loaded with the first one."""

    table: str
    column: str
    """Column of the addresses."""
    source: ClipnSource
    classes: tuple[str, ...]
    device: str
    folder: str
    """Folder or address that the shards of features are written to."""

    def __call__(self, shard: Shard) -> dict[str, int]:
        """Numbers of `rows` and of `damaged` images, which have no row; a shard that is there is not made again.

        Raises ValueError for a shard without a single image that can be read.
        """
        if is_made(self.folder, shard):
            num = read_shard(self.folder, shard, ["row"]).num_rows
            return {"rows": num, "damaged": shard.num_rows - num}
        addresses: list[str] = read_rows(self.table, shard, [self.column])[self.column].to_pylist()
        parts, kept = [], []
        with ThreadPoolExecutor(READERS) as threads, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd palettes, large pictures: both are decoded rightly
            for start in range(0, len(addresses), BLOCK):
                pictures = list(threads.map(self._picture, addresses[start : start + BLOCK]))
                rows = [place for place, picture in enumerate(pictures) if picture is not None]
                if rows:
                    parts.append(self._encode(np.stack([pictures[row] for row in rows])))  # type: ignore[misc]
                    kept += [start + row for row in rows]
        if not kept:
            raise ValueError(f"none of the {len(addresses):,} images from {addresses[0]} on can be read")
        write_shard(
            self.folder,
            shard,
            {
                "row": np.array(kept, dtype=np.int64),
                "image": [addresses[row] for row in kept],
                "features": as_column(np.concatenate(parts)),
            },
        )
        return {"rows": len(kept), "damaged": len(addresses) - len(kept)}

    @cached_property
    def _towers(self) -> tuple[Any, Any]:
        """The networks on their device, and their preprocessing."""
        towers = VisionLanguageTowers(no_images(self.source, self.classes), self.source, _quiet, device=self.device)
        return towers.load().to(self.device), towers.preprocessing

    def _encode(self, pixels_BSS3: NDArray[np.uint8]) -> NDArray[np.float32]:
        from models.clipn.encode import ImageRows

        clipn, preprocessing = self._towers
        images = ArrayImages(pixels_BSS3, fingerprint="0" * 64)
        rows = ImageRows(clipn, images, precision=self.source.precision, preprocessing=preprocessing)
        return rows.compute(0, len(images))

    def _picture(self, address: str) -> NDArray[np.uint8] | None:
        """The picture (S, S, 3); None if it cannot be read or decoded."""
        try:
            system, path = opened(address)
            with system.open_input_stream(path) as file:
                return decode_content(file.read(), self._towers[0].image_size)
        except (OSError, ValueError):
            return None

    def __getstate__(self) -> dict[str, Any]:
        """Without the networks: each machine loads its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_towers"}
