"""What a look at a data set's files tells without reading the images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A data set that is present."""

    where: str
    """Folder of its files, or what holds it."""
    num_train: int
    """Number of training images; likewise test."""
    num_test: int
    note: str = ""
    """What else there is to say, for people: whether the files are the published ones."""
