"""How fast MLflow gets what the ledger has: a synthetic grid, mirrored from nothing, followed, and looked at again.

Measures, on an SQLite store: seconds until all trials are there; seconds of a look at a ledger in which nothing is new;
seconds from a new round to its metrics; and seconds until another launch knows that nothing is missing.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from orchestrator.ledger.ledger import TrajectoryState
from orchestrator.ledger.output import OutputFolder, open_output
from orchestrator.ledger.records import RoundRecord
from orchestrator.plan import PlannedTrial, look_up
from orchestrator.settings.reading import make_trial
from orchestrator.tracking.content import GridCard
from orchestrator.tracking.mirror import Mirror
from orchestrator.tracking.uri import masked


def make_plan(trials: int, rounds: int) -> list[PlannedTrial]:
    """Trials of one condition, told apart by their seeds."""
    axes = {"dataset": "digits", "mismatch_ratio": 0.2, "ood_ratio": 0.6, "strategy": "vlpure", "rounds": rounds}
    return [
        PlannedTrial(trial=make_trial(**axes, seed=seed), fingerprint=f"{seed:064x}", data_fingerprint="d")
        for seed in range(trials)
    ]


def make_record(number: int, *, budget: int) -> RoundRecord:
    """A record of the size of a real one."""
    diagnostics = {f"diagnostic_{name}": number / 7 for name in range(8)} if number else {}
    return RoundRecord(
        round=number, accuracy=0.5 + number / 100, precision=0.7 if number else None, num_id=budget * (number + 1),
        num_ood=0, queried_idx=list(range(budget)) if number else [], diagnostics=diagnostics, pool_checksum="0" * 64,
        seconds={"query": 1.0, "train": 2.0, "evaluate": 3.0}, peak_memory_mib=1000, environment={"device": "none"},
        time_ms=1_700_000_000_000 + number, service={"seconds": 0.1, "queue": 0, "lost": 0} if number else {},
    )  # fmt: skip


def fill(output: OutputFolder, plan: Sequence[PlannedTrial], rounds: int, budget: int) -> None:
    """The ledger of a grid that is done but for the last round of its last trial."""
    records = [make_record(number, budget=budget) for number in range(rounds)]
    for p in plan:
        there = records[: rounds - (p is plan[-1])]
        output.ledger.put(TrajectoryState(fingerprint=p.fingerprint, trial={}, records=tuple(there)))


def measure(uri: str | None, *, trials: int, rounds: int, budget: int) -> None:
    """Print what it takes."""
    plan = make_plan(trials, rounds)
    with tempfile.TemporaryDirectory() as folder, open_output(Path(folder) / "out").locked() as output:
        store = uri or f"sqlite:///{output.path / 'mlflow.db'}"

        def mirror() -> Mirror:
            known = [look_up(output.ledger, p.trial, p.fingerprint, p.data_fingerprint) for p in plan]
            return Mirror(known, output, uri=store, experiment="benchmark", card=GridCard(title="benchmark"))

        fill(output, plan, rounds, budget)
        print(f"{trials} trials of {rounds} rounds, {masked(uri) if uri else 'a new SQLite file'}")
        first = mirror()
        seconds = timed(first, "from nothing")
        print(f"    {seconds / trials * 1000:.0f} ms a trial")
        timed(first, "nothing new")
        output.ledger.append(plan[-1].fingerprint, {}, make_record(rounds - 1, budget=budget))
        timed(first, "one new round, which ends its trial")
        timed(mirror(), "another launch, all there already")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"most memory of this process: {memory:.0f} MiB")


def timed(mirror: Mirror, what: str) -> float:
    """Seconds of one catching up, printed; those of a CPU say more where other work goes on."""
    started, worked = time.perf_counter(), time.process_time()
    mirror.catch_up(final=False)
    seconds, work = time.perf_counter() - started, time.process_time() - worked
    print(f"  {what:36s} {seconds:8.2f} s, {work:7.2f} s of a CPU", flush=True)
    return seconds


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="How fast MLflow gets what the ledger has.")
    parser.add_argument("--trials", type=int, default=300, metavar="N", help="trials of the grid (default: 300)")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="rounds of a trial (default: 10)")
    parser.add_argument("--budget", type=int, default=500, metavar="N", help="images queried a round (default: 500)")
    parser.add_argument("--tracking-uri", metavar="URI", help="a store other than a new SQLite file")
    args = parser.parse_args()
    measure(args.tracking_uri, trials=args.trials, rounds=args.rounds, budget=args.budget)


if __name__ == "__main__":
    main()
