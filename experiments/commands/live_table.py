"""The small table that a terminal shows while a grid runs: a row for each arm, a column for each condition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from experiments.results.statistics import ALL_OOD, NAMED_CLASSES, Condition, condition_of
from orchestrator.ledger.records import TrialSummary
from orchestrator.plan import PlannedTrial

MOST_ROWS = 14
"""A longer table would push everything else off the screen."""


def live_table(planned: Sequence[PlannedTrial], finished: Mapping[str, TrialSummary]) -> list[str]:
    """Its lines; none if no trial is finished, or if there are more than `MOST_ROWS` arms.

    `finished` are summaries by fingerprint. A single condition also has the precision of the queries.
    """
    cells: dict[str, dict[Condition, list[TrialSummary | None]]] = {}
    for each in planned:
        condition = condition_of(each.trial)
        row = cells.setdefault(each.row, {})
        row.setdefault(condition, []).append(finished.get(each.fingerprint))
    conditions = list(dict.fromkeys(condition for row in cells.values() for condition in row))
    if not finished or len(cells) > MOST_ROWS:
        return []
    is_single = len(conditions) == 1
    header = (
        ["AUBC (trials)", "precision"] if is_single else [_named(condition, conditions) for condition in conditions]
    )
    rows = [["", *header]]
    for name, row in cells.items():
        values = [_aubc(row.get(condition, [])) for condition in conditions]
        rows.append([name, *values, *([_precision(row[conditions[0]])] if is_single else [])])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return [*lines, "percent, means over the trials finished so far" + ("" if is_single else ": AUBC (trials)")]


def _named(condition: Condition, conditions: Sequence[Condition]) -> str:
    """Mismatch and OOD ratio in percent, with the data set if there are several."""
    mismatch = "named" if condition.mismatch_ratio == NAMED_CLASSES else f"{100 * condition.mismatch_ratio:.0f}"
    ratios = f"{mismatch}/" + ("all" if condition.ood_ratio == ALL_OOD else f"{100 * condition.ood_ratio:.0f}")
    return ratios if len({each.dataset for each in conditions}) == 1 else f"{condition.dataset} {ratios}"


def _aubc(summaries: Sequence[TrialSummary | None]) -> str:
    mean = _mean(each.aubc for each in summaries if each is not None)
    return f"{mean} ({sum(each is not None for each in summaries)} of {len(summaries)})"


def _precision(summaries: Iterable[TrialSummary | None]) -> str:
    return _mean(each.mean_precision for each in summaries if each is not None and each.mean_precision is not None)


def _mean(values: Iterable[float]) -> str:
    known = list(values)
    return f"{100 * sum(known) / len(known):.1f}" if known else "-"
