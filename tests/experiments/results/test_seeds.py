"""What seeds can show, against SciPy and a simulation."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from experiments.results.comparison import power_of_t_test, smallest_difference, what_seeds_can_show


def test_power_is_scipys_noncentral_t() -> None:
    for num_pairs, effect, alpha in ((5, 1.0, 0.05), (3, 2.0, 0.05), (10, 0.4, 0.01)):
        critical = stats.t.ppf(1 - alpha / 2, num_pairs - 1)
        shifted = stats.nct(num_pairs - 1, effect * math.sqrt(num_pairs))
        expected = shifted.sf(critical) + shifted.cdf(-critical)
        assert power_of_t_test(num_pairs, effect, alpha=alpha) == pytest.approx(expected, rel=1e-9)


def test_no_effect_is_found_as_often_as_alpha() -> None:
    assert power_of_t_test(5, 0.0) == pytest.approx(0.05)


def test_power_is_what_a_simulation_finds() -> None:
    rng = np.random.default_rng(0)
    effect = smallest_difference(5)
    found = stats.ttest_1samp(rng.normal(effect, 1, size=(4000, 5)), 0, axis=1).pvalue <= 0.05
    assert found.mean() == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / 4000))


def test_the_smallest_difference_of_five_seeds() -> None:
    # G*Power and textbooks give dz = 1.68 for n = 5, two-sided alpha 0.05 and power 0.80
    assert smallest_difference(5) == pytest.approx(1.68, abs=0.005)
    assert power_of_t_test(5, smallest_difference(5)) == pytest.approx(0.8)


def test_lines_of_five_seeds() -> None:
    assert what_seeds_can_show(5, num_rivals=7) == [
        "5 seeds per cell: the 95 % interval of a mean is ± 1.24 standard deviations of a seed.",
        "Exact sign-flip test: no p below 0.0625, below 0.438 after Holm over 7 rivals: it cannot show anything at "
        "0.05; 9 seeds could.",
        "Paired t-test at 0.05: finds in 80 % of cases a mean difference of 1.68 standard deviations of the "
        "differences.",
        "With 7 rivals, Holm asks the first for 0.0071: 2.87 standard deviations.",
    ]


def test_enough_seeds_are_not_told_that_they_are_too_few() -> None:
    assert what_seeds_can_show(6)[1] == "Exact sign-flip test: no p below 0.0312."
    assert "6 seeds could" in what_seeds_can_show(5)[1]


def test_one_seed_shows_nothing() -> None:
    assert what_seeds_can_show(1) == [
        "1 seed per cell: no interval and no test; a difference between strategies may be chance."
    ]


def test_a_dry_run_needs_no_pandas_for_it() -> None:
    code = (
        "import sys; from experiments.results.comparison import what_seeds_can_show; what_seeds_can_show(5); "
        "print([name for name in ('pandas', 'matplotlib', 'scipy.stats') if name in sys.modules])"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert outcome.stdout == "[]\n"
