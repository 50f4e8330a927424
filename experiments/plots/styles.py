"""How each strategy and data set is drawn: equal in every figure, whatever else is in it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Dashes = tuple[float, tuple[float, ...]] | Literal["-"]

SOLID: Dashes = "-"
DASHED: Dashes = (0.0, (5.0, 1.5))
DOTTED: Dashes = (0.0, (1.2, 1.2))
DASH_DOT: Dashes = (0.0, (5.0, 1.5, 1.2, 1.5))


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyStyle:
    """A line in a figure. Told apart by colour, and without colour by marker and dashes."""

    colour: str
    marker: str
    dashes: Dashes
    size: float = 1.0
    """Of the marker, so that all look equally large."""


# Colours after Okabe and Ito (2008), made for colour-blind readers; their yellow is too faint on white and left out.
STYLES = {
    "random": StrategyStyle(colour="#6E6E6E", marker="o", dashes=DOTTED),
    "conf": StrategyStyle(colour="#0072B2", marker="s", dashes=DASHED),
    "ll": StrategyStyle(colour="#56B4E9", marker="^", dashes=DASH_DOT),
    "coreset": StrategyStyle(colour="#CC79A7", marker="D", dashes=DASHED, size=0.85),
    "mqnet": StrategyStyle(colour="#E69F00", marker="v", dashes=DASH_DOT),
    "lfosa": StrategyStyle(colour="#009E73", marker="P", dashes=DASHED, size=1.2),
    "eoal": StrategyStyle(colour="#000000", marker="X", dashes=DASH_DOT, size=1.2),
    "vlpure": StrategyStyle(colour="#D55E00", marker="*", dashes=SOLID, size=1.7),
}

# Arms beside the plain strategies that figures draw (experiments/presets/arms.py).
ARM_STYLES = {
    "id-only": StrategyStyle(colour="#882255", marker="h", dashes=DOTTED),
    "full-data": StrategyStyle(colour="#595959", marker="_", dashes=DASHED),
    "vlpure-fixed-scale": StrategyStyle(colour="#AA4499", marker="d", dashes=DASH_DOT),
    "vlpure-no-visual": StrategyStyle(colour="#117733", marker="p", dashes=DASHED),
    "vlpure-bare": StrategyStyle(colour="#332288", marker=">", dashes=DOTTED),
}

# Data sets, where the curves of a figure are data sets; after Paul Tol's muted scheme.
DATASET_STYLES = {
    "digits": StrategyStyle(colour="#332288", marker="o", dashes=SOLID),
    "cifar10": StrategyStyle(colour="#117733", marker="s", dashes=DASHED),
    "cifar100": StrategyStyle(colour="#882255", marker="^", dashes=DASH_DOT),
    "tiny-imagenet": StrategyStyle(colour="#999933", marker="D", dashes=DOTTED, size=0.85),
}

ID_COLOUR, OOD_COLOUR = "#332288", "#CC6677"
"""Of images whose truth is shown: dark and light, so that they differ in grey as well; no strategy has them."""
ID_MARKER, OOD_MARKER = "o", "x"
REFERENCE_COLOUR = "0.35"
"""Of dashed lines that belong to no strategy."""

OTHER_COLOURS = ("#882255", "#44AA99", "#117733", "#332288", "#AA4499", "#999933")
OTHER_MARKERS = ("<", ">", "h", "p", "d", "8")
OTHER_DASHES: tuple[Dashes, ...] = (DASHED, DASH_DOT, DOTTED)


def style_of(strategy: str) -> StrategyStyle:
    """The style of a strategy or arm: fixed for those above, drawn from the name's hash for any other."""
    return STYLES.get(strategy) or ARM_STYLES.get(strategy) or _style_by_hash(strategy)


def dataset_style(dataset: str) -> StrategyStyle:
    """The style of a data set: fixed for the paper's three and the demo's, drawn from the name's hash for any other."""
    return DATASET_STYLES.get(dataset) or _style_by_hash(dataset)


def _style_by_hash(name: str) -> StrategyStyle:
    digest = hashlib.sha256(name.encode()).digest()
    return StrategyStyle(
        colour=OTHER_COLOURS[digest[0] % len(OTHER_COLOURS)],
        marker=OTHER_MARKERS[digest[1] % len(OTHER_MARKERS)],
        dashes=OTHER_DASHES[digest[2] % len(OTHER_DASHES)],
    )
