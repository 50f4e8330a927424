"""Mirror the ledger to MLflow from a thread of the driver.

The mirror only reads the ledger while the trials run: a tracking server that is slow or unreachable delays nothing and
loses nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.ledger.output import OutputFolder
from orchestrator.plan import PlannedTrial
from orchestrator.tracking.content import GridCard
from orchestrator.tracking.mirror import Mirror
from orchestrator.tracking.sqlite_store import check_database, sqlite_file
from orchestrator.tracking.uri import masked, without_secrets

Tell = Callable[[str], None]

EVERY = 3.0
"""Seconds between two looks at the ledger."""


class Tracker:
    """Follows a ledger from its own thread, between `start` and `finish`."""

    def __init__(
        self,
        planned: Sequence[PlannedTrial],
        output: OutputFolder,
        *,
        uri: str,
        experiment: str,
        card: GridCard,
        tell: Tell,
    ) -> None:
        self._mirror = Mirror(planned, output, uri=uri, experiment=experiment, card=card)
        self._uri = uri
        self._tell = tell
        self._warned = False
        self._one_at_a_time = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mlflow-mirror", daemon=True)

    def start(self) -> None:
        """Start to follow the ledger."""
        self._thread.start()

    def finish(self) -> bool:
        """Mirror what is left and stop; return whether MLflow now holds all that the ledger holds."""
        self._stop.set()
        self._thread.join()
        return self._tried(lambda: self._mirror.catch_up(final=True))

    def publish(self, files: Sequence[Path]) -> bool:
        """Attach a report's files to the grid's run, after `finish`; return whether they were sent. May be repeated."""
        return self._tried(lambda: self._mirror.publish(files))

    @property
    def page(self) -> str | None:
        """The experiment's charts in MLflow's UI, as the end of an address; None before MLflow has answered."""
        identity = self._mirror.experiment_id
        # Without the workflow MLflow opens an overview for language models, which is empty here.
        return (
            f"#/experiments/{identity}/runs?workflowType=machine_learning&compareRunsMode=CHART" if identity else None
        )

    def _cure(self) -> str:
        """What else a user has to do: a damaged SQLite file is in the way until it is moved."""
        file = sqlite_file(self._uri)
        try:
            if file is not None and file.is_file():
                check_database(file)
        except ValueError:
            return f" once {file}, which is damaged, is moved away"
        return ""

    def _follow(self) -> None:
        while not self._stop.wait(EVERY):
            self._tried(lambda: self._mirror.catch_up(final=False))

    def _tried(self, step: Callable[[], None]) -> bool:
        """Run a step; return whether it succeeded. An error is reported once, until MLflow answers again."""
        try:
            # `publish` may be called while the thread is in a step; two at once would create runs twice.
            with self._one_at_a_time:
                step()
        except Exception as error:  # whatever MLflow raises, the trials go on and the ledger keeps all
            self._mirror.disconnect()
            if not self._warned:
                reason = without_secrets(" ".join(str(error).split()), self._uri)[:300]
                self._tell(
                    f"warning: MLflow at {masked(self._uri)} does not take the results ({reason}); they are safe in "
                    f"the ledger, and running the same command again sends them{self._cure()}"
                )
            self._warned = True
            return False
        if self._warned:
            self._tell(f"MLflow at {masked(self._uri)} takes the results again; nothing is missing there")
            self._warned = False
        return True
