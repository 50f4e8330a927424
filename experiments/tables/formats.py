"""Numbers as texts: percentages, ratios, estimates, p-values."""

from __future__ import annotations

import math
from collections.abc import Iterable

from experiments.results.statistics import Condition, Estimate

DIGITS = 2
"""Decimals of a percentage."""


def percent(share: float) -> str:
    """0.8412 as `84.12`."""
    return f"{100 * share:.{DIGITS}f}"


def format_ratio(ratio: float) -> str:
    """0.2 as `20 %`."""
    return f"{100 * ratio:g} %"


def format_condition(condition: Condition) -> str:
    """A condition without its data set: `20 % / 60 %`, mismatch ratio and OOD ratio."""
    return f"{format_ratio(condition.mismatch_ratio)} / {format_ratio(condition.ood_ratio)}"


def format_estimate(value: Estimate | None, *, scale: float = 100.0, digits: int = DIGITS) -> str:
    """`84.12 ± 1.03`, `84.12 ± ?` for one seed; says so where seeds are missing, no trial was planned, or there is no
    such value to be had (`none`).

    `scale` times the value is written: 100 makes shares percentages.
    """
    if value is None:
        return "not planned"
    if value.num_planned == 0:
        return "none"
    seeds = f"({value.num_seeds} of {value.num_planned} seeds)"
    if value.num_seeds == 0:
        return f"missing {seeds}"
    half_width = "?" if math.isnan(value.half_width) else f"{scale * value.half_width:.{digits}f}"
    text = f"{scale * value.mean:.{digits}f} ± {half_width}"
    return text if value.is_complete else f"{text} {seeds}"


def format_difference(value: Estimate) -> str:
    """`+3.21 ± 0.80` in percentage points; says so where pairs are missing."""
    if value.num_seeds == 0:
        return f"missing (0 of {value.num_planned} pairs)"
    half_width = "?" if math.isnan(value.half_width) else percent(value.half_width)
    text = f"{100 * value.mean:+.{DIGITS}f} ± {half_width}"
    return text if value.is_complete else f"{text} ({value.num_seeds} of {value.num_planned} pairs)"


def format_p(p: float) -> str:
    """`0.012`, `< 0.001`, `?` where there is none."""
    if math.isnan(p):
        return "?"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def join(parts: Iterable[str]) -> str:
    """Parts with commas between them."""
    return ", ".join(parts)
