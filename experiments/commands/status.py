"""`--status`: the progress of a grid, read from its output folder, from any terminal, while the grid is running."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.console import DONE, SOME_FAILED, duration
from orchestrator.launch import Launch, LaunchedTrial, last_launch
from orchestrator.ledger.ledger import TrajectoryState
from orchestrator.ledger.output import OutputFolder, find_output
from orchestrator.ledger.words import clock, describe_trial

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The trials of a launch, grouped by their progress."""

    finished: list[LaunchedTrial] = field(default_factory=list)
    failed: list[LaunchedTrial] = field(default_factory=list)
    begun: list[LaunchedTrial] = field(default_factory=list)
    """Trials with some of their rounds."""
    waiting: list[LaunchedTrial] = field(default_factory=list)
    """Trials without a round."""
    states: dict[str, TrajectoryState] = field(default_factory=dict)
    """Fingerprint -> the ledger's state, for trials of other launches too."""
    damaged: list[str] = field(default_factory=list)
    """The errors of ledger files that cannot be read."""

    @property
    def rounds_left(self) -> int:
        """Rounds to run, in the trials that have not failed."""
        return sum(trial.rounds - self.num_rounds(trial) for trial in (*self.begun, *self.waiting))

    def num_rounds(self, trial: LaunchedTrial) -> int:
        """Number of rounds that a trial has finished."""
        state = self.states.get(trial.fingerprint)
        return min(trial.rounds, len(state.records)) if state else 0


def show_status(folder: Path, command: str) -> int:
    """Print the progress of the trials of `command` in an output folder; return the exit code, 1 if some failed.

    Only reads: it takes no lock and writes nothing. Raises ValueError for a folder that is not an output folder.
    """
    output = find_output(folder)
    standing, launch = read_standing(output, command)
    for line in status_lines(output, launch, standing, now_ms=time.time_ns() // 1_000_000):
        print(line)
    return SOME_FAILED if standing.failed or standing.damaged else DONE


def read_standing(output: OutputFolder, command: str) -> tuple[Standing, Launch | None]:
    """The progress of the trials of the last launch of `command`; without one, of all trials of the ledger."""
    standing = Standing()
    for path in sorted(output.ledger.folder.glob("*.json")):
        try:
            state = output.ledger.state(path.stem)
        except ValueError as error:
            # One damaged file must not hide the progress of all other trials.
            standing.damaged.append(str(error))
            continue
        if state is not None:
            standing.states[path.stem] = state
    launch = last_launch(output, command)
    for trial in launch.trials if launch else _of_ledger(standing.states.values()):
        _group(standing, trial).append(trial)
    return standing, launch


def _of_ledger(states: Iterable[TrajectoryState]) -> Iterator[LaunchedTrial]:
    """The trials of a ledger, with the rounds that they were to have when they started."""
    for state in states:
        rounds = int(state.trial.get("rounds", len(state.records)))
        yield LaunchedTrial(fingerprint=state.fingerprint, label=describe_trial(state.trial), rounds=rounds)


def _group(standing: Standing, trial: LaunchedTrial) -> list[LaunchedTrial]:
    """The list that a trial belongs to."""
    state = standing.states.get(trial.fingerprint)
    if state is None:
        return standing.waiting
    if len(state.records) >= trial.rounds:
        return standing.finished
    if state.error is not None:
        return standing.failed
    return standing.begun if state.records else standing.waiting


def status_lines(output: OutputFolder, launch: Launch | None, standing: Standing, *, now_ms: int) -> Iterator[str]:
    """The printed lines."""
    writer = output.writer
    at_work = f"a run is active (process {writer})" if writer else "no active run that this machine can see"
    yield f"{output.path}: {at_work}"
    asked = f"{launch.command}, started {clock(launch.time_ms)}" if launch else "all trials of the ledger"
    trials = [*standing.finished, *standing.failed, *standing.begun, *standing.waiting]
    yield (
        f"{asked}: {len(trials)} trial(s): {len(standing.finished)} finished, {len(standing.begun)} started, "
        f"{len(standing.waiting)} waiting, {len(standing.failed)} failed; "
        f"{sum(map(standing.num_rounds, trials))} of {sum(trial.rounds for trial in trials)} rounds"
    )
    yield from _pace_lines(launch, standing, trials, now_ms=now_ms, is_running=writer is not None)
    for trial in standing.begun:
        last = _ago(standing.states[trial.fingerprint].records[-1].time_ms, now_ms)
        yield f"  started: {trial.label}: {standing.num_rounds(trial)} of {trial.rounds} rounds, the last {last}"
    for trial in standing.failed:
        state = standing.states[trial.fingerprint]
        yield f"  failed: {trial.label}: {' '.join(str(state.error).split())}"
        yield f"    {_reproduction(state)}"
    others = len(standing.states) - sum(trial.fingerprint in standing.states for trial in trials)
    if others:
        yield f"{others} other trial(s) in the ledger, of other launches"
    yield from standing.damaged


def _pace_lines(
    launch: Launch | None, standing: Standing, trials: Sequence[LaunchedTrial], *, now_ms: int, is_running: bool
) -> Iterator[str]:
    """The lines with the last record, the rate and the time left."""
    times = [
        record.time_ms
        for trial in trials
        if trial.fingerprint in standing.states
        for record in standing.states[trial.fingerprint].records[: trial.rounds]
    ]
    if not times:
        yield "no round is finished yet"
        return
    # Not before the launch: a rate that counts the time in which nothing ran would promise too long a wait.
    since = max(now_ms - HOUR_MS, launch.time_ms if launch and is_running else 0)
    recent, hours = sum(time_ms > since for time_ms in times), (now_ms - since) / HOUR_MS
    line = f"last record {_ago(max(times), now_ms)}"
    if recent and hours > 0:
        window = "hour" if since == now_ms - HOUR_MS else duration(3600 * hours)
        line += f"; in the last {window} {recent} round(s), {recent / hours:.3g} per hour"
        if is_running and standing.rounds_left:
            line += f"; about {duration(3600 * standing.rounds_left * hours / recent)} left"
    yield line
    if not is_running and (standing.rounds_left or standing.failed):
        yield "the same command continues from there"


def _ago(time_ms: int, now_ms: int) -> str:
    return f"{clock(time_ms)} ({duration(max(0, now_ms - time_ms) / 1000)} ago)"


def _reproduction(state: TrajectoryState) -> str:
    """The command that runs a trial alone in one process, to find out why it failed."""
    from experiments.results.reproduce import trial_command  # reads the presets: only where something failed
    from orchestrator.settings.trial import TrialConfig

    try:
        return trial_command(TrialConfig.model_validate_json(json.dumps(state.trial)))
    except ValueError as error:
        return f"(no command runs it alone: {error})"
