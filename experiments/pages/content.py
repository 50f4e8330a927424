"""The content of a report, before it is written as a page, Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.plots.canvas import PAGE_DPI, condition_text, dataset_label, file_bytes
from experiments.plots.ranks import draw_penalties, draw_ranks
from experiments.results.comparison import MOST_EXACT_PAIRS, NUM_DRAWS, collect_scores
from experiments.results.details import Details
from experiments.results.findings import Finding, find
from experiments.results.paper import PaperValues
from experiments.results.statistics import CellKey
from experiments.tables.beside_paper import paper_section
from experiments.tables.comparisons import (
    Overall,
    compare_overall,
    compared_strategies,
    difference_tables,
    overall_table,
    penalty_table,
)
from experiments.tables.cost_tables import cost_lines, cost_tables
from experiments.tables.facts import departure_facts, machine_facts, result_facts, seed_facts
from experiments.tables.table import Fact, Picture, Section, Table, format_condition, format_p, join

if TYPE_CHECKING:
    import pandas as pd


TERMS = (
    "ID images show one of the classes that are wanted; OOD images show anything else, and every label bought for one "
    "is wasted. Mismatch ratio: the share of the classes that are ID; OOD ratio: the share of OOD images in the pool.",
    "AUBC is the area under test accuracy over the labels bought, in percent: high if few labels already give high "
    "accuracy. Precision is the share of ID images in a query.",
)
"""Explanations of the words that the findings and the tables use, for a stranger."""
FEW_CONDITIONS = 6
"""Most conditions whose curves stand above the tables: a picture of more of them fills several screens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report's title, findings, sections and honesty box."""

    title: str
    findings: tuple[Finding, ...] = ()
    sections: tuple[Section, ...]
    facts: tuple[Fact, ...]
    drawn: tuple[tuple[Path, bytes], ...]
    """Pictures that were drawn for its sections: path and content of each."""

    def sentences(self) -> list[tuple[str, str]]:
        """The findings as a list: data set or condition in words, and what came out."""
        found = []
        for finding in self.findings:
            whole = dataset_label(finding.dataset) if finding.condition is None else condition_text(finding.condition)
            found.append((whole, finding.text))
            found += [(condition_text(condition), text) for condition, text in finding.by_condition.items()]
        return found


def make_report(
    folder: Path,
    *,
    title: str,
    tables: Sequence[Table],
    trials: pd.DataFrame,
    rounds: pd.DataFrame,
    notes: Sequence[str],
    details: Details,
    paper: PaperValues,
    pictures: Sequence[Picture],
    compared: Sequence[str] | None,
) -> Report:
    """The whole report; arguments as for `write_report`. The pictures that it draws belong into `folder`."""
    strategies = [name for name in compared_strategies(trials) if compared is None or name in compared]
    overall = compare_overall(trials, rounds, strategies)
    drawn = [] if overall is None else _draw(folder, overall)
    num_conditions = trials[list(CellKey._fields[:-1])].drop_duplicates().shape[0]
    sections = [
        Section(
            title="Results",
            tables=tuple(tables),
            pictures=tuple(pictures),
            pictures_first=num_conditions <= FEW_CONDITIONS,
        )
    ]
    sections += _difference_sections(trials, strategies)
    if overall is not None:
        sections.append(_overall_section(overall, drawn))
    beside = paper_section(trials, paper)
    if beside is not None:
        sections.append(beside)
    costs = tuple(cost_tables(trials, rounds, details))
    if costs:
        sections.append(Section(title="What it costs", lines=tuple(cost_lines(trials)), tables=costs, is_folded=True))
    facts = [
        *result_facts(trials, marks="best in bold, second underlined"),
        *seed_facts(trials),
        *machine_facts(details),
        *departure_facts(trials, details),
        *(Fact(name="Note", text=note) for note in notes),
    ]
    return Report(
        title=title,
        findings=tuple(find(trials)),
        sections=tuple(sections),
        facts=tuple(facts),
        drawn=tuple((picture.path, content) for picture, content in drawn),
    )


def _difference_sections(trials: pd.DataFrame, strategies: Sequence[str]) -> list[Section]:
    chosen = trials[trials["arm"].isin(list(strategies)) & (trials["ood_ratio"] > 0)]
    tables = difference_tables(collect_scores(chosen, "aubc"))
    if not tables:
        return []
    line = (
        "Difference of AUBC in percentage points, taken seed by seed: all strategies of a seed share split, first "
        "labels and first weights. Mean ± half the width of the 95 % t-interval; then p by the paired t-test / by the "
        "exact sign-flip test, both adjusted by Holm over the rivals of a column. The best rival is chosen after the "
        "values were seen, so its p-values are not a fair test of one pair."
    )
    if chosen.groupby(list(CellKey._fields))["seed"].nunique().max() > MOST_EXACT_PAIRS:
        line += (
            f" With more than {MOST_EXACT_PAIRS} pairs the sign-flip test is not exact: it draws {NUM_DRAWS:,} signs, "
            "always the same ones, and its p is never below 0.00001."
        )
    return [Section(title="Differences paired by seed", lines=(line,), tables=tuple(tables), is_folded=True)]


def _overall_section(overall: Overall, drawn: Sequence[tuple[Picture, bytes]]) -> Section:
    ranking = overall.ranking
    lines = [
        f"Over the {_conditions(len(overall.conditions))} that every strategy "
        "finished with the same seeds. Average rank: 1 is best. IQM: mean of the middle half of all AUBC values, in "
        "percent. P(better than random): the probability that a run has a higher AUBC than a run of random. "
        "Brackets: 95 % interval of a bootstrap over data sets, conditions and seeds. Win and loss against random: the "
        "95 % interval of the paired difference does not contain 0. Mean penalty: how often the other strategies beat "
        "it (paired t-test at 0.05 in a round), summed over conditions; low is good.",
        f"Friedman's test that all strategies are alike: chi-squared {ranking.friedman:.2f}, p {format_p(ranking.p)}. "
        "Conditions of one data set are not independent, so its p is optimistic."
        if ranking.friedman == ranking.friedman
        else "Friedman's test needs three strategies and two conditions.",
    ]
    if overall.left_out:
        names = join(f"{condition.dataset} {format_condition(condition)}" for condition in overall.left_out)
        lines.append(f"Omitted, because a seed is missing: {names}.")
    if overall.strategies_left_out:
        lines.append(f"Omitted, because they are not in every condition: {join(overall.strategies_left_out)}.")
    return Section(
        title="All conditions together",
        lines=tuple(lines),
        tables=(overall_table(overall), penalty_table(overall)),
        pictures=tuple(picture for picture, _ in drawn),
        is_folded=True,
    )


def _draw(folder: Path, overall: Overall) -> list[tuple[Picture, bytes]]:
    """The pictures of the critical-difference diagram and the penalty matrix."""
    ranks = Picture(
        path=folder / "ranks.png",
        title="Average ranks",
        caption="Average rank of AUBC over conditions, best on the left. Strategies joined by a bar differ by less "
        "than Nemenyi's critical difference at 0.05.",
    )
    penalties = Picture(
        path=folder / "penalties.png",
        title="Penalty matrix",
        caption=f"How often the row's strategy beats the column's (paired t-test over seeds at 0.05, share of rounds), "
        f"summed over {_conditions(len(overall.conditions))}. A low mean of a column is good.",
    )
    matrix = draw_penalties(overall.penalties_SS, overall.strategies, len(overall.conditions))
    drawn = ((ranks, draw_ranks(overall.ranking)), (penalties, matrix))
    return [(picture, file_bytes(figure, "png", dpi=PAGE_DPI)) for picture, figure in drawn]


def _conditions(number: int) -> str:
    return f"{number} condition{'s' * (number != 1)}"
