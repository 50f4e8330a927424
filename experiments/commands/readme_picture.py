"""Draws docs/demo.png, the README's picture, from the records of the demo: `make demo && make picture`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from data.files import write_atomically
from experiments.plots.canvas import (
    curve_handle,
    draw_curve,
    draw_reference,
    dress_panel,
    file_bytes,
    new_figure,
    style_of,
)
from experiments.plots.curves import Quantity, cell_curves
from experiments.results.frames import rounds_frame
from experiments.results.from_ledgers import trials_of_ledgers
from strategies.registry import STRATEGIES

if TYPE_CHECKING:
    import pandas as pd

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "demo.png"
DPI = 110
"""So that the picture is about 40 kB and as wide as a README's column."""
PANELS: tuple[tuple[Quantity, str], ...] = (
    ("precision", "wanted images among those labelled"),
    ("accuracy", "test accuracy"),
)


def draw_picture(rounds: pd.DataFrame) -> bytes:
    """A PNG of two panels side by side: precision and accuracy of every arm over the rounds of a single condition."""
    figure = new_figure(7.6, 3.0)
    panels = figure.subplots(1, len(PANELS))
    handles = {}
    for panel, (quantity, title) in zip(panels, PANELS, strict=True):
        for key, curve in cell_curves(rounds, quantity).items():
            style = style_of(key.arm)
            draw_curve(panel, curve.rounds, curve.estimates, style, line_width=1.6, marker_size=5.5, band_alpha=0.08)
            name = STRATEGIES[key.arm].paper_name if key.arm in STRATEGIES else key.arm
            handles[name] = curve_handle(name, style, line_width=1.6, marker_size=5.5)
        dress_panel(panel, tick_size=8.0)
        panel.set_xticks(sorted(rounds["round"].unique()))
        panel.set_title(title, fontsize=9.0)
        panel.set_xlabel("round", fontsize=8.0)
    draw_reference(panels[0], 1 - float(rounds["ood_ratio"].iloc[0]))
    entries = list(handles.values())
    figure.legend(handles=entries, loc="outside upper center", ncols=len(entries), frameon=False, fontsize=8.5)
    return file_bytes(figure, "png", dpi=DPI)


def main() -> int:
    """Draw from the run folder that is named, or from runs/demo."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/demo")
    content = draw_picture(rounds_frame(trials_of_ledgers([folder]).planned))

    def write(file: BinaryIO) -> None:
        file.write(content)

    write_atomically(PICTURE, write)
    print(f"{PICTURE} ({len(content) // 1000} kB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
