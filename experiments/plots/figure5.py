"""Figure 5: the purity step on single images; values and picture.

The values come from `purity_study`. Shapes: H and W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from experiments.plots.canvas import (
    ID_COLOUR,
    OOD_COLOUR,
    PAGE_WIDTH,
    PRINT_FONT,
    PRINT_SMALL,
    condition_text,
    new_figure,
)
from experiments.results.statistics import Condition

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CARD_HEIGHT, CARD_GAP, HEAD_HEIGHT = 1.08, 0.14, 0.22
"""Heights in inches of an example, of the gap between two, and of the space above the first."""
IMAGE_SIDE = 0.86
WRONG_COLOUR = "#A01030"
NAME_SHARE = 0.35
"""Share of the width next to an image that the class names take."""
LONGEST_NAME = 14
"""Most letters of a class name next to the bars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTerm:
    """The purity step's term of an image and one ID class."""

    name: str
    prob: float
    """p_k, Eq. 2."""
    not_q: float
    """1 - q_k, Eq. 3."""
    weight: float | None
    """w_k, Eq. 6; None without visual similarity weights."""

    @property
    def product(self) -> float:
        """The class's term of Eq. 4 or 7."""
        return self.prob * self.not_q * (1.0 if self.weight is None else self.weight)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PurityExample:
    """One unlabelled image with the purity step's terms and decision, and the truth."""

    pixels_HW3: NDArray[np.uint8]
    class_name: str
    """Name of the image's true class, ID or OOD."""
    is_id: bool
    judged_id: bool
    id_score: float
    ood_score: float
    terms: tuple[ClassTerm, ...]
    """Terms of the ID classes with the largest products, largest first."""

    @property
    def is_right(self) -> bool:
        """Whether the decision is the truth."""
        return self.is_id == self.judged_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSheet:
    """Examples of one trial before its first query."""

    condition: Condition
    seed: int
    logit_scale: float
    is_tuned: bool
    num_classes: int
    """Number of ID classes, K."""
    counts: Mapping[tuple[bool, bool], int]
    """(is ID, judged ID) -> number of unlabelled images."""
    examples: Sequence[PurityExample]


def example_caption(sheet: ExampleSheet, run: str) -> str:
    """The caption of Figure 5, in one paragraph."""
    tuned = "tuned on the labels" if sheet.is_tuned else "not tuned"
    counts = ", ".join(
        f"{_truth(is_id)} judged {_truth(judged_id)} {sheet.counts[is_id, judged_id]}"
        for is_id in (True, False)
        for judged_id in (True, False)
    )
    return (
        f"Figure 5. The purity step before the first query, {condition_text(sheet.condition)}, seed {sheet.seed}, "
        f"logit scale {sheet.logit_scale:g} ({tuned}). Left ID images, right OOD images; the truth comes from the "
        f"oracle's side, which the strategy does not see. Of the {sheet.num_classes} ID classes, those with the "
        "largest products: p_k (Eq. 2), 1 - q_k (Eq. 3), visual weight w_k (Eq. 6), product (Eq. 7); bars show the "
        "same shares. The ID score is the largest product, the OOD score (1 - sum of p_k (1 - q_k)) / K, not divided "
        "without visual weights. Of each kind of decision, the images at one and two thirds of the order by "
        f"ID minus OOD score: neither the clearest nor the closest. All unlabelled images: {counts}. Run: {run}.\n"
    )


def draw_examples(sheet: ExampleSheet) -> Figure:
    """Draw Figure 5: one card per image, ID images left and OOD images right, right decisions above wrong ones."""
    columns = [
        sorted((e for e in sheet.examples if e.is_id == is_id), key=lambda example: not example.is_right)
        for is_id in (True, False)
    ]
    num_rows = max(1, *map(len, columns))
    height = HEAD_HEIGHT + num_rows * (CARD_HEIGHT + CARD_GAP)
    figure = new_figure(PAGE_WIDTH, height, arranged=False)
    width = PAGE_WIDTH / 2
    for position, (heading, examples) in enumerate(zip(("ID images", "OOD images"), columns, strict=True)):
        left = position * width
        figure.text((left + CARD_GAP) / PAGE_WIDTH, 1 - 0.16 / height, heading, fontsize=PRINT_FONT, weight="bold")
        for row, example in enumerate(examples):
            bottom = height - HEAD_HEIGHT - (row + 1) * (CARD_HEIGHT + CARD_GAP) + CARD_GAP / 2
            _draw_card(figure, example, left + CARD_GAP, bottom, width - 2 * CARD_GAP)
    return figure


def _draw_card(figure: Figure, example: PurityExample, left: float, bottom: float, width: float) -> None:
    """Draw one example: the image, its true class, its decision and the terms of its best classes; inches."""
    full_width, full_height = figure.get_size_inches()

    def axes_at(x: float, y: float, w: float, h: float) -> Axes:
        axes = figure.add_axes((x / full_width, y / full_height, w / full_width, h / full_height))
        axes.set_axis_off()
        return axes

    image = axes_at(left, bottom, IMAGE_SIDE, IMAGE_SIDE)
    image.imshow(example.pixels_HW3, interpolation="nearest")
    title = axes_at(left, bottom + IMAGE_SIDE + 0.04, width, CARD_HEIGHT - IMAGE_SIDE - 0.04)
    verdict = f"judged {_truth(example.judged_id)}: {'right' if example.is_right else 'wrong'}"
    title.text(0, 0.2, _short(example.class_name, 24), fontsize=PRINT_FONT)
    colour = ID_COLOUR if example.judged_id else OOD_COLOUR
    title.text(
        1, 0.2, verdict, ha="right", fontsize=PRINT_FONT, color="black" if example.is_right else WRONG_COLOUR,
        weight="normal" if example.is_right else "bold",
    )  # fmt: skip
    table = axes_at(left + IMAGE_SIDE + 0.1, bottom, width - IMAGE_SIDE - 0.1, IMAGE_SIDE)
    table.set_xlim(0, 1)
    _draw_terms(table, example, colour)


def _draw_terms(table: Axes, example: PurityExample, colour: str) -> None:
    """Draw one line per class, with its shares as numbers over grey bars, and below them the two scores."""
    with_weight = any(term.weight is not None for term in example.terms)
    heads = ["$p_k$", "$1-q_k$", *(["$w_k$"] if with_weight else []), "product"]
    num_lines = len(example.terms) + 2
    table.set_ylim(num_lines, 0)
    step = (1 - NAME_SHARE) / len(heads)
    for column, head in enumerate(heads):
        centre = NAME_SHARE + (column + 0.5) * step
        table.text(centre, 0.5, head, ha="center", va="center", fontsize=PRINT_SMALL)
    for line, term in enumerate(example.terms, start=1):
        table.text(0, line + 0.45, _short(term.name, LONGEST_NAME), va="center", fontsize=PRINT_SMALL)
        shares = [term.prob, term.not_q, *([] if term.weight is None else [term.weight]), term.product]
        for column, share in enumerate(shares):
            start = NAME_SHARE + (column + 0.08) * step
            centre = NAME_SHARE + (column + 0.5) * step
            table.text(centre, line + 0.45, f"{share:.3f}", ha="center", va="center", fontsize=PRINT_SMALL)
            if column < len(shares) - 1:  # products are on another scale
                table.barh(line + 0.9, 0.84 * step, left=start, height=0.12, color="0.9")
                table.barh(line + 0.9, 0.84 * step * share, left=start, height=0.12, color="0.35")
    sign = ">" if example.judged_id else "<" if example.id_score < example.ood_score else "="
    table.text(
        1, num_lines - 0.4, f"ID score {example.id_score:.3f} {sign} OOD score {example.ood_score:.3f}",
        ha="right", va="center", fontsize=PRINT_SMALL, color=colour, weight="bold",
    )  # fmt: skip


def _truth(is_id: bool) -> str:
    return "ID" if is_id else "OOD"


def _short(name: str, most: int) -> str:
    """The name, cut to at most `most` letters."""
    return name if len(name) <= most else f"{name[: most - 1]}…"
