"""What came out, in sentences: per data set, and per condition; every claim is computed from the frame of trials.

A strategy competes if it has every seed that any strategy of the condition has. Reference runs without OOD images do
not compete.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.results.comparison import (
    ALPHA,
    MOST_EXACT_PAIRS,
    Comparison,
    SeedScores,
    collect_scores,
    compare,
    compare_with_best,
    not_separable,
    smallest_sign_flip_p,
)
from experiments.results.statistics import Condition, estimate, unique
from strategies.registry import STRATEGIES

if TYPE_CHECKING:
    import pandas as pd

UNIFORM = "random"
"""The strategy that the precision of the others is compared with."""
EXACT = 12
"""Decimals within which two means are the same number: sums in another order differ in the last bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A sentence on one data set, and one on each of its conditions."""

    dataset: str
    condition: Condition | None
    """The data set's only condition; None if it has several."""
    text: str
    by_condition: Mapping[Condition, str]
    """Empty for a data set of one condition, whose sentence `text` is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What the competing strategies of a condition came to."""

    num_seeds: int
    precision: Mapping[str, float]
    """Strategy -> mean precision of its queries."""
    precision_gains: Sequence[Comparison]
    """Precision against that of `UNIFORM`, paired by seed."""
    aubc: Mapping[str, float]
    alike: frozenset[str]
    """Strategies that are not the best by AUBC, and that the paired t-test adjusted by Holm cannot tell from it."""
    num_finished: int
    num_planned: int
    incomplete: tuple[str, ...]
    """Strategies that lack a seed that another has, and so are not in the means."""

    def best(self) -> list[str]:
        """The strategies with the highest mean AUBC: several if they tie."""
        return _highest(self.aubc)


def strategy_name(arm: str) -> str:
    """The paper's name of a strategy; that of any other arm is its own."""
    entry = STRATEGIES.get(arm)
    return entry.paper_name if entry else arm


def find(trials: pd.DataFrame) -> list[Finding]:
    """The findings of `trials` (`experiments.results.frames`), data sets in order of first appearance."""
    compared = trials[trials["ood_ratio"] > 0]
    aubc, precision = collect_scores(compared, "aubc"), collect_scores(compared, "mean_precision")
    alike = not_separable(compare_with_best(aubc))
    gains = compare(precision, UNIFORM)
    statuses: dict[Condition, Counter[str]] = {}
    for *names, status in compared[[*Condition._fields, "status"]].itertuples(index=False):
        dataset, mismatch_ratio, ood_ratio = names
        statuses.setdefault(Condition(str(dataset), float(mismatch_ratio), float(ood_ratio)), Counter())[status] += 1
    outcomes = {
        condition: _Outcome(
            num_seeds=len({seed for seeds in by_arm.values() for seed in seeds}),
            precision=_means(precision[condition]),
            precision_gains=[each for each in gains if each.condition == condition],
            aubc=_means(by_arm),
            alike=frozenset(key.arm for key in alike if key.condition == condition and by_arm[key.arm]),
            num_finished=statuses[condition]["finished"],
            num_planned=statuses[condition].total(),
            incomplete=tuple(name for name in by_arm if name not in _means(by_arm)),
        )
        for condition, by_arm in aubc.items()
    }
    findings = []
    for dataset in unique(condition.dataset for condition in outcomes):
        own = {condition: each for condition, each in outcomes.items() if condition.dataset == dataset}
        sentences = {condition: _on_condition(condition, each) for condition, each in own.items()}
        if len(own) == 1:
            ((condition, text),) = sentences.items()
            findings.append(Finding(dataset=dataset, condition=condition, text=text, by_condition={}))
        else:
            text = _on_data_set(own)
            findings.append(Finding(dataset=dataset, condition=None, text=text, by_condition=sentences))
    return findings


def _on_condition(condition: Condition, outcome: _Outcome) -> str:
    """The sentence on one condition."""
    if len(outcome.aubc) < 2:
        return f"nothing to compare yet: {outcome.num_finished} of {outcome.num_planned} trials are finished."
    purest, purity = _purity(condition, outcome)
    parts = [*([purity] if purity else []), _accuracy(outcome, purest)]
    return _so_far([outcome], without=outcome.incomplete) + "; ".join(parts) + "."


def _purity(condition: Condition, outcome: _Outcome) -> tuple[list[str], str]:
    """The strategies whose queries were purest, and what is said of them; nothing if no query is known."""
    if not outcome.precision:
        return [], ""
    purest = _highest(outcome.precision)
    share = outcome.precision[purest[0]]
    if UNIFORM not in outcome.precision:
        uniform = condition.uniform_precision
        against = "" if math.isnan(uniform) else f"; uniform draws give {_percent(uniform)} on average"
    elif UNIFORM in purest:
        return [], f"no strategy's queries were purer than {strategy_name(UNIFORM)}'s, {_percent(share)} wanted"
    else:
        against = f" against {_percent(outcome.precision[UNIFORM])} at random"
    chance = {each.arm for each in outcome.precision_gains if each.outcome == "tie" and each.difference.num_seeds > 1}
    doubt = ", which may be chance" if set(purest) <= chance else ""
    return purest, f"{_possessive(purest)} queries were {_percent(share)} wanted{against}{doubt}"


def _accuracy(outcome: _Outcome, purest: Sequence[str]) -> str:
    """What is said of AUBC."""
    best = outcome.best()
    value = f"{100 * outcome.aubc[best[0]]:.1f} %"
    if len(best) == len(outcome.aubc):
        return f"AUBC is the same for all {len(best)} strategies, {value}"
    owner = "its" if best == purest and len(best) == 1 else f"{_possessive(best)}"
    head = f"{owner} AUBC of {value} is the highest"
    others = [name for name in outcome.aubc if name not in best]
    alike = [name for name in others if name in outcome.alike]
    seeds = f"{outcome.num_seeds} seed{'s' * (outcome.num_seeds != 1)}"
    if not alike:
        return f"{head}, and every other is lower beyond chance ({seeds})"
    from_whom = "any other" if len(alike) == len(others) > 2 else _possessive(alike)
    return f"{head} and cannot be told from {from_whom} with {seeds}{_more_seeds(outcome)}"


def _more_seeds(outcome: _Outcome) -> str:
    """How many seeds the exact sign-flip test needs to show anything, if there are fewer; else nothing."""
    num_rivals = len(outcome.aubc) - 1
    needed = next(n for n in range(1, MOST_EXACT_PAIRS + 2) if num_rivals * smallest_sign_flip_p(n) <= ALPHA)
    return f"; {needed} seeds could" if outcome.num_seeds < needed else ""


def _on_data_set(outcomes: Mapping[Condition, _Outcome]) -> str:
    """The sentence on several conditions of a data set."""
    # Only conditions that all strategies have: else the best of what happens to be finished would win the others.
    told = {condition: each for condition, each in outcomes.items() if len(each.aubc) >= 2 and not each.incomplete}
    if not told:
        done, planned = _progress(outcomes.values())
        return f"no condition is finished yet: {done} of {planned} trials are."
    finished = "" if len(told) == len(outcomes) else "finished "
    conditions = f"{len(told)} {finished}condition{'s' * (len(told) != 1)}"
    parts = [_purity_over(told, conditions)] if all(each.precision for each in told.values()) else []
    parts.append(_winners(told, conditions))
    return _so_far(outcomes.values()) + "; ".join(part for part in parts if part) + "."


def _purity_over(outcomes: Mapping[Condition, _Outcome], conditions: str) -> str:
    """What is said of the purest queries, averaged over conditions; nothing if no strategy has all of them."""
    everywhere = [
        name
        for name in next(iter(outcomes.values())).precision
        if all(name in each.precision for each in outcomes.values())
    ]
    means = {name: _average(each.precision[name] for each in outcomes.values()) for name in everywhere}
    if not means:
        return ""
    purest = _highest(means)
    share = _percent(means[purest[0]])
    if UNIFORM in purest:
        return f"over {conditions}, no strategy's queries were purer than {strategy_name(UNIFORM)}'s, {share} wanted"
    if UNIFORM in means:
        against = f" against {_percent(means[UNIFORM])} at random"
    else:
        uniform = _average(each.uniform_precision for each in outcomes)
        against = "" if math.isnan(uniform) else f"; uniform draws give {_percent(uniform)}"
    return f"over {conditions}, {_possessive(purest)} queries were {share} wanted{against}"


def _winners(outcomes: Mapping[Condition, _Outcome], conditions: str) -> str:
    """How often each strategy has the highest AUBC, and how often beyond chance."""
    wins: Counter[str] = Counter()
    clear: Counter[str] = Counter()
    num_ties = 0
    for each in outcomes.values():
        best = each.best()
        if len(best) > 1:
            num_ties += 1
            continue
        wins[best[0]] += 1
        clear[best[0]] += not each.alike
    told: list[str] = []
    for name, count in wins.most_common():
        everywhere = f"all {conditions}" if count > 1 else "it"
        some = str(count) if told else f"{count} of {conditions}"
        where = everywhere if count == len(outcomes) else some
        beyond = "all" if clear[name] == count else str(clear[name] or "none")
        told.append(f"{_possessive([name])} in {where} ({beyond} beyond chance)")
    tied = [f"shared by several strategies in {num_ties}{'' if told else f' of {conditions}'}"] if num_ties else []
    return f"the highest AUBC is {_and([*told, *tied])}"


def _so_far(outcomes: Iterable[_Outcome], *, without: Sequence[str] = ()) -> str:
    finished, planned = _progress(outcomes)
    missing = f" and without {_and([strategy_name(name) for name in without])}" if without else ""
    return "" if finished == planned else f"so far, with {finished} of {planned} trials finished{missing}: "


def _progress(outcomes: Iterable[_Outcome]) -> tuple[int, int]:
    counts = [(each.num_finished, each.num_planned) for each in outcomes]
    return sum(finished for finished, _ in counts), sum(planned for _, planned in counts)


def _means(by_arm: Mapping[str, SeedScores]) -> dict[str, float]:
    """Strategy -> mean, of those that have every seed that any has."""
    seeds = {seed for values in by_arm.values() for seed in values}
    return {name: estimate(values.values()).mean for name, values in by_arm.items() if seeds and values.keys() == seeds}


def _average(values: Iterable[float]) -> float:
    given = list(values)
    return math.fsum(given) / len(given)


def _highest(means: Mapping[str, float]) -> list[str]:
    """The names with the highest value, in their order."""
    highest = max(round(value, EXACT) for value in means.values())
    return [name for name, value in means.items() if round(value, EXACT) == highest]


def _percent(share: float) -> str:
    """A share as whole percent; never 100 or 0 unless it is."""
    whole = round(100 * share)
    if whole in (0, 100) and not math.isclose(share, whole / 100):
        return f"{100 * share:.1f} %"
    return f"{whole} %"


def _possessive(arms: Sequence[str]) -> str:
    return _and([f"{strategy_name(arm)}'s" for arm in arms])


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
