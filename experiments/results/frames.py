"""The results of a grid as frames: one with a row per trial, one with a row per round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments.results.statistics import ALL_OOD, NAMED_CLASSES, condition_of
from orchestrator.ledger.records import RECALL, RoundRecord, cumulative_precision, summarise
from orchestrator.plan import PlannedTrial

if TYPE_CHECKING:
    import pandas as pd

PHASES = ("train", "evaluate", "query")
TRIAL_COLUMNS = (
    "dataset", "mismatch_ratio", "ood_ratio", "arm", "seed", "status", "aubc", "aubc_paper", "last_accuracy",
    "mean_precision", "num_labels", "num_wasted", "seconds", "fingerprint",
)  # fmt: skip
ROUND_COLUMNS = (
    "dataset", "mismatch_ratio", "ood_ratio", "arm", "seed", "round", "accuracy", "precision",
    "cumulative_precision", "num_id", "num_ood", "logit_scale", *(f"seconds_{phase}" for phase in PHASES),
    "fingerprint",
)  # fmt: skip
DETECTION_COLUMNS = (
    "dataset", "mismatch_ratio", "ood_ratio", "arm", "seed", "labels", "auroc", "balanced_accuracy", "num_id",
    "num_ood", "purity_precision", "purity_recall", "logit_scale", "seconds", "fingerprint",
)  # fmt: skip


def trials_frame(planned: Sequence[PlannedTrial]) -> pd.DataFrame:
    """One row per trial, with `TRIAL_COLUMNS`; unknown values are missing. Shares in [0, 1], seconds."""
    import pandas as pd

    return pd.DataFrame([_trial_row(p) for p in planned], columns=list(TRIAL_COLUMNS))


def rounds_frame(planned: Sequence[PlannedTrial]) -> pd.DataFrame:
    """One row per finished round of any trial, with `ROUND_COLUMNS`, and `recall` if a trial records it."""
    import pandas as pd

    rows = [_round_row(p, record) for p in planned for record in p.records]
    # A column of its own only if there is such a value: readers of earlier files find what they know.
    more = [RECALL] if any(row[RECALL] is not None for row in rows) else []
    return pd.DataFrame(rows, columns=[*ROUND_COLUMNS, *more])


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that a spreadsheet would run as a formula."""


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV text, in which the column `arm` is headed `strategy`.

    A text that a spreadsheet would take for a formula gets a quote before it; numbers are unchanged.
    """
    texts = frame.select_dtypes(exclude="number")
    quoted = frame.assign(**{str(name): texts[name].map(_quoted) for name in texts})
    for name, value, text in (("mismatch_ratio", NAMED_CLASSES, "named"), ("ood_ratio", ALL_OOD, "all")):
        if name in quoted and (quoted[name] == value).any():
            quoted[name] = quoted[name].astype(object).where(quoted[name] != value, text)
    # The name that readers of these files have always had; the code calls it arm, since it is not always a strategy.
    return quoted.rename(columns={"arm": "strategy"}).to_csv(index=False)


def _quoted(value: Any) -> Any:
    if not (isinstance(value, str) and value.startswith(FORMULA)):
        return value
    # A number with a sign is not a formula.
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def detection_frame(planned: Sequence[PlannedTrial]) -> pd.DataFrame:
    """One row per finished stage of any detection trial, with `DETECTION_COLUMNS`; shares in [0, 1]."""
    import pandas as pd

    rows = [
        _axes(p)
        | {
            "labels": record.num_id + record.num_ood,
            "balanced_accuracy": record.accuracy,
            "num_id": record.num_id,
            "num_ood": record.num_ood,
            "seconds": record.seconds["query"],
            "fingerprint": p.fingerprint,
        }
        | {name: record.diagnostics.get(name) for name in ("auroc", "purity_precision", "purity_recall", "logit_scale")}
        for p in planned
        if p.trial.detection is not None
        for record in p.records
    ]
    return pd.DataFrame(rows, columns=list(DETECTION_COLUMNS))


def status(planned: PlannedTrial) -> str:
    """The status of a trial: finished, failed, unfinished (it has some rounds) or missing."""
    if planned.is_finished:
        return "finished"
    if planned.error is not None:
        return "failed"
    return "unfinished" if planned.records else "missing"


def _axes(planned: PlannedTrial) -> dict[str, Any]:
    """The position of a trial in tables: its condition, its arm and its seed."""
    trial = planned.trial
    return condition_of(trial)._asdict() | {"arm": planned.row, "seed": trial.seed}


def _trial_row(planned: PlannedTrial) -> dict[str, Any]:
    row = _axes(planned) | {"status": status(planned), "fingerprint": planned.fingerprint}
    if planned.records:
        last = planned.records[-1]
        row |= {
            "num_labels": last.num_id + last.num_ood,
            "num_wasted": last.num_ood,
            "seconds": round(sum(sum(record.seconds.values()) for record in planned.records), 3),
        }
    if planned.is_finished:
        summary = summarise(planned.records)
        row |= {name: getattr(summary, name) for name in summary.__slots__}
    return row


def _round_row(planned: PlannedTrial, record: RoundRecord) -> dict[str, Any]:
    figures = {
        name: getattr(record, name) for name in ("round", "accuracy", "precision", "num_id", "num_ood", "logit_scale")
    }
    seconds = {f"seconds_{phase}": record.seconds[phase] for phase in PHASES}
    figures[RECALL] = record.diagnostics.get(RECALL)
    figures["cumulative_precision"] = cumulative_precision(planned.records[0], record)
    return _axes(planned) | figures | seconds | {"fingerprint": planned.fingerprint}
