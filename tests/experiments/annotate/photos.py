"""A folder of small photos with names that other tools and shells trip over, and suggestions and labels about them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.annotate.answers.state import NONE, UNSURE, Label, Suggestion

CLASSES = ("cat", "Straßenbahn, rot", '=2+3 "q" & <b>', "日本 'x'")
UGLY = (
    "plain.jpg", "a b.jpg", "ä/ü.png", 'comma, "quote".jpg', "=1+1.jpg", "-x.png", "new\nline.jpg",
    "日本/語 ' & <x>.jpg", "sub/1.jpg", "sub/1.png", "other/1.jpg", "000001 ranked.jpg", "000001/ranked.jpg",
    "%41 100%.jpg", "back\\slash.jpg", "'=quoted.jpg", "a;b.jpg", "cafe\u0301.jpg", "#?d=x.jpg",
)  # fmt: skip
"""The last but one has its accent as a letter of its own, as macOS writes it."""


def write_photos(folder: Path, names: Iterable[str] = UGLY) -> tuple[str, ...]:
    """Write an image of its own colours under each name. Returns the names, sorted."""
    names = sorted(names)
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (12, 16 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, format="PNG" if name.endswith("png") else "JPEG")
    return tuple(names)


def suggestion(rank: int, image: str, *, predicted: str = "cat", copies: tuple[str, ...] = ()) -> Suggestion:
    """A suggestion whose figures follow from its rank."""
    return Suggestion(
        rank=rank, image=image, wanted=1 - rank / 100, predicted=predicted, predicted_probability=0.5 + rank / 1000,
        informativeness=rank / 8, nearest_labelled=None, copies=copies, reason=f"probably a {predicted}, rank {rank}",
        border=rank % 5 == 0,
    )  # fmt: skip


def label(image: str, answer: str, *, seconds: float | None = 1.25, source: str = "page") -> Label:
    """A label given at a fixed time."""
    return Label(image=image, answer=answer, source=source, time="2026-11-27T03:40:00Z", seconds=seconds)


def one_label_each(images: Iterable[str]) -> dict[str, Label]:
    """Labels with all answers in turn."""
    answers = (*CLASSES, NONE, UNSURE)
    return {
        image: label(image, answers[number % len(answers)], seconds=None if number == 3 else number / 8)
        for number, image in enumerate(images)
    }
