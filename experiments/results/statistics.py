"""Mean and interval over the seeds of each cell; a seed that is missing stays missing.

A cell is a condition (data set, mismatch ratio, OOD ratio) and an arm. The frame `trials` has a row for every
planned trial, finished or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.settings.trial import TrialConfig

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
METRICS = ("aubc", "aubc_paper", "last_accuracy", "mean_precision")
"""Columns of `trials` that are reported per cell, shares in [0, 1]."""


NAMED_CLASSES = 0.0
"""Mismatch ratio, in a condition, of trials whose ID classes are named; the names stand with the data set."""
ALL_OOD = 1.0
"""OOD ratio, in a condition, of a pool with every OOD image there is; no share has this value."""
# Numbers outside the range of either ratio, and not texts or NaN: frames are sorted, grouped and compared by them.


class Condition(NamedTuple):
    """A trial's data set and ratios, without strategy and seed."""

    dataset: str
    """Name of the data set; with named ID classes followed by their names, as in `cifar10 (cat, dog)`."""
    mismatch_ratio: float
    """In (0, 1), or `NAMED_CLASSES`."""
    ood_ratio: float
    """In [0, 1), or `ALL_OOD`."""

    @property
    def uniform_precision(self) -> float:
        """Precision that uniform draws have on average; NaN if the OOD ratio is not known from the settings."""
        return math.nan if self.ood_ratio == ALL_OOD else 1 - self.ood_ratio


def condition_of(trial: TrialConfig) -> Condition:
    """The condition of a trial."""
    ood_ratio = ALL_OOD if trial.ood_ratio == "all" else float(trial.ood_ratio)
    if trial.id_classes is not None:
        return Condition(f"{trial.dataset} ({trial.classes_text})", NAMED_CLASSES, ood_ratio)
    assert trial.mismatch_ratio is not None
    return Condition(trial.dataset, float(trial.mismatch_ratio), ood_ratio)


class CellKey(NamedTuple):
    """A condition and an arm: a strategy, with or without settings of its own."""

    dataset: str
    mismatch_ratio: float
    ood_ratio: float
    arm: str

    @property
    def condition(self) -> Condition:
        """The cell's condition."""
        return Condition(self.dataset, self.mismatch_ratio, self.ood_ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over seeds with its uncertainty, in the unit of the values."""

    num_seeds: int
    """Seeds that have a value."""
    num_planned: int
    """Seeds that have or should have a value; 0 if the trials have no such value: no query, no precision."""
    mean: float
    """NaN without a seed."""
    sd: float
    """Standard deviation with n - 1; NaN with fewer than two seeds."""
    half_width: float
    """Half the width of the t-interval of the mean; NaN (unknown) with fewer than two seeds."""

    @property
    def is_complete(self) -> bool:
        """Whether every planned seed has a value."""
        return self.num_seeds == self.num_planned


def estimate(values: Iterable[float], *, num_planned: int | None = None, level: float = LEVEL) -> Estimate:
    """Mean, standard deviation and t-interval (n - 1 degrees of freedom) of one value per seed; NaN counts as missing.

    `num_planned` seeds were to be run; None: as many as there are values.
    """
    given = list(values)
    present = [float(value) for value in given if not math.isnan(value)]
    num_seeds = len(present)
    mean = math.fsum(present) / num_seeds if present else math.nan
    sd = half_width = math.nan
    if num_seeds > 1:
        sd = math.sqrt(math.fsum((value - mean) ** 2 for value in present) / (num_seeds - 1))
        half_width = t_quantile(num_seeds - 1, level) * sd / math.sqrt(num_seeds)
    return Estimate(
        num_seeds=num_seeds,
        num_planned=len(given) if num_planned is None else num_planned,
        mean=mean,
        sd=sd,
        half_width=half_width,
    )


def t_quantile(degrees_of_freedom: int, level: float = LEVEL) -> float:
    """The t for which a two-sided interval of `level` reaches from -t to t."""
    from scipy.special import stdtrit  # scipy.stats takes much longer to import

    return float(stdtrit(degrees_of_freedom, 0.5 + level / 2))


def estimate_cells(trials: pd.DataFrame, metric: str) -> dict[CellKey, Estimate]:
    """The estimate of `metric` in each cell of `trials`, in order of first appearance.

    Only trials with status "finished" count; the other rows of a cell are its missing seeds. If trials are finished
    and none has a value, as those of one round have no query, nothing is missing. Raises ValueError if a
    cell has a seed twice.
    """
    check_seeds(trials)
    # Plain lists: groups of a frame took an eighth of the time of a report of 1,440 trials.
    cells: dict[CellKey, list[float]] = {}
    finished: set[CellKey] = set()
    columns = [trials[name].tolist() for name in (*CellKey._fields, "status", metric)]
    for *names, status, value in zip(*columns, strict=True):
        key = cell_key(tuple(names))
        is_finished = status == "finished"
        cells.setdefault(key, []).append(math.nan if value is None or not is_finished else float(value))
        if is_finished:
            finished.add(key)
    # Trials of one round have no query: their precision must not be shown as missing.
    return {
        key: estimate(values if key not in finished or not all(map(math.isnan, values)) else [])
        for key, values in cells.items()
    }


def check_seeds(trials: pd.DataFrame) -> None:
    """Raises ValueError, naming one, if a trial is in `trials` twice."""
    keys = [*CellKey._fields, "seed"]
    repeated = trials[trials.duplicated(keys)]
    # It would be averaged as if it were two.
    if len(repeated):
        first = repeated.iloc[0]
        raise ValueError(f"trial listed twice: {', '.join(f'{key} {first[key]}' for key in keys)}")


def cell_key(values: object) -> CellKey:
    """A CellKey of Python values, made from the key of a pandas group."""
    assert isinstance(values, tuple)
    dataset, mismatch_ratio, ood_ratio, arm = values
    return CellKey(str(dataset), float(mismatch_ratio), float(ood_ratio), str(arm))


def sorted_conditions(cells: Iterable[CellKey]) -> list[Condition]:
    """The conditions of `cells`: data sets in order of first appearance, ratios ascending."""
    keys = list(cells)
    datasets = unique(key.dataset for key in keys)
    return sorted({key.condition for key in keys}, key=lambda each: (datasets.index(each.dataset), *each[1:]))


def unique(values: Iterable[str]) -> list[str]:
    """The distinct values in order of first appearance."""
    return list(dict.fromkeys(values))


def rank_marks(estimates: Sequence[Estimate | None], *, digits: int) -> list[str]:
    """Marks "best", "second" or "" for each estimate, by its mean rounded to `digits`.

    Only estimates with all planned seeds compete, and only if there are two or more of them. All that tie for best
    are best, all that tie for the next value are second.
    """
    # Rounded: values that look equal to a reader must get the same mark.
    means = [
        round(each.mean, digits) if each is not None and each.num_seeds and each.is_complete else None
        for each in estimates
    ]
    competing = [mean for mean in means if mean is not None]
    if len(competing) < 2:
        return ["" for _ in estimates]
    ranked = sorted(set(competing), reverse=True)
    names = dict(zip(ranked, ("best", "second"), strict=False))
    return ["" if mean is None else names.get(mean, "") for mean in means]
