"""The images that trials queried as one picture per trial, in the page or beside it, and what the page says of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.results.queries import QueriedImages, Queries

FOLDER = "queries"
"""Folder of the pictures beside the page."""
MOST_EMBEDDED = 600_000
"""Most bytes of pictures inside the page; those of a larger grid lie beside it, loaded when a trial is opened."""
QUALITY = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Sprites:
    """What the page needs to show queried images."""

    by_fingerprint: Mapping[str, Mapping[str, Any]]
    """Fingerprint -> address of the picture, its tiles, and the queries in it: the JSON of the page's script."""
    reasons: Mapping[str, str]
    """Fingerprint -> why there is no picture."""
    files: Mapping[str, bytes]
    """Path below the page's folder -> content, of pictures beside the page."""


NO_SPRITES = Sprites(by_fingerprint={}, reasons={}, files={})


def make_sprites(queries: Queries) -> Sprites:
    """A picture per trial: a row of tiles per query, most wanted first."""
    pictures = {key: _picture(found) for key, found in queries.by_fingerprint.items()}
    is_embedded = sum(map(len, pictures.values())) <= MOST_EMBEDDED
    files: dict[str, bytes] = {}
    by_fingerprint = {}
    for number, (key, found) in enumerate(queries.by_fingerprint.items()):
        if is_embedded:
            address = f"data:image/webp;base64,{base64.b64encode(pictures[key]).decode()}"
        else:
            address = f"{FOLDER}/{number}.webp"
            files[address] = pictures[key]
        by_fingerprint[key] = {
            "src": address,
            "size": found[0].pixels_QSS3.shape[1],
            "width": max(len(query.is_ood) for query in found),
            "rounds": [_described(query) for query in found],
        }
    return Sprites(by_fingerprint=by_fingerprint, reasons=queries.reasons, files=files)


def write_sprites(folder: Path, sprites: Sprites) -> None:
    """Write the pictures beside the page in `folder`, in place of those of an earlier report."""
    from data.files import write_bytes_atomically

    for old in sorted((folder / FOLDER).glob("*.webp")):
        if f"{FOLDER}/{old.name}" not in sprites.files:
            old.unlink()
    for name, content in sprites.files.items():
        write_bytes_atomically(folder / name, content)


def _described(query: QueriedImages) -> list[Any]:
    """Round, size of the query, a digit per image (1 for OOD), and the purity scores."""
    return [query.round, query.num_queried, "".join(str(int(each)) for each in query.is_ood), list(query.purity)]


def _picture(found: Sequence[QueriedImages]) -> bytes:
    from PIL import Image

    size, width = found[0].pixels_QSS3.shape[1], max(len(query.is_ood) for query in found)
    canvas = np.zeros((len(found) * size, width * size, 3), dtype=np.uint8)
    for row, query in enumerate(found):
        tiles = np.concatenate(list(query.pixels_QSS3), axis=1)
        canvas[row * size : (row + 1) * size, : tiles.shape[1]] = tiles
    buffer = io.BytesIO()
    # Lossless for the tiniest: of 8 x 8 pixels every one counts. Method 0: the fastest.
    Image.fromarray(canvas).save(buffer, format="WEBP", lossless=size < 16, quality=QUALITY, method=0)
    return buffer.getvalue()
