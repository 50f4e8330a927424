"""What a number of seeds can show, before any of them has run. Needs neither pandas nor matplotlib."""

from __future__ import annotations

import math

from experiments.results.comparison import smallest_sign_flip_p
from experiments.results.statistics import LEVEL, t_quantile

ALPHA = 1 - LEVEL
POWER = 0.8


def what_seeds_can_show(num_seeds: int, *, num_rivals: int = 1) -> list[str]:
    """Lines for people: the interval, the sign-flip test and the paired t-test that so many seeds allow.

    With `num_rivals` above 1 also what is left of them after Holm's adjustment, in the worst case.
    """
    if num_seeds < 2:
        return ["1 seed a cell: no interval and no test; a difference between strategies may be chance."]
    lines = [
        f"{num_seeds} seeds a cell: the {100 * LEVEL:g} % interval of a mean is ± "
        f"{t_quantile(num_seeds - 1) / math.sqrt(num_seeds):.2f} standard deviations of a seed.",
        _sign_flip_line(num_seeds, num_rivals),
        f"Paired t-test at {ALPHA:.2g}: finds in {100 * POWER:g} % of cases a mean difference of "
        f"{smallest_difference(num_seeds, alpha=ALPHA):.2f} standard deviations of the differences.",
    ]
    if num_rivals > 1:
        lines.append(
            f"With {num_rivals} rivals, Holm asks the first for {ALPHA / num_rivals:.2g}: "
            f"{smallest_difference(num_seeds, alpha=ALPHA / num_rivals):.2f} standard deviations."
        )
    return lines


def smallest_difference(num_pairs: int, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The mean difference, in standard deviations of the differences, that the two-sided paired t-test finds.

    At `alpha` with probability `power`, for normal differences and two pairs or more. From the noncentral t.
    """
    low, high = 0.0, 1.0
    while power_of_t_test(num_pairs, high, alpha=alpha) < power:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if power_of_t_test(num_pairs, middle, alpha=alpha) < power:
            low = middle
        else:
            high = middle
    return high


def power_of_t_test(num_pairs: int, effect: float, *, alpha: float = ALPHA) -> float:
    """How probable it is that the two-sided paired t-test at `alpha` finds `effect` (in standard deviations)."""
    from scipy.special import nctdtr

    degrees = num_pairs - 1
    critical = t_quantile(degrees, 1 - alpha)
    shift = effect * math.sqrt(num_pairs)
    below = float(nctdtr(degrees, shift, -critical))
    # Far out in the tail SciPy's series gives NaN for what is 0.
    return 1 - float(nctdtr(degrees, shift, critical)) + (0.0 if math.isnan(below) else below)


def _sign_flip_line(num_seeds: int, num_rivals: int) -> str:
    least = smallest_sign_flip_p(num_seeds)
    line = f"Exact sign-flip test: no p below {least:.3g}"
    if num_rivals > 1:
        line += f", below {min(1.0, num_rivals * least):.3g} after Holm over {num_rivals} rivals"
    if num_rivals * least <= ALPHA:
        return f"{line}."
    needed = next(number for number in range(2, 64) if num_rivals * smallest_sign_flip_p(number) <= ALPHA)
    return f"{line}: it cannot show anything at {ALPHA:.2g}; {needed} seeds could."
