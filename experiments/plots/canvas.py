"""The parts that all pictures share: canvas, colours and markers of strategies, curves with bands, files.

Everything is drawn without pyplot, which would open windows and keep global state.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data.registry import FOLDER_PREFIX, split_protocol_of
from experiments.results.statistics import Condition, Estimate
from experiments.tables.table import ratios_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


FileFormat = Literal["png", "pdf"]
FILE_FORMATS: tuple[FileFormat, ...] = ("png", "pdf")

COLUMN_WIDTH, PAGE_WIDTH = 3.4, 6.9
"""Width in inches of one column, and of both columns, of a printed page."""
PRINT_DPI, PAGE_DPI = 300, 150
"""Dots per inch of a figure for print, and of one in a report's page."""
PRINT_FONT, PRINT_SMALL = 8.0, 7.0
"""Font sizes in points of titles and labels, and of ticks and notes, in a figure for print."""
FEWEST_FOR_BAND = 3
"""Fewest seeds with which an interval is drawn: with two, t is 12.7, and the band fills the panel without meaning."""
REFERENCE_DASHES = (0, (4, 3))


class NothingToDraw(ValueError):
    """Raised for a figure for which a run holds no data yet."""


def new_figure(width: float, height: float, *, arranged: bool = True) -> Figure:
    """An empty figure of this size in inches; `arranged`: its parts are moved so that they do not overlap."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained" if arranged else None)
    FigureCanvasAgg(figure)
    return figure


def file_bytes(figure: Figure, file_format: FileFormat, *, dpi: int = PRINT_DPI) -> bytes:
    """The figure as a file; equal figures give equal bytes. Text in a PDF stays text."""
    from matplotlib import rc_context

    # No version and no date, which would make equal figures differ.
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}}[file_format]
    buffer = io.BytesIO()
    # TrueType, so that text in a PDF stays text.
    with rc_context({"pdf.fonttype": 42}):
        figure.savefig(buffer, format=file_format, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def draw_curve(
    panel: Axes,
    rounds: Sequence[float],
    estimates: Sequence[Estimate],
    style: StrategyStyle,
    *,
    line_width: float,
    marker_size: float,
    band_alpha: float,
    order: int = 0,
) -> None:
    """Draw a line through the means, and from `FEWEST_FOR_BAND` seeds up a band of their intervals, cut at 0 and 1.

    `order` puts later curves above earlier ones.
    """
    panel.plot(
        rounds,
        [value.mean for value in estimates],
        color=style.colour,
        marker=style.marker,
        linestyle=style.dashes,
        linewidth=line_width,
        markersize=marker_size * style.size,
        markeredgecolor="white",
        markeredgewidth=0.4,
        zorder=3 + order / 100,
    )
    if estimates and min(value.num_seeds for value in estimates) >= FEWEST_FOR_BAND:
        low = [max(0.0, value.mean - value.half_width) for value in estimates]
        high = [min(1.0, value.mean + value.half_width) for value in estimates]
        panel.fill_between(rounds, low, high, color=style.colour, alpha=band_alpha, linewidth=0, zorder=2)


def band_alpha(num_curves: int) -> float:
    """An opacity so low that overlapping bands of so many curves do not hide the lines."""
    return max(0.09, min(0.14, 0.6 / max(1, num_curves)))


def curve_handle(label: str, style: StrategyStyle, *, line_width: float, marker_size: float) -> Line2D:
    """The legend entry of a curve."""
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        color=style.colour,
        marker=style.marker,
        markersize=marker_size * style.size,
        linestyle=style.dashes,
        linewidth=line_width,
        label=label,
    )


def draw_reference(panel: Axes, value: float) -> None:
    """Draw a dashed horizontal line that belongs to no strategy."""
    panel.axhline(value, color=REFERENCE_COLOUR, linestyle=REFERENCE_DASHES, linewidth=1.0, zorder=1)


def reference_handle(label: str) -> Line2D:
    """The legend entry of a reference line."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=REFERENCE_COLOUR, linestyle=REFERENCE_DASHES, linewidth=1.0, label=label)


def dress_panel(panel: Axes, *, tick_size: float, percent: bool = True) -> None:
    """Give a panel a faint grid behind the data, no frame at the top and right, and shares in percent."""
    if percent:
        panel.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")  # exact: 97.5% was once drawn as 98%
    panel.tick_params(labelsize=tick_size)
    panel.grid(True, color="0.9", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def seeds_line(num_seeds: Iterable[int]) -> str:
    """The explanation of lines and bands, from the number of seeds of each curve."""
    counts = sorted(set(num_seeds))
    seeds = f"{counts[0]} seed{'s' * (counts[0] != 1)}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    if counts[-1] == 1:
        return "lines: one seed, no interval"
    if counts[-1] < FEWEST_FOR_BAND:
        return f"lines: mean over {seeds}; no bands: drawn from {FEWEST_FOR_BAND} seeds up"
    fewer = f", from {FEWEST_FOR_BAND} seeds up" if counts[0] < FEWEST_FOR_BAND else ""
    return f"lines: mean over {seeds}; bands: 95 % t-interval of the mean{fewer}"


def has_no_ratios(dataset: str) -> bool:
    """Whether the data set is split by domains, so that the ratios of a condition do not apply to it."""
    # With named ID classes, the label of a condition goes on after the data set's name.
    return split_protocol_of(dataset.partition(" (")[0]) == "domain"


def dataset_label(dataset: str) -> str:
    """A data set's name in a picture: of a folder its last part."""
    return Path(dataset.removeprefix(FOLDER_PREFIX)).name if dataset.startswith(FOLDER_PREFIX) else dataset


def condition_text(condition: Condition) -> str:
    """A condition as text."""
    dataset = dataset_label(condition.dataset)
    if has_no_ratios(condition.dataset):
        return f"{dataset} (one domain against all others)"
    return f"{dataset} {ratios_text(condition)}"


Dashes = tuple[float, tuple[float, ...]] | Literal["-"]

SOLID: Dashes = "-"
DASHED: Dashes = (0.0, (5.0, 1.5))
DOTTED: Dashes = (0.0, (1.2, 1.2))
DASH_DOT: Dashes = (0.0, (5.0, 1.5, 1.2, 1.5))


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyStyle:
    """The style of a line, which differs from others in colour, and without colour in marker and dashes."""

    colour: str
    marker: str
    dashes: Dashes
    size: float = 1.0
    """Scale of the marker, so that all markers look equally large."""


# Colours after Okabe and Ito (2008), made for colour-blind readers; their yellow is omitted: it is too faint on white.
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

# Arms that figures draw in addition to the plain strategies (experiments/presets/__init__.py).
ARM_STYLES = {
    "id-only": StrategyStyle(colour="#882255", marker="h", dashes=DOTTED),
    "full-data": StrategyStyle(colour="#595959", marker="_", dashes=DASHED),
    "vlpure-fixed-scale": StrategyStyle(colour="#AA4499", marker="d", dashes=DASH_DOT),
    "vlpure-no-visual": StrategyStyle(colour="#117733", marker="p", dashes=DASHED),
    "vlpure-bare": StrategyStyle(colour="#332288", marker=">", dashes=DOTTED),
}

# Data sets, for figures whose curves are data sets; after Paul Tol's muted scheme.
DATASET_STYLES = {
    "digits": StrategyStyle(colour="#332288", marker="o", dashes=SOLID),
    "cifar10": StrategyStyle(colour="#117733", marker="s", dashes=DASHED),
    "cifar100": StrategyStyle(colour="#882255", marker="^", dashes=DASH_DOT),
    "tiny-imagenet": StrategyStyle(colour="#999933", marker="D", dashes=DOTTED, size=0.85),
}

ID_COLOUR, OOD_COLOUR = "#332288", "#CC6677"
"""Colours of images whose truth is shown: dark and light, so that they differ in grey too; no strategy has them."""
ID_MARKER, OOD_MARKER = "o", "x"
REFERENCE_COLOUR = "0.35"
"""Colour of dashed lines that belong to no strategy."""

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
