"""Small multiples of precision and accuracy over rounds, as SVG in the page: sharp at any size, one column on a phone.

Matplotlib's picture of 36 conditions took ten CPU seconds and 4 MB of the page, and shrank to nothing on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.plots.canvas import FEWEST_FOR_BAND, StrategyStyle, condition_text, seeds_line, style_of
from experiments.plots.curves import Curve, Quantity, cell_curves
from experiments.results.findings import strategy_name
from experiments.results.statistics import CellKey, sorted_conditions, unique

if TYPE_CHECKING:
    import pandas as pd

TITLES: dict[Quantity, str] = {"precision": "precision of the queries", "accuracy": "test accuracy"}
LEFT, RIGHT, TOP, BOTTOM = 36, 8, 8, 22
"""Room around a panel for its labels, in its own units: one is a pixel if the panel is not enlarged."""
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25)
"""Distances of the lines of the grid."""
MOST_LINES = 6
SHAPES = {
    "o": "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "s": "M-2.7-2.7h5.4v5.4h-5.4z",
    "D": "M0-3.6 3.6 0 0 3.6-3.6 0z",
    "^": "M0-3.6 3.4 2.6h-6.8z",
    "v": "M0 3.6 3.4-2.6h-6.8z",
    "<": "M-3.6 0 2.6-3.4v6.8z",
    ">": "M3.6 0-2.6-3.4v6.8z",
    "P": "M-1.2-3.6h2.4v2.4h2.4v2.4h-2.4v2.4h-2.4v-2.4h-2.4v-2.4h2.4z",
    "X": "M-3.4-1.8-1.8-3.4 0-1.6 1.8-3.4 3.4-1.8 1.6 0 3.4 1.8 1.8 3.4 0 1.6-1.8 3.4-3.4 1.8-1.6 0z",
    "*": "M0-5 1.3-1.7 4.8-1.5 2.1.7 2.9 4 0 2.1-2.9 4-2.1.7-4.8-1.5-1.3-1.7z",
}
"""Marker, as Matplotlib names it -> outline around the origin; any other is a circle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiples:
    """The parts of the picture, as SVG elements without a text that a user wrote."""

    symbols: str
    """Definitions of the markers, once in a page."""
    legend: tuple[tuple[str, str], ...]
    """Name of a strategy, and a sample of its line."""
    note: str
    """What lines and bands are."""
    figures: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    """Condition in words, and its panels: title and SVG of each."""


def draw_multiples(rounds: pd.DataFrame) -> Multiples | None:
    """The picture of every cell of the frame `rounds`; None if it is empty."""
    if rounds.empty:
        return None
    curves = {quantity: cell_curves(rounds, quantity) for quantity in TITLES}
    cells = curves["accuracy"]
    conditions = sorted_conditions(cells)
    # A single condition's two panels share the page's width: drawn wide, so that their texts are not enlarged.
    width, height = (440, 210) if len(conditions) == 1 else (310, 170)
    ranges = {each.dataset: _range(curves["accuracy"], each.dataset) for each in conditions}
    markers = {name: f"mark-{number}" for number, name in enumerate(unique(key.arm for key in cells))}
    figures = []
    for condition in conditions:
        panels = []
        for quantity, title in TITLES.items():
            own = {key.arm: curve for key, curve in curves[quantity].items() if key.condition == condition}
            frame = _Frame(
                width=width,
                height=height,
                low=0.0 if quantity == "precision" else ranges[condition.dataset][0],
                high=1.0 if quantity == "precision" else ranges[condition.dataset][1],
                last=max(1, *(number for curve in own.values() for number in (*curve.rounds, 1))),
            )
            uniform = condition.uniform_precision
            level = None if quantity != "precision" or math.isnan(uniform) else uniform
            panels.append((title, _panel(frame, own, markers, level)))
        figures.append((condition_text(condition), tuple(panels)))
    return Multiples(
        symbols="".join(_symbol(marker, style_of(name)) for name, marker in markers.items()),
        legend=tuple((strategy_name(name), _sample(style_of(name), marker)) for name, marker in markers.items()),
        note=f"{seeds_line(each.num_seeds for each in cells.values())}; dashed: 1 - OOD ratio, what uniform draws give",
        figures=tuple(figures),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """Size and axes of a panel."""

    width: int
    height: int
    low: float
    high: float
    last: int
    """The last round."""

    def x(self, round_number: float) -> float:
        return LEFT + round_number / self.last * (self.width - LEFT - RIGHT)

    def y(self, share: float) -> float:
        inside = min(self.high, max(self.low, share))
        return TOP + (self.high - inside) / (self.high - self.low) * (self.height - TOP - BOTTOM)

    def points(self, pairs: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(number):.1f},{self.y(share):.1f}" for number, share in pairs)


def _panel(frame: _Frame, curves: Mapping[str, Curve], markers: Mapping[str, str], level: float | None) -> str:
    parts = [*_axes(frame)]
    if level is not None:
        parts.append(f'<path class="level" d="M{LEFT} {frame.y(level):.1f}H{frame.width - RIGHT}"/>')
    parts += [_band(frame, curve, style_of(name)) for name, curve in curves.items()]
    parts += [_line(frame, curve, style_of(name), markers[name]) for name, curve in curves.items()]
    return f'<svg viewBox="0 0 {frame.width} {frame.height}" aria-hidden="true">{"".join(parts)}</svg>'


def _axes(frame: _Frame) -> list[str]:
    """The lines of the grid with percentages, and the rounds below."""
    step = next((each for each in STEPS if (frame.high - frame.low) / each <= MOST_LINES), STEPS[-1])
    first, last = round(frame.low / step + 0.499), int(frame.high / step + 1e-9)
    right, below = frame.width - RIGHT, frame.height - 7
    parts = []
    for number in range(first, last + 1):
        y = frame.y(number * step)
        parts.append(
            f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>'
            f'<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{100 * number * step:.0f}%</text>'
        )
    every = -(-(frame.last + 1) // 11)
    parts += [
        f'<text x="{frame.x(number):.1f}" y="{below}" text-anchor="middle">{number}</text>'
        for number in range(0, frame.last + 1, every)
    ]
    return parts


def _line(frame: _Frame, curve: Curve, style: StrategyStyle, marker: str) -> str:
    points = frame.points((number, value.mean) for number, value in zip(curve.rounds, curve.estimates, strict=True))
    marks = f'marker-start="url(#{marker})" marker-mid="url(#{marker})" marker-end="url(#{marker})"'
    return f'<polyline class="curve" points="{points}" stroke="{style.colour}"{_dashes(style)} {marks}/>'


def _band(frame: _Frame, curve: Curve, style: StrategyStyle) -> str:
    """The intervals of a curve; nothing for too few seeds."""
    if curve.num_seeds < FEWEST_FOR_BAND or len(curve.rounds) < 2:
        return ""
    both = list(zip(curve.rounds, curve.estimates, strict=True))
    above = [(number, value.mean + value.half_width) for number, value in both]
    below = [(number, value.mean - value.half_width) for number, value in reversed(both)]
    return f'<polygon class="band" points="{frame.points([*above, *below])}" fill="{style.colour}"/>'


def _symbol(marker: str, style: StrategyStyle) -> str:
    shape = SHAPES.get(style.marker, SHAPES["o"])
    return (
        f'<marker id="{marker}" viewBox="-6 -6 12 12" markerWidth="12" markerHeight="12" '
        f'markerUnits="userSpaceOnUse"><path d="{shape}" fill="{style.colour}" stroke="#fff" stroke-width=".5"/>'
        "</marker>"
    )


def _sample(style: StrategyStyle, marker: str) -> str:
    return (
        f'<svg viewBox="0 0 44 14" aria-hidden="true"><polyline class="curve" points="2,7 22,7 42,7" '
        f'stroke="{style.colour}"{_dashes(style)} marker-mid="url(#{marker})"/></svg>'
    )


def _dashes(style: StrategyStyle) -> str:
    if style.dashes == "-":
        return ""
    return f' stroke-dasharray="{" ".join(f"{1.6 * length:g}" for length in style.dashes[1])}"'


def _range(curves: Mapping[CellKey, Curve], dataset: str) -> tuple[float, float]:
    """Lowest and highest share that panels of a data set show, the same for all: its means with room, and the bands
    as far as they fit."""
    means = [value.mean for key, curve in curves.items() if key.dataset == dataset for value in curve.estimates]
    room = max(0.01, 0.08 * (max(means) - min(means)))
    return max(0.0, min(means) - room), min(1.0, max(means) + room)
