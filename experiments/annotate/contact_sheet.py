"""`round-N/index.html`: a round's suggestions as thumbnails with reasons, and what was left out and why, in one file.

It shows whether the model understands the classes before a single image is labelled.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from data.console import Progress, StepReporter
from data.decoding import decode_upright
from data.files import shown, write_text_atomically
from experiments.annotate.answers.state import State, Suggestion

STYLE, TEMPLATE = (Path(__file__).with_name(f"contact_sheet.{suffix}") for suffix in ("css", "html.j2"))
SIDE = 240
"""Longer side of a thumbnail in pixels: about 10 kB, so that a page of 100 is a megabyte."""
MOST_COPIES, MOST_DAMAGED = 24, 50
"""Entries that are shown of what can be thousands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One picture of the page."""

    name: str
    picture: str | None
    """As the address of a picture inside the page; None if the file cannot be read any more."""
    caption: str
    figures: str = ""
    is_border: bool = False


def write_contact_sheet(state: State, number: int, *, progress: Progress) -> Path:
    """Write the page of a round. Returns its path. Raises ValueError for an unknown round, OSError for a full disk."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    suggestions, unwanted, listing = state.suggestions(number), state.unwanted(number), state.listing()
    copies = sorted(listing.copy_of.items())
    report = StepReporter("contact sheet", len(suggestions) + len(unwanted), progress)
    tiles = []
    for done, each in enumerate((*suggestions, *unwanted), start=1):
        tiles.append(_tile(state, each))
        report.done(done)
    style = STYLE.read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    text = environment.get_template(TEMPLATE.name).render(
        folder=shown(str(state.folder)),
        number=number,
        classes=state.classes,
        expected=state.expected(number),
        settings=_settings(state.settings(number)),
        suggested=tiles[: len(suggestions)],
        unwanted=tiles[len(suggestions) :],
        copies=[_copy(state, copy, of) for copy, of in copies[:MOST_COPIES]],
        num_copies=len(copies),
        damaged=[(shown(name), shown(reason)) for name, reason in sorted(listing.damaged.items())[:MOST_DAMAGED]],
        num_damaged=len(listing.damaged),
        policy=f"default-src 'none'; img-src data:; style-src 'sha256-{_hash(style)}'; base-uri 'none'; "
        "form-action 'none'",
        style=Markup(style),  # our own file
    )
    path = state.round_folder(number) / "index.html"
    write_text_atomically(path, text)
    return path


def _hash(text: str) -> str:
    return base64.b64encode(sha256(text.encode()).digest()).decode()


def _tile(state: State, s: Suggestion) -> Tile:
    return Tile(
        name=shown(s.image),
        picture=_picture(state.folder / s.image),
        caption=shown(s.reason),
        figures=f"wanted {s.wanted:.0%}, {s.predicted} {s.predicted_probability:.0%}"
        + (f", near-copies: {len(s.copies)}" if s.copies else ""),
        is_border=s.border,
    )


def _copy(state: State, copy: str, of: str) -> Tile:
    return Tile(name=shown(copy), picture=_picture(state.folder / copy), caption=f"looks like {shown(of)}")


def _picture(path: Path) -> str | None:
    content = io.BytesIO()
    try:
        decode_upright(path, SIDE).save(content, "JPEG", quality=80)
    except ValueError:  # removed or damaged since the features were made: the page says so, the rest is shown
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _settings(settings: dict[str, Any]) -> Sequence[tuple[str, str]]:
    return [(shown(name), shown(str(value))) for name, value in settings.items() if value is not None]
