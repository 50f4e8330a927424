"""One trial as Ray Tune runs it, and the driver's handling of what Tune reports.

The records come from and go to the ledger writer, purity comes from scoring actors.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.experiment import Trial

from data.console import RunStopped, duration, to_stderr
from data.files import cache_root
from models.freed_memory import give_back_memory
from orchestrator.cluster.channel import Compute, Listener, memory_use, shorten
from orchestrator.cluster.node import enter_folder, fetch_missing
from orchestrator.cluster.scorer_client import RemotePurityScorer, ScorerUnavailable
from orchestrator.cluster.writer import LedgerMended
from orchestrator.cluster.writer_client import RemoteWriter
from orchestrator.ledger.ledger import LedgerUnwritable
from orchestrator.ledger.output import is_this_output
from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial
from orchestrator.settings.grid import RunSettings
from orchestrator.settings.trial import TrialConfig

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0
"""Seconds that a trial waits after Ray's memory monitor killed it; doubled each time without a round in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialServices:
    """Services that every trial of a grid is given."""

    writer: RemoteWriter
    scorers: tuple[Any, ...]
    """Handles of the scoring actors."""
    run: RunSettings
    folder: str
    """Folder that the command was called in: relative paths of the settings start there."""
    output: str
    """Path of the output folder on the driver's machine."""
    grid_id: str
    compute: Compute | None = None
    """Function used instead of `compute_trial`, if given."""


def run_one(config: dict[str, Any], *, services: TrialServices) -> None:
    """Compute one trial from its last record on, sending each new record to the writer before it counts.

    Errors that would come again (bad settings, diverged training, too little memory), or that were waited out already
    (no scorer answers), are noted in the ledger and not retried; anything else is left to Tune, which starts the trial
    again.
    """
    spec, writer, run = config["spec"], services.writer, services.run
    trial = TrialConfig.model_validate_json(spec["trial"])
    planned = PlannedTrial(trial=trial, fingerprint=spec["fingerprint"], data_fingerprint=spec["data_fingerprint"])
    settings = trial.model_dump(mode="json")
    node = {"host": socket.gethostname(), "node": ray.get_runtime_context().get_node_id()[:8]}

    def keep(record: RoundRecord) -> None:
        placed = replace(record, environment={**record.environment, **node})
        writer.ask("append", planned.fingerprint, settings, placed)
        tune.report({"round": record.round, "accuracy": record.accuracy, "precision": record.precision})

    enter_folder(services.folder)
    time.sleep(writer.ask("pause", planned.fingerprint))
    try:
        if run.fetch_data:
            fetch_missing([trial], progress=to_stderr)
        compute = services.compute or _compute_trial()
        compute(
            planned,
            scorer=RemotePurityScorer(services.scorers, first=spec["number"]) if trial.uses_scorer else None,
            history=writer.ask("history", planned.fingerprint),
            report=keep,
            classifiers=_classifiers_folder(services),
            run=run,
        )
    except RunStopped as error:
        tune.report({"fatal": str(error)})
    except (ValueError, ArithmeticError, MemoryError, ScorerUnavailable) as error:
        message = f"{type(error).__name__}: {error}"
        try:
            writer.ask("fail", planned.fingerprint, settings, message)
        except LedgerUnwritable as full:
            tune.report({"fatal": str(full)})
        else:
            tune.report({"error": message})
    finally:
        give_back_memory()


def _compute_trial() -> Compute:
    """Function that computes trials; imported in the worker, since it brings torch, which the driver does not need."""
    from orchestrator.trial.compute import compute_trial

    return compute_trial


def _classifiers_folder(services: TrialServices) -> Path:
    """Folder for classifiers of the grid on this machine: in the output folder if it is here, else in the cache."""
    output = Path(services.output)
    if is_this_output(output, services.grid_id):
        return output / "classifiers"
    return cache_root() / "classifiers" / services.grid_id


class Follower(tune.Callback):
    """Reports to the listener what happens to trials, notes in the ledger those that are given up, and stops the run
    if the ledger cannot be written.

    A trial is given up when it was lost `max_failures` + 1 times without finishing a round in between: machines that
    are taken away again and again do not end a trial that makes progress.
    """

    def __init__(
        self,
        todo: Sequence[PlannedTrial],
        writer: RemoteWriter,
        listener: Listener,
        *,
        max_failures: int,
        is_hopeless: Callable[[], bool] = lambda: False,
    ) -> None:
        """Follow the trials; `is_hopeless` returns whether the run has to stop for something that no trial reports."""
        self._todo = todo
        self._writer = writer
        self._listener = listener
        self._max_failures = max_failures
        self._is_hopeless = is_hopeless
        self._failures_before: dict[str, int] = {}
        """Number of times each trial was lost before its last finished round."""
        self.fatal: str | None = None
        """Reason why the whole run has to stop."""

    def __getstate__(self) -> dict[str, Any]:
        """Return an empty state: Tune saves it to be restored from, and we never restore from it."""
        return {}

    @property
    def must_stop(self) -> bool:
        """Whether no further trial is to be run."""
        return self.fatal is not None or self._is_hopeless()

    @property
    def stopper(self) -> tune.Stopper:
        """Stopper that ends the experiment as soon as there is a fatal error, or no hope."""
        return _FatalStopper(self)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Report that a trial got a worker process."""
        self._listener.start(self._planned(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Handle the report of a round, of a failure, or of an unwritable ledger."""
        if "fatal" in result:
            self.fatal = result["fatal"]
        elif "error" not in result:
            trial.max_failures = trial.num_failures + self._max_failures
            self._failures_before[trial.trial_id] = trial.num_failures
            self._listener.advance(self._planned(trial), result["round"], result["accuracy"])

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Report that a trial was lost and that Tune starts it again; after a pause if memory was short."""
        planned, error = self._planned(trial), last_error(trial)
        if memory_use(error) is None:
            if isinstance(error.cause if isinstance(error, RayTaskError) else error, LedgerMended):
                self._listener.warn(f"{planned.label}: {reason(error)}")
            else:
                self._listener.stumble(planned, reason(error))
            return
        times = trial.num_failures - self._failures_before.get(trial.trial_id, 0)
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (times - 1))
        # At once it would only be killed again: memory is still short.
        self._writer.tell("hold_back", planned.fingerprint, pause)
        self._listener.warn(f"{planned.label}: {reason(error)}; it goes on in {duration(pause)}")

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Report that a trial ended; its last result holds an error if it failed."""
        if not self.must_stop:
            self._listener.end(self._planned(trial), (trial.last_result or {}).get("error"))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Give up a trial that was lost once more than is allowed."""
        planned = self._planned(trial)
        times = self._max_failures + 1
        error = f"given up after {times} attempt(s) without a finished round; the last: {reason(last_error(trial))}"
        try:
            self._writer.ask("fail", planned.fingerprint, planned.trial.model_dump(mode="json"), error)
        except (LedgerUnwritable, RayError) as trouble:
            self.fatal = str(trouble)
            return
        self._listener.end(planned, error)

    def _planned(self, trial: Trial) -> PlannedTrial:
        number: int = trial.config["spec"]["number"]
        return self._todo[number]


class _FatalStopper(tune.Stopper):
    """Stops no trial by itself, and all of them once the follower knows a fatal error."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._follower.must_stop


def last_error(trial: Trial) -> BaseException | str | None:
    """Reason why a trial was lost: an error, or text if the error cannot be read back; None if Tune noted nothing.

    `Trial.get_error` reads a field that Tune has not set yet when it calls back: it returns None for every error.
    """
    pickled, text = trial.pickled_error_file, trial.error_file
    try:
        if pickled is not None:
            error: BaseException = ray.cloudpickle.loads(Path(pickled).read_bytes())
            return error
    except Exception:  # an error of a class that this process cannot make
        return Path(text).read_text() if text is not None else None
    return None


def reason(error: BaseException | str | None) -> str:
    """Reason why a trial was lost, in one line, without the remote traceback; `error` as Tune remembers it."""
    if error is None or isinstance(error, RayActorError):
        memory = memory_use(error)
        if memory is not None:
            return f"its worker process was killed by Ray's memory monitor ({memory})"
        return "its worker process died (killed, out of memory, or its machine went away)"
    if isinstance(error, RayTaskError) and error.cause is not None:
        error = error.cause
    if isinstance(error, LedgerMended):
        return str(error)  # whole: it names two files
    if isinstance(error, str):  # an error that could not be pickled: its traceback, which ends with the error
        return shorten(error.strip().rpartition("\n")[2])
    return shorten(f"{type(error).__name__}: {error}")
