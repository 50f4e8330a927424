"""Preprocessing of images for a vision-language model. Importing this needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["shortest", "squash"]
Three = tuple[float, float, float]
_CHOICES = {"interpolation": ("bicubic", "bilinear"), "resize_mode": ("shortest", "squash")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """Preprocessing of an image to the image tower's square input; the defaults are CLIP's."""

    mean: Three = (0.48145466, 0.4578275, 0.40821073)
    """Mean of each channel, for pixels in [0, 1], which is subtracted."""
    std: Three = (0.26862954, 0.26130258, 0.27577711)
    """Standard deviation of each channel, by which the difference is divided."""
    interpolation: Interpolation = "bicubic"
    resize_mode: ResizeMode = "shortest"
    """`shortest`: the shorter side becomes the tower's size, then the centre is cropped; `squash`: both sides do."""

    @property
    def words(self) -> str:
        """Description for the keys of stored features."""
        # CLIP's as it was written when there was no other, so that features stored then are found.
        if self == CLIP_PREPROCESSING:
            return "CLIP: bicubic, centre crop"
        shape = "centre crop" if self.resize_mode == "shortest" else "squashed"
        return f"{self.interpolation}, {shape}, mean {list(self.mean)}, std {list(self.std)}"


CLIP_PREPROCESSING = Preprocessing()


def read_preprocessing(entry: Mapping[str, Any], what: str) -> Preprocessing:
    """The preprocessing in open_clip's entry of a tag, or in the `preprocess_cfg` of a model's JSON file.

    What the entry omits is CLIP's. Raises ValueError, naming `what`, for a preprocessing that is not supported.
    """
    given: dict[str, Any] = {}
    for name in ("mean", "std"):
        if entry.get(name) is not None:
            given[name] = _three_numbers(entry[name], f"{what}: {name}")
    for name, known in _CHOICES.items():
        if entry.get(name) is not None:
            if entry[name] not in known:
                raise ValueError(f"{what}: {name} is {str(entry[name])[:40]!r}; supported are {' and '.join(known)}")
            given[name] = entry[name]
    if 0.0 in given.get("std", ()):
        raise ValueError(f"{what}: std has a 0, by which pixels would be divided")
    return Preprocessing(**given)


def _three_numbers(value: object, what: str) -> Three:
    """Three numbers, of a list of three or of one number for all channels. Raises ValueError for anything else."""
    parts = [value] * 3 if isinstance(value, int | float) else value
    if (
        not isinstance(parts, list | tuple)
        or len(parts) != 3
        or any(isinstance(each, bool) or not isinstance(each, int | float) or not abs(each) < 1e3 for each in parts)
    ):
        raise ValueError(f"{what} is {str(value)[:40]}; expected one number per channel")
    return cast(Three, tuple(float(each) for each in parts))
