"""The sentences on what came out, of frames made by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from experiments.results.findings import Finding, find
from experiments.results.statistics import Condition

AUBC = {"random": [0.93, 0.94, 0.935], "conf": [0.90, 0.93, 0.91], "vlpure": [0.95, 0.96, 0.951]}
PRECISION = {"random": [0.40, 0.43, 0.43], "conf": [0.10, 0.12, 0.11], "vlpure": [0.99, 0.98, 0.99]}


def rows(
    aubc: Mapping[str, Sequence[float | None]],
    precision: Mapping[str, Sequence[float]] | None,
    *,
    dataset: str = "digits",
    ood_ratio: float = 0.6,
) -> pd.DataFrame:
    """A row per strategy and seed; an AUBC of None is a trial that is missing."""
    return pd.DataFrame(
        [
            {
                "dataset": dataset, "mismatch_ratio": 0.4, "ood_ratio": ood_ratio, "arm": arm, "seed": seed,
                "status": "missing" if value is None else "finished",
                "aubc": math.nan if value is None else value,
                "mean_precision": math.nan if value is None or precision is None else precision[arm][seed],
            }
            for arm, values in aubc.items()
            for seed, value in enumerate(values)
        ]
    )  # fmt: skip


def sentence(trials: pd.DataFrame) -> str:
    """The only finding's."""
    (finding,) = find(trials)
    assert finding.by_condition == {}
    return finding.text


def test_few_seeds_tell_nothing_apart_and_the_number_that_could_is_named() -> None:
    aubc = AUBC | {"lfosa": [0.95, 0.94, 0.96]}
    precision = PRECISION | {"lfosa": [0.92, 0.93, 0.94]}
    assert sentence(rows(aubc, precision)) == (
        "VLPure-AL's queries were 99 % wanted against 42 % at random; its AUBC of 95.4 % is the highest and cannot be "
        "told from LfOSA's with 3 seeds; 7 seeds could."
    )


def test_a_clear_best_is_said_to_be_one() -> None:
    assert sentence(rows(AUBC, PRECISION)) == (
        "VLPure-AL's queries were 99 % wanted against 42 % at random; its AUBC of 95.4 % is the highest, and every "
        "other is lower beyond chance (3 seeds)."
    )


def test_one_seed_is_told_from_nothing() -> None:
    one = {name: values[:1] for name, values in AUBC.items()}
    assert sentence(rows(one, PRECISION)) == (
        "VLPure-AL's queries were 99 % wanted against 40 % at random; its AUBC of 95.0 % is the highest and cannot be "
        "told from RANDOM's and CONF's with 1 seed; 7 seeds could."
    )


def test_without_random_the_pool_says_what_uniform_draws_give() -> None:
    rest = {name: AUBC[name] for name in ("conf", "vlpure")}
    assert sentence(rows(rest, PRECISION)) == (
        "VLPure-AL's queries were 99 % wanted; uniform draws give 40 % on average; its AUBC of 95.4 % is the highest, "
        "and every other is lower beyond chance (3 seeds)."
    )


def test_what_uniform_draws_give_is_not_known_for_a_pool_with_every_ood_image() -> None:
    rest = {name: AUBC[name] for name in ("conf", "vlpure")}
    assert sentence(rows(rest, PRECISION, ood_ratio=1.0)).startswith(
        "VLPure-AL's queries were 99 % wanted; its AUBC of 95.4 % is the highest"
    )


def test_without_a_purity_strategy_no_query_is_purer_than_chance() -> None:
    names = ("random", "conf")
    assert sentence(rows({name: AUBC[name] for name in names}, PRECISION)) == (
        "no strategy's queries were purer than RANDOM's, 42 % wanted; RANDOM's AUBC of 93.5 % is the highest and "
        "cannot be told from CONF's with 3 seeds; 6 seeds could."
    )
    noise = PRECISION | {"conf": [0.43, 0.42, 0.44]}
    assert sentence(rows({name: AUBC[name] for name in names}, noise)).startswith(
        "CONF's queries were 43 % wanted against 42 % at random, which may be chance; RANDOM's AUBC"
    )


def test_the_purest_need_not_be_the_most_accurate() -> None:
    swapped = {"random": AUBC["random"], "conf": AUBC["vlpure"], "vlpure": AUBC["conf"]}
    assert sentence(rows(swapped, PRECISION)) == (
        "VLPure-AL's queries were 99 % wanted against 42 % at random; CONF's AUBC of 95.4 % is the highest, and every "
        "other is lower beyond chance (3 seeds)."
    )


def test_ties_are_shared() -> None:
    equal = {name: [1.0, 1.0, 1.0] for name in AUBC}
    assert sentence(rows(equal, {name: [0.5, 0.5, 0.5] for name in AUBC})) == (
        "no strategy's queries were purer than RANDOM's, 50 % wanted; AUBC is the same for all 3 strategies, 100.0 %."
    )
    two = AUBC | {"conf": AUBC["vlpure"][::-1]}
    assert sentence(rows(two, PRECISION)) == (
        "VLPure-AL's queries were 99 % wanted against 42 % at random; CONF's and VLPure-AL's AUBC of 95.4 % is the "
        "highest, and every other is lower beyond chance (3 seeds)."
    )


def test_an_unfinished_grid_says_how_far_it_is() -> None:
    aubc: dict[str, Sequence[float | None]] = {**AUBC, "lfosa": [0.99, None, None]}
    precision = PRECISION | {"lfosa": [1.0, 1.0, 1.0]}
    assert sentence(rows(aubc, precision)) == (
        "so far, with 10 of 12 trials finished and without LfOSA: VLPure-AL's queries were 99 % wanted against 42 % "
        "at random; its AUBC of 95.4 % is the highest, and every other is lower beyond chance (3 seeds)."
    )
    started: dict[str, Sequence[float | None]] = {name: [None, None, None] for name in AUBC} | {
        "conf": [0.9, None, None]
    }
    assert sentence(rows(started, PRECISION)) == "nothing to compare yet: 1 of 9 trials are finished."
    assert sentence(rows({name: [None] for name in AUBC}, PRECISION)) == (
        "nothing to compare yet: 0 of 3 trials are finished."
    )


def test_trials_of_one_round_have_no_query() -> None:
    assert sentence(rows(AUBC, None)) == (
        "VLPure-AL's AUBC of 95.4 % is the highest, and every other is lower beyond chance (3 seeds)."
    )


def test_a_share_is_rounded_to_all_or_nothing_only_if_it_is() -> None:
    nearly = PRECISION | {"vlpure": [0.998, 0.998, 0.998], "random": [0.001, 0.0, 0.0]}
    assert sentence(rows(AUBC, nearly)).startswith("VLPure-AL's queries were 99.8 % wanted against 0.0 % at random")


def test_several_conditions_have_a_sentence_together_and_one_each() -> None:
    close = AUBC | {"conf": [0.95, 0.94, 0.955], "vlpure": [0.94, 0.95, 0.951]}
    trials = pd.concat([rows(AUBC, PRECISION), rows(close, PRECISION, ood_ratio=0.2)])
    (finding,) = find(trials)
    assert finding.text == (
        "over 2 conditions, VLPure-AL's queries were 99 % wanted against 42 % at random; the highest AUBC is CONF's in "
        "1 of 2 conditions (none beyond chance) and VLPure-AL's in 1 (all beyond chance)."
    )
    (everywhere,) = find(pd.concat([rows(AUBC, PRECISION), rows(AUBC, PRECISION, ood_ratio=0.2)]))
    assert everywhere.text.endswith("; the highest AUBC is VLPure-AL's in all 2 conditions (all beyond chance).")
    assert list(finding.by_condition) == [Condition("digits", 0.4, 0.2), Condition("digits", 0.4, 0.6)]
    assert finding.by_condition[Condition("digits", 0.4, 0.6)] == sentence(rows(AUBC, PRECISION))


def test_a_condition_that_is_not_finished_is_in_no_sentence_on_all() -> None:
    broken: dict[str, Sequence[float | None]] = {**AUBC, "vlpure": [0.95, 0.96, None]}
    trials = pd.concat([rows(AUBC, PRECISION), rows(broken, PRECISION, ood_ratio=0.2)])
    (finding,) = find(trials)
    assert finding.text == (
        "so far, with 17 of 18 trials finished: over 1 finished condition, VLPure-AL's queries were 99 % wanted "
        "against 42 % at random; the highest AUBC is VLPure-AL's in it (all beyond chance)."
    )
    assert finding.by_condition[Condition("digits", 0.4, 0.2)].startswith(
        "so far, with 8 of 9 trials finished and without VLPure-AL: no strategy's queries"
    )
    (nothing,) = find(pd.concat([rows(broken, PRECISION), rows(broken, PRECISION, ood_ratio=0.2)]))
    assert nothing.text == "no condition is finished yet: 16 of 18 trials are."


def test_each_data_set_has_its_own_and_reference_runs_have_none() -> None:
    trials = pd.concat(
        [rows(AUBC, PRECISION), rows(AUBC, PRECISION, dataset="cifar10"), rows(AUBC, None, ood_ratio=0.0)]
    )
    assert [each.dataset for each in find(trials)] == ["digits", "cifar10"]
    nothing: list[Finding] = find(trials.iloc[:0])
    assert nothing == []
