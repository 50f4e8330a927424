"""The values of Figures 7 to 11: precision and accuracy over the rounds, from the rounds of a ledger alone.

A page is one picture, with a row per data set (and quantity) and a column per ratio. `figures7to11` draws it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from experiments.plots.canvas import NothingToDraw, condition_text, dataset_label, has_no_ratios, seeds_line
from experiments.plots.curves import Curve, Quantity, cell_curves
from experiments.results.statistics import CellKey, Condition, cell_key, sorted_conditions, unique
from experiments.tables.table import mismatch_text, ood_text

if TYPE_CHECKING:
    import pandas as pd

Ratio = Literal["ood_ratio", "mismatch_ratio"]

FULL_DATA, ID_ONLY = "full-data", "id-only"
"""Arms that are references: they are in every panel of their data set and mismatch ratio, for any OOD ratio."""
NO_RATIO = -1.0
"""Value in place of the ratio of a data set that has no ratios."""
RATIO_NAMES: dict[Ratio, str] = {"ood_ratio": "OOD", "mismatch_ratio": "mismatch"}
RATIO_TEXTS: dict[Ratio, Callable[[float], str]] = {"ood_ratio": ood_text, "mismatch_ratio": mismatch_text}


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFigure:
    """The content of one of the paper's figures over rounds."""

    title: str
    quantities: tuple[Quantity, ...]
    columns: Ratio
    """The ratio that differs from column to column."""
    with_full_data: bool = False
    with_id_only: bool = False

    @property
    def pages(self) -> Ratio:
        """The ratio that is the same on a whole page."""
        return "mismatch_ratio" if self.columns == "ood_ratio" else "ood_ratio"


ROUND_FIGURES: dict[int, RoundFigure] = {
    7: RoundFigure(title="Precision of the queries", quantities=("precision",), columns="ood_ratio"),
    8: RoundFigure(title="Test accuracy", quantities=("accuracy",), columns="ood_ratio", with_full_data=True),
    9: RoundFigure(
        title="Test accuracy",
        quantities=("accuracy",),
        columns="mismatch_ratio",
        with_full_data=True,
    ),
    10: RoundFigure(
        title="Test accuracy beside that of a pool without OOD images",
        quantities=("accuracy",),
        columns="ood_ratio",
        with_full_data=True,
        with_id_only=True,
    ),
    11: RoundFigure(
        title="VLPure with and without visual similarity weights",
        quantities=("precision", "accuracy"),
        columns="ood_ratio",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One condition and one quantity."""

    condition: Condition
    quantity: Quantity
    curves: Mapping[str, Curve]
    """Arm -> its curve, references included; arms without a finished round are not in it."""
    dashed: float | None
    """Height of the dashed line: 1 - OOD ratio for precision, the full-data accuracy for accuracy; None: no line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One picture: a grid of panels with a legend."""

    name: str
    """Name of its files, without suffix."""
    title: str
    rows: tuple[tuple[Panel | None, ...], ...]
    """Rows of one length; None in place of a condition that the grid does not have."""
    column_titles: tuple[str, ...]
    notes: tuple[str, ...]
    """The missing curves and references, one sentence each."""

    @property
    def panels(self) -> list[Panel]:
        """The panels that are not None."""
        return [panel for row in self.rows for panel in row if panel is not None]

    @property
    def arms(self) -> list[str]:
        """The arms that have a curve, in order of first appearance, references last."""
        arms = unique(arm for panel in self.panels for arm in panel.curves)
        return sorted(arms, key=lambda arm: arm == ID_ONLY)

    @property
    def curve_seeds(self) -> list[int]:
        """The number of seeds of each curve."""
        return [curve.num_seeds for panel in self.panels for curve in panel.curves.values()]


def round_pages(number: int, trials: pd.DataFrame, rounds: pd.DataFrame) -> list[Page]:
    """The pages of a figure: one per value of the ratio that its columns do not show.

    `trials` has a row for each planned trial, `rounds` one for each finished round. Raises NothingToDraw if there is
    no finished round of any condition.
    """
    figure = ROUND_FIGURES[number]
    planned = {key: len(rows) for key, rows in _by_cell(trials)}
    curves = {quantity: cell_curves(rounds, quantity) for quantity in figure.quantities}
    levels = _full_data_levels(rounds) if figure.with_full_data else {}
    conditions = sorted_conditions(key for key in planned if key.arm not in (FULL_DATA, ID_ONLY))
    if not any(key.condition in conditions for of_cell in curves.values() for key in of_cell):
        raise NothingToDraw(f"figure {number}: there is no finished round to draw yet")
    pages = []
    for value in sorted({_page_ratio(figure, condition) for condition in conditions}):
        on_page = [condition for condition in conditions if _page_ratio(figure, condition) == value]
        columns = sorted({_column_ratio(figure, condition) for condition in on_page})
        rows = _rows(figure, on_page, columns, curves, levels)
        if any(panel is not None and panel.curves for row in rows for panel in row):
            ratio = RATIO_NAMES[figure.pages]
            where = (
                "one domain against all others"
                if value == NO_RATIO
                else f"{ratio} ratio {RATIO_TEXTS[figure.pages](value)}"
            )
            pages.append(
                Page(
                    name=f"figure{number}-" + ("domains" if value == NO_RATIO else f"{ratio.lower()}-{100 * value:g}"),
                    title=f"Figure {number}. {figure.title} over the rounds, {where}",
                    rows=rows,
                    column_titles=tuple(_column_title(figure, column) for column in columns),
                    notes=tuple(_notes(figure, on_page, planned, curves, levels)),
                )
            )
    return pages


def caption(page: Page, run: str) -> str:
    """The caption of a page: its content, its seeds, its missing parts and its run, in one paragraph."""
    accuracy = any(panel.quantity == "accuracy" and panel.dashed is not None for panel in page.panels)
    precision = any(panel.quantity == "precision" for panel in page.panels)
    line = seeds_line(page.curve_seeds)
    sentences = [
        page.title,
        line[0].upper() + line[1:],
        *(["Dashed, precision: 1 - OOD ratio, what uniform draws give on average"] if precision else []),
        *(["Dashed, accuracy: the classifier trained on all ID images (full-data)"] if accuracy else []),
        *([f"{ID_ONLY}: the pool without OOD images, queried by conf"] if ID_ONLY in page.arms else []),
        *page.notes,
        f"Run: {run}",
    ]
    return ". ".join(sentences) + ".\n"


def _by_cell(trials: pd.DataFrame) -> list[tuple[CellKey, pd.DataFrame]]:
    return [(cell_key(group), rows) for group, rows in trials.groupby(list(CellKey._fields), sort=False)]


def _full_data_levels(rounds: pd.DataFrame) -> dict[tuple[str, float], float]:
    """(data set, mismatch ratio) -> accuracy of training on all ID images, mean over seeds of the last round."""
    rows = rounds[rounds["arm"] == FULL_DATA]
    last = rows[rows["round"] == rows.groupby(["dataset", "mismatch_ratio", "seed"])["round"].transform("max")]
    levels = {}
    for place, of_place in last.groupby(["dataset", "mismatch_ratio"]):
        assert isinstance(place, tuple)
        dataset, mismatch_ratio = place
        levels[str(dataset), float(str(mismatch_ratio))] = float(of_place["accuracy"].mean())
    return levels


def _page_ratio(figure: RoundFigure, condition: Condition) -> float:
    """The ratio with one page per value; `NO_RATIO` for a data set that has no ratios."""
    return NO_RATIO if has_no_ratios(condition.dataset) else float(getattr(condition, figure.pages))


def _column_ratio(figure: RoundFigure, condition: Condition) -> float:
    return NO_RATIO if has_no_ratios(condition.dataset) else float(getattr(condition, figure.columns))


def _column_title(figure: RoundFigure, ratio: float) -> str:
    return "" if ratio == NO_RATIO else f"{RATIO_NAMES[figure.columns]} {RATIO_TEXTS[figure.columns](ratio)}"


def _rows(
    figure: RoundFigure,
    conditions: Sequence[Condition],
    columns: Sequence[float],
    curves: Mapping[Quantity, Mapping[CellKey, Curve]],
    levels: Mapping[tuple[str, float], float],
) -> tuple[tuple[Panel | None, ...], ...]:
    """The panels, with a row per data set and quantity and a column per value of the figure's ratio."""
    rows: list[tuple[Panel | None, ...]] = []
    for dataset in unique(condition.dataset for condition in conditions):
        at = {_column_ratio(figure, each): each for each in conditions if each.dataset == dataset}
        rows += [
            tuple(
                _panel(figure, at[column], quantity, curves[quantity], levels) if column in at else None
                for column in columns
            )
            for quantity in figure.quantities
        ]
    return tuple(rows)


def _panel(
    figure: RoundFigure,
    condition: Condition,
    quantity: Quantity,
    curves: Mapping[CellKey, Curve],
    levels: Mapping[tuple[str, float], float],
) -> Panel:
    own = {key.arm: curve for key, curve in curves.items() if key.condition == condition and curve.rounds}
    shown = {arm: curve for arm, curve in own.items() if arm not in (FULL_DATA, ID_ONLY)}
    if figure.with_id_only:
        of_place = [each for key, each in curves.items() if key.arm == ID_ONLY and key[:2] == condition[:2]]
        shown |= {arm: curve for arm, curve in zip([ID_ONLY], of_place, strict=False) if curve.rounds}
    dashed = levels.get(condition[:2])
    if quantity == "precision":
        dashed = None if has_no_ratios(condition.dataset) else condition.uniform_precision
    return Panel(condition=condition, quantity=quantity, curves=shown, dashed=dashed)


def _notes(
    figure: RoundFigure,
    conditions: Sequence[Condition],
    planned: Mapping[CellKey, int],
    curves: Mapping[Quantity, Mapping[CellKey, Curve]],
    levels: Mapping[tuple[str, float], float],
) -> list[str]:
    """Sentences that name missing curves, curves that lack seeds, and references that are not in the run."""
    of_cell = curves[figure.quantities[-1]]
    places = list(dict.fromkeys(condition[:2] for condition in conditions))
    references = (*[FULL_DATA] * figure.with_full_data, *[ID_ONLY] * figure.with_id_only)
    notes = []
    for key, num_planned in planned.items():
        is_reference = key.arm in (FULL_DATA, ID_ONLY)
        if key.arm not in references if is_reference else key.condition not in conditions:
            continue
        curve, where = of_cell.get(key), f"{condition_text(key.condition)}, {key.arm}"
        if curve is None or not curve.rounds:
            # A reference that is not there at all is named below, planned or not.
            notes += [] if is_reference else [f"Missing: {where} (0 of {num_planned} seeds)"]
        elif curve.num_seeds < num_planned and key[:2] in places:
            notes.append(f"Incomplete: {where} ({curve.num_seeds} of {num_planned} seeds)")
    if figure.with_full_data:
        notes += _missing_references(FULL_DATA, "no dashed line", [each for each in places if each not in levels])
    if figure.with_id_only:
        there = {key[:2] for key, curve in of_cell.items() if key.arm == ID_ONLY and curve.rounds}
        notes += _missing_references(ID_ONLY, "no such curve", [each for each in places if each not in there])
    return notes


def _missing_references(arm: str, consequence: str, places: Sequence[tuple[str, float]]) -> list[str]:
    if not places:
        return []
    named = "; ".join(
        dataset_label(dataset) + ("" if has_no_ratios(dataset) else f" mismatch {mismatch_text(mismatch)}")
        for dataset, mismatch in places
    )
    return [f"Missing: {arm}, so {consequence} for {named}"]
