"""What can befall a running grid, one event at a time, and how the grid gets over each: by itself, or started again."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tests.experiments.nemesis_grid import HANG, Grid

FROZEN = 40.0
"""Seconds for which a process is stopped."""


def kill_one(pids: Sequence[int], chance: random.Random) -> bool:
    """SIGKILL for one of these, if there is one."""
    if not pids:
        return False
    with suppress(ProcessLookupError):
        os.kill(chance.choice(pids), signal.SIGKILL)
    return True


def freeze(pids: Sequence[int]) -> bool:
    """Stop the first of these for a while, if there is one."""
    if not pids:
        return False
    os.kill(pids[0], signal.SIGSTOP)
    time.sleep(FROZEN)
    with suppress(ProcessLookupError):
        os.kill(pids[0], signal.SIGCONT)
    return True


def signal_all(grid: Grid, number: int) -> bool:
    """What `scancel` does: a signal for every process of the job."""
    for pid in [grid.pid, *grid.below()]:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return True


def signal_group(grid: Grid, number: int) -> bool:
    """A signal for the process group of the command, as a terminal sends it."""
    os.killpg(os.getpgid(grid.pid), number)
    return True


def signal_parent(grid: Grid, number: int) -> bool:
    """A signal for the command alone."""
    os.kill(grid.pid, number)
    return True


def kill_ray_group(grid: Grid, chance: random.Random) -> bool:
    """SIGKILL for the process group of Ray's part."""
    pid = grid.ray_part
    if pid is not None:
        os.killpg(pid, signal.SIGKILL)
    return pid is not None


def shorten_memory(grid: Grid, chance: random.Random) -> bool:
    """Let memory be short until Ray's monitor has killed something."""
    seen = set(grid.actors("ImplicitFunc")) | set(grid.actors("ScoringActor"))
    if not seen:
        return False
    grid.set_memory(free=False)
    deadline = time.monotonic() + HANG
    # The newest is killed first, which on a busy machine is one that came after the first look.
    while seen <= set(grid.below()) and time.monotonic() < deadline:
        seen |= set(grid.actors("ImplicitFunc")) | set(grid.actors("ScoringActor"))
        time.sleep(0.05)
    grid.set_memory(free=True)
    assert time.monotonic() < deadline, f"Ray's memory monitor killed nothing:\n{grid.ray_log('memory')}"
    return True


def fill_disk(grid: Grid, chance: random.Random) -> bool:
    """Leave no room for records until the command ends."""
    filler = grid.output / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 65536):
            pass
        while file.write(b"x"):
            pass
    try:
        wait_for_end(grid)
    finally:
        filler.unlink()
    return True


def lose_locks(grid: Grid, chance: random.Random) -> bool:
    """Let every flock fail until the command ends."""
    if not grid.actors("LedgerWriter"):
        return False  # it is only starting, where a folder without locks is the user's to mend: exit code 2
    flag = grid.world / "no-locks"
    flag.touch()
    try:
        wait_for_end(grid)
    finally:
        flag.unlink()
    return True


def wait_for_end(grid: Grid) -> None:
    since = time.monotonic()
    while not grid.has_ended():
        assert time.monotonic() - since < HANG, f"no end for {HANG} s:\n{grid.log.read_text()}"
        time.sleep(0.1)


def lose_server(grid: Grid, chance: random.Random) -> bool:
    """Kill MLflow's server for two rounds."""
    if grid.port is None or not grid.is_serving():
        return False
    grid.stop_serving()
    grid.wait_for_rounds(2, time.monotonic())
    grid.serve()
    return True


def jump(seconds: int) -> Callable[[Grid, random.Random], bool]:
    """Let the clock jump."""

    def event(grid: Grid, chance: random.Random) -> bool:
        clock = grid.world / "clock"
        now = int(clock.read_text()) if clock.exists() else 0
        written = clock.with_name("clock.new")
        written.write_text(str(now + seconds))
        written.replace(clock)
        return True

    return event


EVENTS: dict[str, Callable[[Grid, random.Random], bool]] = {
    "kill a trial worker": lambda grid, chance: kill_one(grid.actors("ImplicitFunc"), chance),
    "kill the scorer": lambda grid, chance: kill_one(grid.actors("ScoringActor"), chance),
    "kill the writer": lambda grid, chance: kill_one(grid.actors("LedgerWriter"), chance),
    "kill the command": lambda grid, chance: kill_one([grid.pid], chance),
    "kill Ray's part": lambda grid, chance: kill_one([pid for pid in [grid.ray_part] if pid is not None], chance),
    "kill the raylet": lambda grid, chance: kill_one(grid.named("raylet/raylet"), chance),
    "kill the GCS": lambda grid, chance: kill_one(grid.named("gcs/gcs_server"), chance),
    "kill the agent": lambda grid, chance: kill_one(grid.named("ray::DashboardAgent"), chance),
    "kill the group of Ray": kill_ray_group,
    "kill the group": lambda grid, chance: signal_group(grid, signal.SIGKILL),
    "freeze the scorer": lambda grid, chance: freeze(grid.actors("ScoringActor")),
    "freeze the writer": lambda grid, chance: freeze(grid.actors("LedgerWriter")),
    "SIGTERM": lambda grid, chance: signal_parent(grid, signal.SIGTERM),
    "SIGHUP": lambda grid, chance: signal_parent(grid, signal.SIGHUP),
    "SIGTERM for the group": lambda grid, chance: signal_group(grid, signal.SIGTERM),
    "SIGHUP for the group": lambda grid, chance: signal_group(grid, signal.SIGHUP),
    "SIGTERM for all processes": lambda grid, chance: signal_all(grid, signal.SIGTERM),
    "short memory": shorten_memory,
    "kill MLflow's server": lose_server,
    "full disk": fill_disk,
    "no locks": lose_locks,
    "clock back": jump(-7200),
    "clock forward": jump(7200),
}
"""Each does its deed, and tells whether there was anything to do it to."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How the grid got over the events."""

    events: Counter[str]
    begun_anew: int
    """How often Ray's part began anew by itself."""
    given_again: int
    """How often the command had to be given again."""

    def __str__(self) -> str:
        num = self.events.total()
        return (
            f"{num} events of {len(self.events)} kinds: {self.begun_anew} times Ray's part began anew by itself, "
            f"{self.given_again} times the command was given again, and {num - self.begun_anew - self.given_again} "
            "times the run just went on"
        )


def torment(grid: Grid, kinds: Sequence[str], *, seed: int) -> Tally:
    """Run the grid to its end while all these events happen, with finished rounds between them; how it went."""
    chance, events = random.Random(seed), Counter[str]()
    started = time.monotonic()
    grid.start()
    for kind in kinds:
        until_round(grid, kind)
        time.sleep(chance.uniform(0, 0.5))
        while grid.has_ended() or not EVENTS[kind](grid, chance):  # its victim is being replaced just now
            until_round(grid, kind)
        events[kind] += 1
        # The long form takes an hour: how far it is, and after what it failed.
        print(f"{events.total()}/{len(kinds)} {kind}, {time.monotonic() - started:.0f} s", flush=True)
    while (code := grid.end()) != 0:
        assert code != 2, grid.log.read_text()
        grid.start()
    anew = grid.log.read_text().count("\nRay ended (")
    return Tally(events=events, begun_anew=anew, given_again=grid.num_starts - 1)


def until_round(grid: Grid, kind: str) -> None:
    """Wait until the grid has finished a round more; if it ends before, give the command again, as its user would."""
    if not grid.wait_for_rounds(1, time.monotonic()):
        code = grid.end()
        assert code not in (0, 2), f"ended with {code} before '{kind}':\n{grid.log.read_text()}"
        grid.start()
