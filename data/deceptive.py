"""Detection of misleading images: test images that are also training images, images without contrast, rotated images.

None of these stops a run: each is reported in one line, in the terminal and in the report's box of facts. Shapes: B
images of a block, H and W height and width, C = 3 channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.decoding import levels_in_words, rotation_of
from data.files import file_hash, shown
from data.image_files import ImageFile

FEWEST_LEVELS = 16
"""Largest span of levels, of 255, in every channel of an image that is reported as without contrast: 12-bit levels
stored in 16 bits (microscopes, X-rays) end at 16."""


class Suspicions:
    """Collector of misleading images, filled while the images are read for the first time."""

    def __init__(self, root: Path, sets: Mapping[str, Sequence[ImageFile]]) -> None:
        """`sets` are the files below `root`; `train` and `test` among them are compared with each other."""
        self._root = root
        self._sets = sets
        self._flat: list[Path] = []

    def look(self, paths: Sequence[Path], pixels_BHWC: NDArray[np.uint8]) -> None:
        """Examine a block of images as they were decoded from `paths`."""
        low_BC, high_BC = pixels_BHWC.min(axis=(1, 2)), pixels_BHWC.max(axis=(1, 2))
        is_flat_B = ((high_BC - low_BC) <= FEWEST_LEVELS).all(axis=1)
        self._flat += [path for path, is_flat in zip(paths, is_flat_B, strict=True) if is_flat]

    def notes(self) -> list[str]:
        """One line for each kind of misleading image that was found; empty for most data sets."""
        found = [self._trained_on(), self._without_contrast(), self._on_their_side()]
        return [line for line in found if line is not None]

    @property
    def _num_images(self) -> int:
        return sum(map(len, self._sets.values()))

    def _trained_on(self) -> str | None:
        """Note about test files that hold the same bytes as a training file; None if there are none."""
        # Only files of equal size are read again: others cannot be copies.
        train, test = self._sets.get("train", ()), self._sets.get("test", ())
        sizes = {file.num_bytes for file in test}
        hashes = {file_hash(self._root / file.name) for file in train if file.num_bytes in sizes}
        sizes = {file.num_bytes for file in train}
        found = [f for f in test if f.num_bytes in sizes and file_hash(self._root / f.name) in hashes]
        if not found:
            return None
        return (
            f"{len(found):,} of {len(test):,} test images are copies of training images (the first is "
            f"{shown(found[0].name)}), so accuracy is partly that of images trained on; remove them from one of both"
        )

    def _without_contrast(self) -> str | None:
        if not self._flat:
            return None
        first = self._flat[0]
        return (
            f"{len(self._flat):,} of {self._num_images:,} images have no contrast (the first is "
            f"{shown(str(first.relative_to(self._root)))}: {levels_in_words(first)}); stretch their levels "
            "to the whole range, or remove them"
        )

    def _on_their_side(self) -> str | None:
        files = [file for of_set in self._sets.values() for file in of_set]
        turned = [file for file in files if rotation_of(self._root / file.name)]
        if not turned:
            return None
        return (
            f"{len(turned):,} of {self._num_images:,} images carry an EXIF rotation, which is ignored, so they lie on "
            f"their side or upside down (the first is {shown(turned[0].name)}); rotate the files if that matters"
        )
