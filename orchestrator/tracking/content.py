"""The content of a grid and a trial in MLflow: tags, params, metrics and files, as plain values."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from data.files import content_hash
from orchestrator.ledger.records import RoundRecord, cumulative_precision, summarise
from orchestrator.plan import PlannedTrial
from orchestrator.settings.trial import TrialConfig, flat
from orchestrator.trial.environment import code_version

PACKAGES = ("mlflow", "numpy", "ray", "torch")
"""Packages whose versions are noted with a grid."""
FILES = ("clipn.checkpoint", "clipn.templates")
"""Settings that are paths of files."""
TRIAL_AXES = ("dataset", "mismatch_ratio", "ood_ratio", "strategy", "arm", "seed")
"""Tags by which trials are grouped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GridCard:
    """Description of a grid for MLflow."""

    title: str
    """Name of the grid's run."""
    table: str = ""
    """Name of the table; grids of one output folder that are to have separate runs differ in it."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Further tags, such as the preset and the command. No secrets: nothing is masked here."""

    def identity(self, grid_id: str) -> str:
        """Tag by which the grid's run is found again."""
        return f"{grid_id}/{self.table}" if self.table else grid_id


def grid_tags(card: GridCard, planned: Sequence[PlannedTrial]) -> dict[str, str]:
    """Tags of a grid's run: its axes, the code and the machine. Tags, not params, since grids grow."""
    axes = [trial_axes(p) for p in planned]
    values = {name: ", ".join(dict.fromkeys(a[name] for a in axes)) for name in TRIAL_AXES}
    return {
        **({"table": card.table} if card.table else {}),
        **card.facts,
        **{f"grid.{name}": text for name, text in values.items()},
        "grid.trials": str(len(planned)),
        **{f"code.{name}": text for name, text in code_version().items()},
        "environment.python": platform.python_version(),
        "environment.machine": f"{platform.system()} {platform.machine()}",
        **{f"environment.{package}": found for package in PACKAGES if (found := _version(package))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def grid_settings(planned: Sequence[PlannedTrial]) -> str:
    """JSON text of a grid: the settings that all its trials share, and the values of those that differ."""
    values: dict[str, list[Any]] = {}
    for p in planned:
        for name, value in flat(p.trial.model_dump(mode="json")).items():
            seen = values.setdefault(name, [])
            if value not in seen:
                seen.append(value)
    shared = {name: seen[0] for name, seen in values.items() if len(seen) == 1}
    differing = {name: seen for name, seen in values.items() if len(seen) > 1}
    return json.dumps({"trials": len(planned), "shared": shared, "differing": differing}, indent=1)


def trial_axes(planned: PlannedTrial) -> dict[str, str]:
    """Place of a trial in its grid, by `TRIAL_AXES`."""
    trial = planned.trial
    return {
        "dataset": trial.dataset,
        # The tags that group trials keep their names: of named ID classes this one holds the names.
        "mismatch_ratio": trial.classes_text,
        "ood_ratio": trial.ood_text,
        "strategy": trial.strategy,
        "arm": planned.row,
        "seed": str(trial.seed),
    }


def trial_name(planned: PlannedTrial) -> str:
    """Name of a trial's run."""
    axes = trial_axes(planned)
    if axes["arm"] == axes["strategy"]:
        del axes["arm"]
    return " ".join(axes.values())


def trial_params(trial: TrialConfig) -> dict[str, str]:
    """Settings behind a trial's numbers, flat, as text: those that its strategy reads.

    Not in it: the number of rounds and where files lie. Those may change while the trial stays the same, and MLflow's
    params may not.
    """
    return {name: as_text(value)[:6000] for name, value in trial.settings_read().items() if name not in FILES}


def trial_metrics(records: Sequence[RoundRecord], *, start: int, rounds: int) -> list[tuple[str, float, int, int]]:
    """Metrics (name, value, time in ms, round) of a trial for MLflow, from round `start` on, in order.

    The last round also carries the figures of the whole trial (`TrialSummary`).
    """
    metrics = [
        (name, value, record.time_ms, record.round)
        for record in records[start:]
        for name, value in round_metrics(records[0], record).items()
    ]
    if len(records) >= rounds:
        summary = summarise(records)
        values = {name: getattr(summary, name) for name in summary.__slots__}
        last = records[-1]
        metrics += [(name, value, last.time_ms, last.round) for name, value in values.items() if value is not None]
    return metrics


def trial_checksum(trial: TrialConfig, fingerprint: str, records: Sequence[RoundRecord]) -> str:
    """Checksum (64 hex digits) of a finished trial's axes and of those figures by round that a report reads back."""
    return content_hash(
        {
            "fingerprint": fingerprint,
            "axes": [
                trial.dataset,
                trial.mismatch_ratio,
                trial.id_classes,
                trial.ood_ratio,
                trial.strategy,
                trial.seed,
            ],
            "rounds": [
                [each.round, each.accuracy, each.precision, each.num_id, each.num_ood, each.time_ms] for each in records
            ],
        }
    )


def round_metrics(first: RoundRecord, record: RoundRecord) -> dict[str, float]:
    """Metrics for MLflow of a round of a trial whose round 0 is `first`.

    These are its figures, the seconds per phase as `seconds/<phase>`, the figures of the purity request as
    `service/<figure>`, and the strategy's diagnostics.
    """
    metrics: dict[str, float | int | bool | None] = {
        "accuracy": record.accuracy,
        "precision": record.precision,
        "cumulative_precision": cumulative_precision(first, record),
        "num_id": record.num_id,
        "num_ood": record.num_ood,
        **record.diagnostics,
        **{f"seconds/{phase}": value for phase, value in record.seconds.items()},
        **{f"service/{name}": value for name, value in record.service.items()},
    }
    return {name: float(value) for name, value in metrics.items() if value is not None}


def trial_files(trial: TrialConfig, records: Sequence[RoundRecord]) -> dict[str, str]:
    """Files of a finished trial, text by name: its configuration, its records, and its queries."""
    config = {"trial": trial.model_dump(mode="json"), "environment": dict(records[-1].environment)}
    queries = [f"{record.round},{rank},{image}" for record in records for rank, image in enumerate(record.queried_idx)]
    return {
        "config.json": json.dumps(config, indent=1),
        "records.json": json.dumps([record.numbers() for record in records], indent=1),
        "queried_idx.csv": "\n".join(["round,rank,image", *queries, ""]),
    }


def as_text(value: Any) -> str:
    """A setting as MLflow keeps it: text unchanged, all else as JSON (20000, 0.1, true, null), which keeps the type."""
    return value if isinstance(value, str) else as_json(value)


def as_json(value: Any) -> str:
    """JSON text of a value."""
    return json.dumps(value, allow_nan=False)
