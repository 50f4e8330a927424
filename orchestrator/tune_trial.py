"""One trial as Ray Tune runs it: the records come from and go to the ledger writer, purity from scoring actors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from orchestrator.config import TrialConfig
from orchestrator.grid import RunSettings
from orchestrator.local import compute_trial
from orchestrator.plan import PlannedTrial
from orchestrator.records import RoundRecord
from orchestrator.runner import Listener
from orchestrator.scoring_client import RemotePurityScorer, ScorerUnavailable

WRITER_TIMEOUT = 300.0
"""Seconds to wait for the ledger writer; it restarts by itself when it dies."""


def run_one(config: dict[str, Any], *, writer: Any, scorers: Sequence[Any], run: RunSettings, classifiers: str) -> None:
    """Compute one trial from its last record on, sending each new record to the writer before it counts.

    Errors that would come again (bad settings, diverged training, too little memory), or that were waited out already
    (no scorer answers), are noted in the ledger and not retried; anything else is left to Tune, which starts the trial
    again.
    """
    spec = config["spec"]
    trial = TrialConfig.model_validate_json(spec["trial"])
    planned = PlannedTrial(trial=trial, fingerprint=spec["fingerprint"], data_fingerprint=spec["data_fingerprint"])
    settings = trial.model_dump(mode="json")

    def keep(record: RoundRecord) -> None:
        ray.get(writer.append.remote(planned.fingerprint, settings, record), timeout=WRITER_TIMEOUT)
        tune.report({"round": record.round, "accuracy": record.accuracy, "precision": record.precision})

    try:
        compute_trial(
            planned,
            scorer=RemotePurityScorer(scorers, first=spec["number"]) if trial.uses_purity else None,
            history=ray.get(writer.history.remote(planned.fingerprint), timeout=WRITER_TIMEOUT),
            report=keep,
            classifiers=Path(classifiers),
            cpus=run.cpus_per_trial,
            gpus=run.gpus_per_trial,
            deterministic=run.deterministic,
            plain_steps=run.plain_steps,
        )
    except (ValueError, ArithmeticError, MemoryError, ScorerUnavailable) as error:
        message = f"{type(error).__name__}: {error}"
        ray.get(writer.fail.remote(planned.fingerprint, settings, message), timeout=WRITER_TIMEOUT)
        tune.report({"error": message})


class EndCallback(tune.Callback):
    """Tells the listener of each trial that ends, and notes in the ledger those that Tune gave up."""

    def __init__(self, todo: Sequence[PlannedTrial], writer: Any, listener: Listener) -> None:
        self._todo = todo
        self._writer = writer
        self._listener = listener

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reported a round, or that it failed."""
        if "error" not in result:
            self._listener.advance(self._planned(trial), result["round"], result["accuracy"])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial function returned; its last report says whether it failed."""
        self._listener.end(self._planned(trial), (trial.last_result or {}).get("error"))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial's process died, or raised, once more than is allowed."""
        planned = self._planned(trial)
        cause = trial.get_error()
        error = " ".join(str(cause).split()) if cause else "its worker process died"
        settings = planned.trial.model_dump(mode="json")
        ray.get(self._writer.fail.remote(planned.fingerprint, settings, error), timeout=WRITER_TIMEOUT)
        self._listener.end(planned, error)

    def _planned(self, trial: Trial) -> PlannedTrial:
        number: int = trial.config["spec"]["number"]
        return self._todo[number]
