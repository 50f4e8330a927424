"""CPU seconds of `make demo`, all its processes together, against its budget: fails when they have grown by a fifth.

Wall time says nothing on a busy machine; CPU seconds hardly depend on what else runs. The processes are the
descendants of the command, looked at twice a second in /proc: what a process does in its last half second is not seen.

python benchmarks/demo.py                  (with an empty cache, as on a fresh machine: the stand-in CLIPN is trained)
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUDGET = 105.0
"""CPU seconds on one AMD EPYC core of 2026 (torch 2.15, n = 1)."""
MOST_GROWTH = 1.2
LOOK_EVERY = 0.5
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds_below(root: int) -> dict[tuple[int, str], tuple[str, float]]:
    """(process, its start) -> name and CPU seconds so far, of a process and all its descendants."""
    found: dict[int, tuple[int, str, str, float]] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:  # it ended meanwhile
            continue
        fields = rest.split()
        seconds = (int(fields[11]) + int(fields[12])) / TICKS
        found[int(folder.name)] = (int(fields[1]), fields[19], name, seconds)
    below, frontier = {root}, {root}
    while frontier:
        frontier = {pid for pid, (parent, *_) in found.items() if parent in frontier} - below
        below |= frontier
    return {(pid, found[pid][1]): (found[pid][2], found[pid][3]) for pid in below if pid in found}


def main() -> int:
    """Exit code 1 if the demo fails or takes more than a fifth over its budget."""
    seen: dict[tuple[int, str], tuple[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "experiments/table4.py", "--preset", "demo", "--address", "local", "-q"]
        environment = os.environ | {"VLPURE_CACHE": f"{folder}/cache", "PYTHONPATH": str(ROOT)}
        started = time.monotonic()
        demo = subprocess.Popen([*words, "-o", f"{folder}/run"], cwd=ROOT, env=environment)
        while demo.poll() is None:
            seen |= cpu_seconds_below(demo.pid)
            time.sleep(LOOK_EVERY)
        wall = time.monotonic() - started
    by_name: dict[str, float] = {}
    for name, seconds in seen.values():
        by_name[name] = by_name.get(name, 0.0) + seconds
    total = sum(by_name.values())
    for name, seconds in sorted(by_name.items(), key=lambda item: -item[1]):
        if seconds >= 1:
            print(f"{seconds:7.1f} CPU s  {name}")
    print(f"{total:7.1f} CPU s in all, {wall:.0f} s of wall time; budget {BUDGET:.0f} CPU s")
    return int(demo.returncode != 0 or total > BUDGET * MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
