"""The trials of each figure: those that it draws, and those whose data it uses without running them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from data.console import unknown_name
from experiments.plots.canvas import has_no_ratios
from experiments.plots.rounds import FULL_DATA, ID_ONLY
from orchestrator.settings.grid import ArmTrial, GridConfig, Nested

FIGURES = (5, 6, 7, 8, 9, 10, 11, 12)
PURITY_FIGURES = (5, 6)
"""The figures that need no trial to be run: initial labels, pool and CLIPN's features are enough."""
QUERY_MAP_FIGURE = 12
Embedding = Literal["classifier", "clipn"]
"""The model whose features Figure 12 embeds."""
PURITY_ARM, NO_VISUAL_ARM = "vlpure", "vlpure-no-visual"


@dataclass(frozen=True, slots=True, kw_only=True)
class FigurePlan:
    """One figure with its trials."""

    number: int
    trials: tuple[ArmTrial, ...]
    """Trials to draw, after running those that are not finished yet."""
    studied: tuple[ArmTrial, ...]
    """Trials of the purity arm whose data, split and CLIPN the figure computes with; they are not run."""


def figure_numbers(text: str) -> tuple[int, ...]:
    """An argparse type for figures: `8`, `7,8` or `all`."""
    if text.strip() == "all":
        return FIGURES
    parts = [part.strip() for part in text.split(",")]
    known = [str(number) for number in FIGURES]
    for part in parts:
        if part not in known:
            raise argparse.ArgumentTypeError(f"{unknown_name('figure', part, [*known, 'all'])}")
    return tuple(dict.fromkeys(int(part) for part in parts))


def plan_figure(number: int, grid: GridConfig, overrides: Nested, *, embedding: Embedding = "classifier") -> FigurePlan:
    """The trials of a figure in the conditions of the grid.

    Figures 5, 6 and 12 use one condition of each data set, that of the largest ratios, and 5 and 12 only its first
    seed. Raises ValueError as `GridConfig.arm_trials` does, and if Figure 5 or 6 is to show another detector than
    ATD, which they explain.
    """
    strategies = tuple(name for name in grid.strategies if name not in (FULL_DATA, ID_ONLY))
    one_condition: dict[str, Sequence[Any]] = {
        "mismatch_ratios": (max(grid.mismatch_ratios),),
        "ood_ratios": (max(grid.ood_ratios, key=lambda ratio: 1.0 if ratio == "all" else ratio),),
    }
    first_seed: dict[str, Sequence[Any]] = {"seeds": grid.seeds[:1]}

    def trials(arms: Sequence[str], **axes: Sequence[Any]) -> tuple[ArmTrial, ...]:
        chosen = grid.model_copy(update={**axes, "strategies": tuple(arms)}).arm_trials(overrides)
        # A pool without OOD images is not defined if all other domains are OOD.
        return tuple(each for each in chosen if each.arm != ID_ONLY or not has_no_ratios(each.trial.dataset))

    match number:
        case 5:
            studied = trials([PURITY_ARM], **one_condition, **first_seed)
            return FigurePlan(number=5, trials=(), studied=_with_atd(studied))
        case 6:
            return FigurePlan(number=6, trials=(), studied=_with_atd(trials([PURITY_ARM], **one_condition)))
        case 7:
            arms = strategies
        case 8 | 9:
            arms = (*strategies, FULL_DATA)
        case 10:
            arms = (*strategies, FULL_DATA, ID_ONLY)
        case 11:
            arms = (PURITY_ARM, NO_VISUAL_ARM)
        case _:
            return FigurePlan(
                number=number,
                trials=trials(strategies, **one_condition, **first_seed),
                studied=trials([PURITY_ARM], **one_condition, **first_seed) if embedding == "clipn" else (),
            )
    return FigurePlan(number=number, trials=trials(arms), studied=())


def _with_atd(trials: tuple[ArmTrial, ...]) -> tuple[ArmTrial, ...]:
    detectors = {each.trial.purity.detector for each in trials}
    if detectors - {"atd"}:
        raise ValueError(
            f"purity.detector = {min(detectors - {'atd'})!r}: figures 5 and 6 show p_k and 1 - q_k as the detector atd "
            "compares them; omit --purity, or name other figures with --figure"
        )
    return trials
