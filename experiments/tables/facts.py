"""The honesty box of a report: what its numbers are, from how many seeds and machines, and what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from experiments.results.comparison import what_seeds_can_show
from experiments.results.departures import departures
from experiments.results.details import Details
from experiments.results.statistics import CellKey, cell_key, check_seeds, estimate_cells
from experiments.tables.table import DAGGER, Fact, condition_name, join
from orchestrator.ledger.records import DATA_NOTES

if TYPE_CHECKING:
    import pandas as pd

Environment = Mapping[str, Any]
MOST_LISTED = 12
"""Most cells with missing seeds that are named one by one."""
MOST_VERSIONS = 4
OF_MACHINE = ("device", "threads", "gpus", "host", "node")
"""Keys of a record's environment that describe its machine, and the used share of it."""
CODE = ("version", "commit", "source")
"""Keys of a record's environment that identify the code."""


def result_facts(trials: pd.DataFrame, *, marks: str) -> list[Fact]:
    """Facts on unit, interval, marks, AUBC, seeds and missing trials. `marks` describes how best and second look."""
    check_seeds(trials)
    planned = sorted(set(trials.groupby(list(CellKey._fields)).size()))
    facts = [
        Fact(
            name="Values",
            text="percent; mean ± half the width of the 95 % t-interval over seeds"
            + ("; ± ?: one seed, so the interval is not known" if _has_single_seeds(trials) else "")
            + ". Columns: mismatch ratio / OOD ratio. 1 - OOD ratio: the precision that uniform draws have on average.",
        ),
        Fact(
            name="Marks",
            text=f"{marks} in each column, among strategies with all planned seeds; {DAGGER} AUBC not separable from "
            "the best: paired t-test over the seeds, adjusted by Holm over the rivals of a column, p above 0.05.",
        ),
        Fact(
            name="AUBC",
            text="area under accuracy over the n rounds, divided by n - 1, so that a constant accuracy a gives a "
            "(aubc). The paper divides by n (aubc_paper); its numbers are compared with that only.",
        ),
        Fact(name="Seeds per cell", text=f"{' or '.join(map(str, planned)) or 'none'} planned."),
        Fact(name="Trials", text=describe_progress(trials)),
    ]
    return facts


def machine_facts(details: Details) -> list[Fact]:
    """Facts on the hardware, software and code of the records."""
    if not details:
        return []
    environments = [environment for each in details.values() for environment in each.environments]
    if not environments:
        return [Fact(name="Machines", text="not known: no record names its machine.")]
    return [
        Fact(name="Hardware", text=_counted(details, _device)),
        Fact(name="Software", text=_counted(details, _software)),
        Fact(name="Code", text=_counted(details, _code)),
        *_data_facts(details),
    ]


def _data_facts(details: Details) -> list[Fact]:
    """A fact on images of the data sets that deceive, if there are any."""
    lines = {
        f"{each.settings['dataset']}: {environment[DATA_NOTES]}": None
        for each in details.values()
        for environment in each.environments
        if each.settings and DATA_NOTES in environment
    }
    return [Fact(name="Images", text=f"{'; '.join(lines)}.")] if lines else []


def seed_facts(trials: pd.DataFrame) -> list[Fact]:
    """A fact on what the number of seeds can show."""
    compared = trials[trials["ood_ratio"] > 0]
    if compared.empty:
        return []
    num_seeds = int(compared.groupby(list(CellKey._fields))["seed"].nunique().max())
    num_rivals = int(compared.groupby(list(CellKey._fields[:-1]))["arm"].nunique().max()) - 1
    lines = what_seeds_can_show(num_seeds, num_rivals=max(1, num_rivals))
    return [Fact(name="What so many seeds can show", text=" ".join(lines))]


def departure_facts(trials: pd.DataFrame, details: Details) -> list[Fact]:
    """A fact on the settings that differ from the paper's."""
    if not details:
        return []
    compared = trials[trials["ood_ratio"] > 0]  # reference runs depart on purpose
    settings = [
        (str(row), details[key].settings)
        for key, row in zip(compared["fingerprint"], compared["arm"], strict=True)
        if key in details and details[key].settings
    ]
    if not settings:
        return [Fact(name="Departures from the paper", text="not known: the settings of the trials are missing.")]
    found = departures(settings)
    text = "; ".join(found) if found else "none in the settings"
    return [Fact(name="Departures from the paper", text=f"{text}.")]


def describe_progress(trials: pd.DataFrame) -> str:
    """The number of finished trials, and each unfinished trial with its status."""
    open_trials = trials[trials["status"] != "finished"]
    finished = f"{len(trials) - len(open_trials)} of {len(trials)} finished"
    if open_trials.empty:
        return f"{finished}."
    counts = open_trials["status"].value_counts().sort_index()
    cells = [
        f"{condition_name(key.condition)} {key.arm} "
        f"({join(f'seed {seed} {status}' for seed, status in zip(rows['seed'], rows['status'], strict=True))})"
        for key, rows in ((cell_key(key), rows) for key, rows in open_trials.groupby(list(CellKey._fields), sort=False))
    ]
    more = f"; and {len(cells) - MOST_LISTED} more cells" if len(cells) > MOST_LISTED else ""
    return (
        f"{finished}; {join(f'{count} {status}' for status, count in counts.items())}: "
        f"{'; '.join(cells[:MOST_LISTED])}{more}."
    )


def _has_single_seeds(trials: pd.DataFrame) -> bool:
    return any(value.num_seeds == 1 for value in estimate_cells(trials, "aubc").values())


def _device(environment: Environment) -> str:
    gpus = environment.get("gpus")
    share = f", {gpus:g} of a GPU" if gpus else ""
    threads = environment.get("threads", "?")
    return f"{environment.get('device', 'not recorded')} ({threads} thread{'s' * (threads != 1)}{share})"


def _software(environment: Environment) -> str:
    # Versions only: machines have a fact of their own.
    versions = [f"{name} {text}" for name, text in environment.items() if name not in (*OF_MACHINE, *CODE, DATA_NOTES)]
    return join(versions) or "not recorded"


def _code(environment: Environment) -> str:
    """The version of this project, and in a checkout its commit."""
    return join(f"{name} {environment[name]}" for name in CODE if name in environment) or "not recorded"


def _counted(details: Details, describe: Callable[[Environment], str]) -> str:
    """The descriptions of trials, most frequent first, with the number of trials if they differ."""
    of_trials = [set(map(describe, each.environments)) for each in details.values() if each.environments]
    counts = Counter(text for texts in of_trials for text in texts)
    if len(counts) == 1:
        return f"{next(iter(counts))}."
    shown = [f"{text}: {count} of {len(of_trials)} trials" for text, count in counts.most_common(MOST_VERSIONS)]
    more = len(counts) - len(shown)
    return "; ".join([*shown, *([f"and {more} more"] if more > 0 else [])]) + "."


def box_frame(trials: pd.DataFrame, details: Details) -> pd.DataFrame:
    """The box as a frame with a row per fact: hardware, software, code and departures."""
    import pandas as pd

    facts = [*machine_facts(details), *departure_facts(trials, details)]
    return pd.DataFrame([(fact.name, fact.text) for fact in facts], columns=["fact", "text"])
