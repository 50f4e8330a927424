"""Comparisons of strategies against SciPy, hand-worked values and simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.results.comparison import (
    best_strategy,
    collect_scores,
    compare,
    compare_with_best,
    compare_with_best_rival,
    count_outcomes,
    holm,
    not_separable,
    paired_t_p,
    power_of_t_test,
    sign_flip_p,
    smallest_difference,
    smallest_sign_flip_p,
    what_seeds_can_show,
)
from experiments.results.overall import (
    average_ranks,
    interquartile_mean,
    penalty_matrix,
    probability_of_improvement,
    whole_conditions,
)
from experiments.results.statistics import CellKey, Condition
from experiments.tables import comparisons as comparison_tables
from experiments.tables.comparisons import compare_overall, difference_tables, overall_table, penalty_table
from tests.experiments.synthetic import read_frame

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "reporting"
EASY, HARD, OTHER = Condition("digits", 0.2, 0.2), Condition("digits", 0.2, 0.6), Condition("cifar10", 0.2, 0.2)


def seeds(*values: float) -> dict[int, float]:
    """The values of seeds 0, 1, ..."""
    return dict(enumerate(values))


def rounds_frame(accuracy: dict[str, Sequence[Sequence[float]]], condition: Condition = EASY) -> pd.DataFrame:
    """Rounds of one condition: strategy -> a list of accuracies over rounds for each seed."""
    rows = [
        {**condition._asdict(), "arm": strategy, "seed": seed, "round": number, "accuracy": value}
        for strategy, by_seed in accuracy.items()
        for seed, values in enumerate(by_seed)
        for number, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_paired_t_test_is_scipys() -> None:
    ours, theirs = [0.61, 0.66, 0.63, 0.70, 0.64], [0.60, 0.62, 0.64, 0.65, 0.61]
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    assert paired_t_p(differences) == pytest.approx(stats.ttest_rel(ours, theirs).pvalue, rel=1e-12)


@pytest.mark.parametrize(
    ("differences", "p"), [([0.0, 0.0, 0.0], 1.0), ([0.5, 0.5, 0.5], 0.0), ([0.25, -0.25], 1.0), ([0.1], math.nan)]
)
def test_paired_t_test_without_spread_or_pairs(differences: list[float], p: float) -> None:
    assert paired_t_p(differences) == pytest.approx(p, nan_ok=True)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0, 2.0, 3.0], 2 / 8),  # only +++ and --- are as far out
        ([1.0, 2.0, -3.0], 1.0),
        ([3.0, 2.0, -1.0], 4 / 8),  # |sum| 4: +++ 6, ++- 4, and their opposites
        ([1.0, 1.0, 1.0, 1.0, 1.0], 2 / 32),
        ([0.0, 0.0], 1.0),
        ([0.1, 0.2, 0.3, -0.3], 12 / 16),  # |sum| 0.3: all 4 with +0.6 or with -0.6, and 2 of 4 twice with 0
        ([], math.nan),
    ],
)
def test_sign_flip_by_hand(differences: list[float], p: float) -> None:
    assert sign_flip_p(differences) == pytest.approx(p, nan_ok=True)


def test_sign_flip_is_scipys_permutation_test() -> None:
    ours = np.array([0.61, 0.66, 0.63, 0.70, 0.64, 0.69])
    theirs = np.array([0.60, 0.62, 0.65, 0.65, 0.61, 0.60])
    scipys = stats.permutation_test(
        (ours, theirs), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples", vectorized=True
    )
    assert sign_flip_p((ours - theirs).tolist()) == pytest.approx(scipys.pvalue, rel=1e-12)


def test_sign_flip_is_exact_up_to_20_pairs_and_drawn_above() -> None:
    assert sign_flip_p([1.0] * 20) == 2.0**-19
    assert sign_flip_p([1.0] * 21) == 1 / 100_001  # no draw has all signs alike; the data's own signs count
    # Sums of 22 signs are as far from 0 as 10 with probability 2 P(Binomial(22) >= 16).
    exact = 2 * sum(math.comb(22, k) for k in range(16, 23)) / 2**22
    differences = [1.0] * 16 + [-1.0] * 6
    assert sign_flip_p(differences) == pytest.approx(exact, abs=0.004)  # four standard deviations
    assert sign_flip_p(differences) == sign_flip_p(differences)
    assert sign_flip_p([0.0] * 1000) == 1.0


@pytest.mark.parametrize("num_seeds", [2, 3, 20, 21, 100, 1000])
def test_what_so_many_seeds_can_show_has_numbers(num_seeds: int) -> None:
    lines = what_seeds_can_show(num_seeds, num_rivals=7)
    assert "nan" not in " ".join(lines)
    assert power_of_t_test(num_seeds, smallest_difference(num_seeds)) == pytest.approx(0.8)
    assert lines[1].startswith(
        "Exact" if num_seeds <= 20 else "Sign-flip test by 100,000 random signs: no p below 1e-05"
    )


@pytest.mark.parametrize(
    ("num_seeds", "num_conditions"),
    [
        *((number, 1) for number in (1, 2, 3, 20, 21, 100, 1000)),
        *((number, 36) for number in (1, 2, 3, 20, 21, 100)),
        pytest.param(1000, 36, marks=pytest.mark.slow),
    ],
)
def test_every_statistic_has_a_value_or_says_why(
    num_seeds: int, num_conditions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison_tables, "NUM_RESAMPLES", 20)
    rng = np.random.default_rng(0)
    shift = {"random": 0.0, "conf": 0.01, "vlpure": 0.02}
    rows = [
        {
            **CellKey("cifar10", 0.2, 0.2 + 0.01 * number, arm)._asdict(), "seed": seed, "status": "finished",
            "fingerprint": f"{number} {arm} {seed}", "aubc": 0.5 + shift[arm] + noise,
        }
        for number in range(num_conditions)
        for arm in shift
        for seed, noise in enumerate(rng.normal(0, 0.02, num_seeds).tolist())
    ]  # fmt: skip
    trials = pd.DataFrame(rows)
    rounds = trials.rename(columns={"aubc": "accuracy"}).assign(round=1)
    overall = compare_overall(trials, rounds, list(shift))
    assert overall is not None
    comparisons = compare(collect_scores(trials, "aubc"), "random")
    tables = [overall_table(overall), penalty_table(overall), *difference_tables(collect_scores(trials, "aubc"))]
    texts = [cell.text for table in tables for row in table.rows for cell in row.cells]
    assert not [text for text in texts if "nan" in text]
    assert all(0 < each.p_sign_flip <= 1 for each in comparisons)
    assert ("needs two seeds" in texts) == (num_seeds == 1)
    assert (math.isnan(overall.ranking.friedman)) == (num_conditions == 1)
    assert 0.5 < overall.improvement["vlpure"].value <= 1 or num_seeds < 20


@pytest.mark.parametrize(("num_pairs", "p"), [(0, 1.0), (1, 1.0), (3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_what_a_number_of_seeds_can_show(num_pairs: int, p: float) -> None:
    assert smallest_sign_flip_p(num_pairs) == p
    if num_pairs:
        assert sign_flip_p([1.0] * num_pairs) == p


def test_holm_by_hand() -> None:
    # sorted: 0.01 * 4 = 0.04, 0.02 * 3 = 0.06, 0.03 * 2 = 0.06, 0.2 * 1 = 0.2
    assert holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    # 0.02 * 2 = 0.04 is above 0.03 * 1: the later never falls below the earlier
    assert holm([0.03, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.04, math.nan, 0.01]) == pytest.approx([0.04, math.nan, 0.02], nan_ok=True)


def test_equal_strategies_give_about_alpha_false_alarms() -> None:
    rng = np.random.default_rng(0)
    num_repeats = 2000
    alarms = sum(paired_t_p(row) <= 0.05 for row in rng.normal(size=(num_repeats, 5)).tolist())
    assert 0.035 < alarms / num_repeats < 0.065  # three standard errors of 0.05
    flips = sum(sign_flip_p(row) <= 0.0625 for row in rng.normal(size=(num_repeats, 6)).tolist())
    assert 0.046 < flips / num_repeats < 0.079
    families = rng.normal(size=(num_repeats // 4, 7, 5)).tolist()
    family_alarms = sum(min(holm([paired_t_p(row) for row in family])) <= 0.05 for family in families)
    assert family_alarms / len(families) < 0.08


def test_scores_are_those_of_finished_trials() -> None:
    frame = read_frame(GOLDEN / "trials.csv")
    frame.loc[frame["status"] == "failed", "aubc"] = 0.99  # a value that must not count
    scores = collect_scores(frame, "aubc")
    assert list(scores) == [EASY, HARD, Condition("cifar10", 0.2, 0.6)]
    assert scores[HARD]["vlpure"] == {0: 0.70, 2: 0.72}
    assert scores[Condition("cifar10", 0.2, 0.6)]["vlpure"] == {}


def test_differences_are_taken_seed_by_seed() -> None:
    scores = {
        EASY: {
            "random": seeds(0.5, 0.6, 0.7),
            "far": seeds(0.61, 0.70, 0.79),  # +0.11, +0.10, +0.09: told apart though the seeds differ more
            "near": seeds(0.52, 0.59, 0.70),
            "part": {0: 0.9, 2: 0.9},
        }
    }
    far, near, part = compare(scores, "random")
    assert far.difference.mean == pytest.approx(0.10)
    assert far.difference.half_width == pytest.approx(4.302653 * 0.01 / math.sqrt(3), rel=1e-6)
    assert far.p_t == pytest.approx(stats.ttest_rel([0.61, 0.70, 0.79], [0.5, 0.6, 0.7]).pvalue)
    assert far.p_sign_flip == 0.25
    assert far.p_t_holm == pytest.approx(3 * far.p_t)
    assert (far.outcome, near.outcome) == ("win", "tie")
    assert part.difference.mean == pytest.approx((0.4 + 0.2) / 2)
    assert (part.difference.num_seeds, part.difference.num_planned) == (2, 3)


def test_a_loss_is_a_loss() -> None:
    (comparison,) = compare({EASY: {"random": seeds(0.5, 0.6, 0.7), "worse": seeds(0.39, 0.5, 0.61)}}, "random")
    assert comparison.outcome == "loss"


def test_the_best_needs_all_seeds() -> None:
    by_arm = {"a": seeds(0.5, 0.6), "b": {0: 0.9}, "c": seeds(0.55, 0.6)}
    assert best_strategy(by_arm) == "c"
    assert best_strategy({"a": {}, "b": {}}) is None


def test_what_cannot_be_told_from_the_best_is_named() -> None:
    scores = {
        EASY: {
            "best": seeds(0.8, 0.9, 0.7),
            "close": seeds(0.79, 0.91, 0.69),
            "clear": seeds(0.6, 0.7, 0.5001),
            "one": {0: 0.1},
        },
        HARD: {"best": {}, "close": {}},
    }
    comparisons = compare_with_best(scores)
    assert {each.reference for each in comparisons} == {"best"}
    assert not_separable(comparisons) == {CellKey(*EASY, "close"), CellKey(*EASY, "one")}


def test_every_strategy_meets_its_best_rival() -> None:
    scores = {
        EASY: {
            "first": seeds(0.8, 0.9, 0.7),
            "second": seeds(0.7, 0.81, 0.59),
            "third": seeds(0.5, 0.6, 0.4),
            "part": {0: 0.99},
        }
    }
    comparisons = {each.arm: each for each in compare_with_best_rival(scores)}
    assert {name: each.reference for name, each in comparisons.items()} == {
        "first": "second",
        "second": "first",
        "third": "first",
        "part": "first",
    }
    first = comparisons["first"]
    assert first.difference.mean == pytest.approx(0.10)
    assert first.p_t == pytest.approx(stats.ttest_rel([0.8, 0.9, 0.7], [0.7, 0.81, 0.59]).pvalue)
    assert first.p_t_holm == pytest.approx(2 * first.p_t)  # third differs by the same each time: p 0
    assert comparisons["third"].p_t_holm == pytest.approx(0.0, abs=1e-20)
    assert comparisons["part"].difference.num_planned == 3


def test_a_single_strategy_has_no_rival() -> None:
    assert compare_with_best_rival({EASY: {"alone": seeds(0.5, 0.6)}}) == []


def test_equal_strategies_of_a_table_give_about_alpha_false_alarms() -> None:
    # eight strategies that share their seeds' luck and differ by chance alone, in 300 conditions of 5 seeds
    rng = np.random.default_rng(1)
    names, num_conditions = ["random", *"abcdefg"], 300
    scores = {}
    for number in range(num_conditions):
        luck = rng.normal(0, 0.03, size=5)
        values = {name: dict(enumerate(luck + rng.normal(0, 0.01, size=5))) for name in names}
        scores[Condition("digits", 0.2, (number + 1) / 1000)] = values
    comparisons = compare(scores, "random")
    alone = sum(each.p_t <= 0.05 for each in comparisons) / len(comparisons)
    assert alone == pytest.approx(0.05, abs=0.015)
    families = [[each for each in comparisons if each.condition == condition] for condition in scores]
    alarms = sum(any(each.p_t_holm <= 0.05 for each in family) for family in families)
    assert alarms <= stats.binom.ppf(0.999, num_conditions, 0.05)
    flips = sum(any(each.p_sign_flip_holm <= 0.05 for each in family) for family in families)
    assert flips == 0  # 5 seeds cannot show anything by signs alone
    outcomes = count_outcomes(comparisons)
    wins = sum(each["win"] + each["loss"] for each in outcomes.values())
    assert wins == sum(each.p_t < 0.05 for each in comparisons)


def test_outcomes_are_counted_over_conditions() -> None:
    base = seeds(0.5, 0.6, 0.7)
    scores = {
        EASY: {"random": base, "x": seeds(0.61, 0.70, 0.79)},
        HARD: {"random": base, "x": seeds(0.52, 0.59, 0.70)},
        OTHER: {"random": base, "x": {0: 0.9}},  # one pair shows nothing
    }
    assert count_outcomes(compare(scores, "random")) == {"x": {"win": 1, "tie": 1, "loss": 0}}


def test_average_ranks_share_ties_and_leave_unequal_seeds_out() -> None:
    scores = {
        EASY: {"a": seeds(0.5, 0.7), "b": seeds(0.7, 0.5), "c": seeds(0.9, 0.9)},  # c 1, a and b 2.5
        HARD: {"a": seeds(0.9, 0.9), "b": seeds(0.5, 0.5), "c": seeds(0.7, 0.7)},  # a 1, c 2, b 3
        OTHER: {"a": seeds(0.1, 0.1), "b": seeds(0.2), "c": seeds(0.3, 0.3)},
    }
    assert whole_conditions(scores, ["a", "b", "c"]) == [EASY, HARD]
    assert whole_conditions(scores, ["a", "c"]) == [EASY, HARD, OTHER]
    assert average_ranks(scores, ["a", "b", "c"]) == {"a": 1.75, "b": 2.75, "c": 1.5}
    assert math.isnan(average_ranks({}, ["a"])["a"])


def test_penalties_by_hand() -> None:
    frame = rounds_frame(
        {
            "a": [[0.5, 0.81, 0.80], [0.6, 0.90, 0.60], [0.7, 0.99, 0.90]],
            "b": [[0.5, 0.70, 0.81], [0.6, 0.80, 0.59], [0.7, 0.90, 0.91]],
        }
    )
    # a beats b by about 0.1 in round 1; in round 2 they cannot be told apart; round 0 is the same for both
    np.testing.assert_array_equal(penalty_matrix(frame, ["a", "b"]), [[0, 0.5], [0, 0]])
    np.testing.assert_array_equal(penalty_matrix(frame, ["b", "a"]), [[0, 0], [0.5, 0]])
    both = pd.concat([frame, frame.assign(ood_ratio=0.6)])
    np.testing.assert_array_equal(penalty_matrix(both, ["a", "b"]), [[0, 1], [0, 0]])


def test_a_round_that_a_seed_has_not_reached_is_no_evidence() -> None:
    frame = rounds_frame({"a": [[0.5, 0.81], [0.6, 0.90], [0.7, 0.99]], "b": [[0.5, 0.70], [0.6, 0.80], [0.7]]})
    np.testing.assert_array_equal(penalty_matrix(frame, ["a", "b"]), np.zeros((2, 2)))
    alone = rounds_frame({"a": [[0.5, 0.81]], "b": [[0.5, 0.70]]})
    np.testing.assert_array_equal(penalty_matrix(alone, ["a", "b"]), np.zeros((2, 2)))


def test_interquartile_mean_by_hand() -> None:
    scores = {EASY: {"a": seeds(0.0, 0.4)}, HARD: {"a": seeds(0.6, 9.0)}}
    value = interquartile_mean(scores, "a", rng=np.random.default_rng(0), num_resamples=10)
    assert value.value == pytest.approx(0.5)  # the middle two of 0, 0.4, 0.6, 9


def test_conditions_may_have_different_numbers_of_seeds() -> None:
    scores = {EASY: {"a": seeds(0.1, 0.2, 0.3, 0.4, 0.5)}, OTHER: {"a": seeds(0.9)}}
    value = interquartile_mean(scores, "a", rng=np.random.default_rng(0), num_resamples=300)
    assert value.value == pytest.approx(stats.trim_mean([0.1, 0.2, 0.3, 0.4, 0.5, 0.9], 0.25))
    assert 0.1 <= value.low < value.value < value.high == pytest.approx(0.9)  # OTHER drawn twice


def test_bootstrap_of_one_condition_is_scipys() -> None:
    values = [0.31, 0.42, 0.29, 0.37, 0.40, 0.52, 0.35, 0.44]
    ours = interquartile_mean({EASY: {"a": seeds(*values)}}, "a", rng=np.random.default_rng(0), num_resamples=4000)
    scipys = stats.bootstrap(
        (values,),
        lambda sample, axis: stats.trim_mean(sample, 0.25, axis=axis),
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((scipys.low, scipys.high), abs=0.005)


@pytest.mark.parametrize("second", [HARD, OTHER])
def test_bootstrap_draws_conditions_and_data_sets(second: Condition) -> None:
    # drawing seeds alone would always find 0.5
    scores = {EASY: {"a": seeds(0.0, 0.0)}, second: {"a": seeds(1.0, 1.0)}}
    value = interquartile_mean(scores, "a", rng=np.random.default_rng(0), num_resamples=500)
    assert (value.value, value.low, value.high) == (0.5, 0.0, 1.0)


def test_probability_of_improvement_is_mann_whitneys() -> None:
    ours, theirs = [0.61, 0.66, 0.63, 0.70], [0.60, 0.66, 0.64, 0.65]
    scores = {EASY: {"a": seeds(*ours), "b": seeds(*theirs)}, HARD: {"a": seeds(1.0), "b": seeds(0.0)}}
    value = probability_of_improvement(scores, "a", "b", rng=np.random.default_rng(0), num_resamples=200)
    u = stats.mannwhitneyu(ours, theirs, method="asymptotic").statistic
    assert value.value == pytest.approx((u / 16 + 1) / 2)
    assert value.low <= value.value <= value.high == 1.0
    mirrored = probability_of_improvement(scores, "b", "a", rng=np.random.default_rng(0), num_resamples=200)
    assert mirrored.value == pytest.approx(1 - value.value)


def test_equal_runs_are_no_improvement() -> None:
    scores = {EASY: {"a": seeds(0.5, 0.5), "b": seeds(0.5, 0.5)}}
    value = probability_of_improvement(scores, "a", "b", rng=np.random.default_rng(0), num_resamples=50)
    assert (value.value, value.low, value.high) == (0.5, 0.5, 0.5)


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(ValueError, match="no condition has all the seeds"):
        probability_of_improvement({EASY: {"a": seeds(1.0), "b": {}}}, "a", "b", rng=np.random.default_rng(0))
