"""What everything around the trials costs: a grid of trials that compute nothing, through Ray, ledger and MLflow.

python benchmarks/overhead.py                     (300 and 1,440 trials of 10 rounds on a local Ray, minutes)
python benchmarks/overhead.py --trials 300 --rounds 1 --no-mlflow
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data.files import content_hash
from orchestrator.cluster.leftovers import processes
from orchestrator.cluster.run_grid import run_grid
from orchestrator.ledger.output import open_output
from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial
from orchestrator.settings.grid import RunSettings
from orchestrator.settings.reading import make_trial
from orchestrator.tracking.content import GridCard
from orchestrator.tracking.tracker import Tracker
from orchestrator.tracking.uri import default_tracking_uri

BUDGET = 500


def noop(planned: PlannedTrial, *, history: Sequence[RoundRecord], report: Any, **unused: Any) -> list[RoundRecord]:
    """The records of a trial as large as real ones, without computing anything."""
    records = list(history)
    for number in range(len(records), planned.trial.rounds):
        record = RoundRecord(
            round=number,
            accuracy=0.5 + number / 100,
            precision=0.75 if number else None,
            num_id=100 + number,
            num_ood=100 + number,
            queried_idx=list(range(BUDGET)) if number else [],
            diagnostics={"logit_scale": 3.7, "num_filled": 0} if number else {},
            pool_checksum=f"{number:064d}",
            seconds={"query": 0.0, "train": 0.0, "evaluate": 0.0},
            peak_memory_mib=1,
            environment={"device": "none"},
            time_ms=time.time_ns() // 1_000_000,
        )
        report(record)
        records.append(record)
    return records


def importable(function: Any) -> Any:
    """The same function of this file as a module, which other processes can import."""
    return getattr(importlib.import_module("benchmarks.overhead"), function.__name__)


class Clock:
    """Hears when the trials begin and end."""

    def __init__(self) -> None:
        self.begun = self.first = self.ended = 0.0
        self.num_failed = 0
        self.ray_part = RayPart()

    def tell(self, line: str) -> None:
        """Nothing to be heard."""

    def warn(self, line: str) -> None:
        """A line that matters."""
        print(line, file=sys.stderr)

    def begin(self, todo: Sequence[PlannedTrial]) -> None:
        """The clock starts."""
        self.begun = time.perf_counter()

    def start(self, planned: PlannedTrial) -> None:
        """A trial starts."""
        self.first = self.first or time.perf_counter()

    def advance(self, planned: PlannedTrial, round_number: int, accuracy: float) -> None:
        """A round."""

    def stumble(self, planned: PlannedTrial, reason: str) -> None:
        """A trial was lost."""

    def end(self, planned: PlannedTrial, error: str | None) -> None:
        """A trial ended."""
        self.ended = time.perf_counter()
        self.ray_part.look()
        self.num_failed += error is not None


class RayPart:
    """What the process of Ray's part has taken so far, where the system tells (Linux); zeros elsewhere."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self.cpu_seconds = 0.0
        self.peak_mib = 0

    def look(self) -> None:
        """Read its figures."""
        if self._pid is None:
            leaders = [each.pid for each in processes() if each.parent == os.getpid() and each.session == each.pid]
            if len(leaders) != 1:
                return
            self._pid = leaders[0]
        folder = Path(f"/proc/{self._pid}")
        times = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
        self.cpu_seconds = sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
        (peak,) = (line for line in (folder / "status").read_text().splitlines() if line.startswith("VmHWM:"))
        self.peak_mib = int(peak.split()[1]) >> 10


def make_plan(num_trials: int, rounds: int) -> list[PlannedTrial]:
    """Trials that differ in their seeds."""
    return [
        PlannedTrial(
            trial=make_trial(
                dataset="digits", mismatch_ratio=0.2, ood_ratio=0.6, strategy="random", seed=seed, rounds=rounds
            ),
            fingerprint=content_hash(["noop", seed]),
            data_fingerprint="none",
        )
        for seed in range(num_trials)
    ]


def measure(num_trials: int, rounds: int, *, with_mlflow: bool, folder: Path) -> None:
    """Run the grid and print its figures."""
    planned, clock = make_plan(num_trials, rounds), Clock()
    with open_output(folder).locked() as output:
        tracker = None
        if with_mlflow:
            tracker = Tracker(
                planned,
                output,
                uri=default_tracking_uri(output.path),
                experiment="noop",
                card=GridCard(title="noop"),
                tell=lambda line: print(line, file=sys.stderr),
            )
            tracker.start()
        called = time.perf_counter()
        run_grid(planned, output, RunSettings(), address="local", listener=clock, compute=importable(noop))
        trials_done = time.perf_counter()
        complete = tracker.finish() if tracker else True
        lag = time.perf_counter() - trials_done
    seconds = clock.ended - clock.begun
    files = list((folder / "ledger").iterdir())
    assert len(files) == num_trials
    print(
        f"{num_trials} trials of {rounds} rounds: {seconds:.1f} s = {1000 * seconds / num_trials:.0f} ms a trial, "
        f"{1000 * seconds / num_trials / rounds:.1f} ms a round; {clock.num_failed} failed; "
        f"open files {_open_files()}; ledger {sum(file.stat().st_size for file in files) / 2**20:.1f} MiB in "
        f"{len(files)} files"
    )
    own, ray_part = resource.getrusage(resource.RUSAGE_SELF), clock.ray_part
    cpu_seconds = own.ru_utime + own.ru_stime + ray_part.cpu_seconds
    print(
        f"  first trial after {clock.first - called:.1f} s; CPU {cpu_seconds / num_trials:.3f} s a trial; peak memory "
        f"{own.ru_maxrss >> 10} MiB (supervisor) and {ray_part.peak_mib} MiB (Ray's part)"
    )
    if tracker:
        print(f"  MLflow complete {lag:.1f} s after the last trial" if complete else "  MLflow is not complete")


def _open_files() -> str:
    """Of this process, where the system tells (Linux)."""
    folder = Path("/proc/self/fd")
    return str(len(list(folder.iterdir()))) if folder.exists() else "unknown"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure the orchestrator's own cost with trials that do nothing.")
    parser.add_argument("--trials", type=int, nargs="+", default=[300, 1440], metavar="N", help="numbers of trials")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="rounds a trial (default: 10)")
    parser.add_argument("--no-mlflow", action="store_true", help="without the mirror")
    args = parser.parse_args()
    for num_trials in args.trials:
        folder = Path(tempfile.mkdtemp(prefix="vlpure-overhead-"))
        try:
            measure(num_trials, args.rounds, with_mlflow=not args.no_mlflow, folder=folder / "out")
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
