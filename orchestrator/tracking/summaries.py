"""Summaries in MLflow: a run per condition and arm with the means over its seeds, and the trials below it.

MLflow adds to a metric's history and never replaces it. A mean changes with each seed, so a summary is written once, as
soon as its seeds are finished, and a run that no longer agrees with the ledger is replaced by a new one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from orchestrator.ledger.records import RoundRecord, aubc
from orchestrator.plan import PlannedTrial
from orchestrator.tracking.content import trial_axes

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

SUMMARY_OF, CELL, SUMMARISED = "vlpure.summary_of", "vlpure.cell", "vlpure.summarised"
"""Tags of a summary: its grid's run, its condition and arm, and the records that it was made of."""
CELL_AXES = ("dataset", "mismatch_ratio", "ood_ratio", "strategy", "arm")

MetricValue = tuple[str, float, int, int]
"""Name, value, time in ms, round."""


def cell_of(planned: PlannedTrial) -> str:
    """Condition and arm of a trial in one line, which is also the name of their run."""
    axes = trial_axes(planned)
    classes = "mismatch" if planned.trial.id_classes is None else "ID classes"
    return f"{axes['arm']} · {axes['dataset']} {classes} {axes['mismatch_ratio']} ood {axes['ood_ratio']}"


def summary_metrics(seeds: Sequence[Sequence[RoundRecord]]) -> Iterator[MetricValue]:
    """Metrics of the records of all seeds: accuracy, precision and AUBC up to each round that all seeds have.

    Means over the seeds as `mean/<name>`, and from two seeds on the bounds of their 95 % t-intervals as
    `t_interval/<name>_low` and `_high`. MLflow makes a section of charts of each prefix, in alphabetical order and
    before the metrics without one, so these are what one sees first.
    """
    for number in range(min(map(len, seeds))):
        time_ms = max(records[number].time_ms for records in seeds)
        values: dict[str, list[float | None]] = {
            "accuracy": [records[number].accuracy for records in seeds],
            "precision": [records[number].precision for records in seeds],
            "aubc": [aubc([record.accuracy for record in records[: number + 1]]) for records in seeds],
        }
        for name, found in values.items():
            known = [value for value in found if value is not None]
            if not known:
                continue
            yield f"mean/{name}", fmean(known), time_ms, number
            if len(known) > 1:
                half = _t_quantile(len(known) - 1) * stdev(known) / math.sqrt(len(known))
                yield f"t_interval/{name}_low", fmean(known) - half, time_ms, number
                yield f"t_interval/{name}_high", fmean(known) + half, time_ms, number


def _t_quantile(degrees: int) -> float:
    """97.5 % quantile of Student's t."""
    from scipy.special import stdtrit  # needed only if something is summarised

    return float(stdtrit(degrees, 0.975))


def summary_mark(seeds: Sequence[Sequence[RoundRecord]]) -> str:
    """Identifies the records behind a summary: how many each seed has, and when the last one was made."""
    return ", ".join(f"{len(records)} rounds {records[-1].time_ms}" for records in seeds)


def data_input(planned: PlannedTrial) -> DatasetInput:
    """Data set of the trial as an MLflow input, by its fingerprint."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest = planned.data_fingerprint[:32]  # MLflow keeps 36 letters
    data = Dataset(name=planned.trial.dataset, digest=digest, source_type="vlpure", source=planned.trial.dataset)
    return DatasetInput(dataset=data, tags=[InputTag(key="mlflow.data.context", value="training")])


@dataclass(slots=True, kw_only=True)
class Summary:
    """State of a condition and arm in MLflow."""

    run_id: str
    mark: str = ""
    """Mark of the records that it was made of; empty while it has no metrics."""
    is_running: bool = True


class Summaries:
    """The summaries of one grid."""

    def __init__(self, client: MlflowClient, *, experiment_id: str, parent_id: str, found: Iterator[Run]) -> None:
        """Take over existing summaries: `parent_id` is the grid's run, `found` its summaries, oldest first."""
        self._client, self._experiment_id, self._parent_id = client, experiment_id, parent_id
        self._known: dict[str, Summary] = {}
        for run in found:
            cell = run.data.tags.get(CELL, "")
            if cell in self._known:
                client.delete_run(run.info.run_id)  # a retried request can leave two
                continue
            self._known[cell] = Summary(
                run_id=str(run.info.run_id),
                mark=run.data.tags.get(SUMMARISED, ""),
                is_running=run.info.status == "RUNNING",
            )

    def run_for(self, planned: PlannedTrial) -> str:
        """Run below which a trial belongs; made if there is none."""
        cell = cell_of(planned)
        if cell not in self._known:
            self._known[cell] = self._create(planned)
        return self._known[cell].run_id

    def holds(self, planned: PlannedTrial, seeds: Sequence[Sequence[RoundRecord]]) -> bool:
        """Whether the summary of the trial's condition and arm was made of these records."""
        summary = self._known.get(cell_of(planned))
        return summary is not None and summary.mark == summary_mark(seeds)

    def write(self, planned: Sequence[PlannedTrial], seeds: Sequence[Sequence[RoundRecord]], *, status: str) -> bool:
        """Write the summary of a condition and arm from its finished seeds; return whether its run is a new one.

        `planned` are all its trials. A new run has to be made known to the trials below it.
        """
        from mlflow.entities import Metric, RunTag

        cell = cell_of(planned[0])
        is_new = bool(self._known[cell].mark)
        if is_new:
            # A written mean cannot be replaced: MLflow only adds to a metric's history.
            self._client.delete_run(self._known[cell].run_id)
            self._known[cell] = self._create(planned[0])
        summary, mark = self._known[cell], summary_mark(seeds)
        metrics = [Metric(*values) for values in summary_metrics(seeds)]
        tags = [RunTag(SUMMARISED, mark), RunTag("seeds", f"{len(seeds)} of {len(planned)}")]
        for start in range(0, len(metrics), 800):
            self._client.log_batch(summary.run_id, metrics=metrics[start : start + 800])
        self._client.log_batch(summary.run_id, tags=tags)  # last: without its mark it is written again
        summary.mark = mark
        self._end(summary, status)
        return is_new

    def close(self, planned: PlannedTrial, *, status: str) -> None:
        """End the summary of a condition and arm of which no trial runs any more."""
        summary = self._known.get(cell_of(planned))
        if summary is not None and summary.is_running:
            self._end(summary, status)

    def _end(self, summary: Summary, status: str) -> None:
        self._client.set_terminated(summary.run_id, status)
        summary.is_running = False

    def _create(self, planned: PlannedTrial) -> Summary:
        from mlflow.entities import Param

        axes = {name: text for name, text in trial_axes(planned).items() if name in CELL_AXES}
        tags = axes | {SUMMARY_OF: self._parent_id, CELL: cell_of(planned)}
        run = self._client.create_run(self._experiment_id, tags=tags, run_name=cell_of(planned))
        run_id = str(run.info.run_id)
        self._client.log_batch(run_id, params=[Param(name, text) for name, text in axes.items()])
        self._client.log_inputs(run_id, [data_input(planned)])
        return Summary(run_id=run_id)
