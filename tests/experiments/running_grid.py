"""table4.py as a process of its own, the processes of its local Ray, and the same trials computed without both, for
tests that interrupt and kill.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from experiments.presets import PRESETS
from experiments.results.frames import csv_text, rounds_frame
from orchestrator.ledger.ledger import Ledger
from orchestrator.plan import look_up, plan_trials
from orchestrator.settings.grid import RunSettings, load_preset, parse_overrides
from orchestrator.trial.compute import compute_trial, local_scorer

ROOT = Path(__file__).parents[2]
Found = TypeVar("Found")


def start_grid(
    output: Path, words: Sequence[str], *, log: Path | None = None, cache: Path | None = None
) -> subprocess.Popen[str]:
    """table4.py on a Ray of its own, in a process group of its own, as a terminal would start it.

    What it prints goes to pipes, or all of it to the end of the file `log`. `cache` in place of $VLPURE_CACHE.
    """
    command = [sys.executable, "experiments/table4.py", "--preset", "demo", "--address", "local", *words]
    with nullcontext(subprocess.PIPE) if log is None else log.open("a") as where:
        driver = subprocess.Popen(
            [*command, "-o", str(output)],
            cwd=ROOT,
            env=os.environ | ({} if cache is None else {"VLPURE_CACHE": str(cache)}),
            stdout=where,
            stderr=where,
            text=True,
            start_new_session=True,
            preexec_fn=_heed_ctrl_c,
        )
    # A session of its own hears nothing of the terminal's Ctrl-C: an interrupted test run left whole grids behind.
    atexit.register(end_all, driver)
    return driver


def end_all(driver: subprocess.Popen[str]) -> None:
    """Kill a grid with all its processes, if it still runs."""
    if driver.poll() is None:
        for pid in [driver.pid, *processes_below(driver.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        driver.wait()


def _heed_ctrl_c() -> None:
    """Undo what a shell does to the commands it starts in the background, so that the tests may run there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(find: Callable[[], Found | None], driver: subprocess.Popen[str], what: str) -> Found:
    """What `find` finds, while the grid runs."""
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        assert driver.poll() is None, f"the grid ended before there was {what}: {driver.communicate()}"
        found = find()
        if found is not None:
            return found
        time.sleep(0.02)
    driver.kill()
    raise AssertionError(f"there was never {what}")


def processes_below(pid: int) -> dict[int, str]:
    """Command lines of all descendants of a process."""
    parents, words = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            stat = (folder / "stat").read_text()
            words[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:  # it ended meanwhile
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    found: dict[int, str] = {}
    frontier = {pid}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier}
        found |= {child: words[child] for child in frontier}
    return found


def actors_below(pid: int, name: str) -> list[int]:
    """The Ray worker processes of a driver whose title begins with `ray::<name>`, in order of their numbers."""
    return sorted(child for child, words in processes_below(pid).items() if words.startswith(f"ray::{name}"))


Axes = Mapping[str, Sequence[Any]]


def grid_words(axes: Axes, settings: Sequence[str]) -> list[str]:
    """The flags of table4.py for these axes and settings of the preset demo."""
    chosen = [(f"--{name.replace('_', '-')}", ",".join(map(str, values))) for name, values in axes.items()]
    return [word for pair in [*chosen, *(("--set", setting) for setting in settings)] for word in pair]


def calm_rounds(output: Path, axes: Axes, settings: Sequence[str]) -> pd.DataFrame:
    """What rounds.csv of the same grid holds when nothing befalls it: computed in this process, without Ray."""
    trials = load_preset(PRESETS, "demo", dict(axes), {}).trials(parse_overrides(settings))
    ledger = Ledger(output / "ledger")
    planned = plan_trials(trials, ledger)
    scorer = local_scorer(trials, cpus=1, gpus=0)
    for p in planned:
        compute_trial(
            p,
            scorer=scorer,
            history=(),
            report=partial(ledger.append, p.fingerprint, p.trial.model_dump(mode="json")),
            classifiers=None,
            run=RunSettings(),
        )
    finished = [look_up(ledger, p.trial, p.fingerprint, p.data_fingerprint) for p in planned]
    path = output / "rounds.csv"
    path.write_text(csv_text(rounds_frame(finished)))
    return pd.read_csv(path)


def without_seconds(frame: pd.DataFrame) -> pd.DataFrame:
    """rounds.csv without the columns that may differ, in a fixed order."""
    frame = frame.sort_values(["fingerprint", "round"], ignore_index=True)
    return frame.drop(columns=[name for name in frame.columns if name.startswith("seconds")])
