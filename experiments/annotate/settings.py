"""How a folder is ranked: the settings of `suggest.py`, kept in its state for later calls."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from data.files import write_text_atomically
from data.sealed import read_sealed_json, seal
from experiments.annotate.answers.state import State
from models.clipn.source import DEFAULT_MODEL, ClipnSource

PUBLISHED = "datacomp_xl_s13b_b90k"
"""Weights of a plain CLIP that are used if no others are named."""
SETTINGS = "settings.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a folder is ranked; kept in its state, so that a later call need not repeat them."""

    checkpoint: str | None = None
    """A CLIPN's weights."""
    pretrained: str | None = None
    """A plain CLIP's weights: an open_clip tag or a file."""
    model: str | None = None
    """Architecture of either."""
    features: str | None = None
    """A .npy file with features of one's own, in place of weights."""
    purity: str | None = None
    strategy: str | None = None
    count: int | None = None
    """Suggestions per round."""
    drawn: int | None = None
    """How many of them are drawn at random."""

    def over(self, kept: Settings) -> Settings:
        """These settings, with those of an earlier call where nothing is said; weights count as one setting."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        weights = ("checkpoint", "pretrained", "features")
        says_weights = any(given[name] is not None for name in weights)
        names = [name for name in given if given[name] is None and not (says_weights and name in (*weights, "model"))]
        return Settings(**{**given, **{name: getattr(kept, name) for name in names}})

    @property
    def source(self) -> ClipnSource:
        """The weights. Raises ValueError if both kinds are named."""
        if self.checkpoint is not None and self.pretrained is not None:
            raise ValueError("--clipn-checkpoint and --clip-pretrained are both given; give one")
        model = self.model or DEFAULT_MODEL
        if self.checkpoint is not None:
            return ClipnSource(checkpoint=Path(self.checkpoint), model=model)
        return ClipnSource(pretrained=self.pretrained or PUBLISHED, model=model)

    @property
    def weights_in_words(self) -> str:
        """Where features come from."""
        if self.features is not None:
            return f"rows of {self.features}"
        return f"{Path(self.model or DEFAULT_MODEL).name} {Path(self.checkpoint or self.pretrained or PUBLISHED).name}"


def default_drawn(count: int) -> int:
    """How many of a round's suggestions are drawn at random if nothing is said: 1 in 25, but none of fewer than 10."""
    return max(1, round(count / 25)) if count >= 10 else 0


def read_settings(state: State) -> Settings:
    """Settings of the last call; the defaults if there was none."""
    path = state.directory / SETTINGS
    if not path.exists():
        return Settings()
    try:
        content, was_sealed = read_sealed_json(path, SETTINGS)
        if not was_sealed:
            raise ValueError("it has no checksum")
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}; remove it and give the settings again") from None
    return Settings(**content)


def write_settings(state: State, settings: Settings) -> None:
    """Keep the settings for the next call."""
    write_text_atomically(state.directory / SETTINGS, json.dumps(seal(asdict(settings), SETTINGS)) + "\n")
