"""Looking names up, with an answer that helps when one is unknown."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """The error to raise for a name that is not in `known`: it lists the known ones and suggests the nearest."""
    known = list(known)
    near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=1)
    nearest = next((k for k in known if near and k.lower() == near[0]), None)
    hint = f" (did you mean '{nearest}'?)" if nearest else ""
    return ValueError(f"unknown {kind} '{name}'{hint}; known: {', '.join(known)}")
