"""A grid that something is going to befall: table4.py in a small world of its own, started as often as it has to be."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.cluster.leftovers import processes
from tests.experiments.running_grid import ROOT, actors_below, processes_below

HANG = 120.0
"""Seconds from an event to the next finished round, or to the end of the command, after which it counts as hung."""
MEMINFO = Path("/proc/meminfo")


@dataclass
class Grid:
    """table4.py, started as often as its user has to, in a small world of its own."""

    words: Sequence[str]
    output: Path
    world: Path
    """A folder with a short name: temporary files, the clock, the machine's memory, the log."""
    cache: Path
    port: int | None = None
    """Of an MLflow server."""
    server: subprocess.Popen[bytes] | None = None
    """MLflow's, in place of a file."""
    driver: subprocess.Popen[bytes] | None = None
    num_starts: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    """How often a start ended with each exit code."""
    sessions: set[int] = field(default_factory=set)
    """Of all processes that were seen."""

    @property
    def log(self) -> Path:
        """All that the command printed."""
        return self.world / "log"

    def start(self) -> None:
        """Give the command (again)."""
        store = [] if self.port is None else ["--tracking-uri", f"http://127.0.0.1:{self.port}"]
        words = [
            sys.executable, "experiments/table4.py", "--preset", "demo", "--address", "local", *self.words, *store,
            "-o", str(self.output),
        ]  # fmt: skip
        if can_pretend_memory():
            # In a mount namespace of its own the machine's memory is what a file says.
            mount = 'mount --bind "$NEMESIS/meminfo" /proc/meminfo && exec "$@"'
            words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh", *words]
            self.set_memory(free=True)
        (self.world / "tmp").mkdir(exist_ok=True)
        own = {
            "NEMESIS": str(self.world),
            "TMPDIR": str(self.world / "tmp"),
            "VLPURE_CACHE": str(self.cache),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).with_name("hooks")), str(ROOT)]),
        }
        with self.log.open("ab") as log:
            self.driver = subprocess.Popen(
                words, cwd=ROOT, env=os.environ | own, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=_heed_signals,
            )  # fmt: skip
        self.num_starts += 1

    @property
    def store(self) -> Path:
        """The file that MLflow keeps all in."""
        return self.output / "mlflow.db" if self.port is None else self.world / "server.db"

    def serve(self) -> None:
        """Start an MLflow server, without waiting for it."""
        words = ["-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.store}", "--port", str(self.port)]
        with (self.world / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                [sys.executable, *words, "--workers", "1", "--artifacts-destination", str(self.world / "artifacts")],
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, cwd=self.world, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip

    def stop_serving(self) -> None:
        """Kill the server, if there is one."""
        if self.server is not None:
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()

    def is_serving(self) -> bool:
        """Whether the server takes connections."""
        assert self.port is not None
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def set_memory(self, *, free: bool) -> None:
        """Let the machine have its memory, or nearly none."""
        lines = MEMINFO.read_text().splitlines()
        total = int(lines[0].split()[1])
        little = total * 49 // 1000  # Ray's monitor kills above 95 % until it is below
        short = {"MemFree:": little, "MemAvailable:": little, "Cached:": 0, "Buffers:": 0}
        if not free:
            lines = [f"{(name := line.split()[0])} {short.get(name, line.split()[1])} kB" for line in lines]
        # In place: a bind mount shows the file that was there when it was made.
        (self.world / "meminfo").write_text("\n".join(lines) + "\n")

    @property
    def pid(self) -> int:
        """Of the command."""
        assert self.driver is not None
        return self.driver.pid

    @property
    def ray_part(self) -> int | None:
        """The process of Ray's part."""
        found = [pid for pid, words in self.below().items() if "orchestrator.cluster.ray_part" in words]
        return found[0] if found else None

    def below(self) -> dict[int, str]:
        """Command lines of all processes below the command."""
        found = processes_below(self.pid)
        self.sessions |= {each.session for each in processes() if each.pid in found or each.pid == self.pid}
        return found

    def named(self, words: str) -> list[int]:
        """Processes below the command with `words` in their command line."""
        return sorted(pid for pid, line in self.below().items() if words in line)

    def actors(self, name: str) -> list[int]:
        """Ray's worker processes of that name."""
        return actors_below(self.pid, name)

    def ray_log(self, word: str) -> str:
        """The last lines of the raylet's log with that word, to understand a failure by."""
        lines = [
            line
            for path in (self.world / "tmp").glob("vlpure-ray-*/session_*/logs/raylet.*")
            if not path.parents[1].is_symlink()
            for line in path.read_text(errors="replace").splitlines()
            if word in line.lower()
        ]
        return "\n".join(lines[-20:])

    def num_rounds(self) -> int:
        """Rounds in the ledger."""
        num = 0
        for path in (self.output / "ledger").glob("*.json"):
            with suppress(OSError, ValueError):  # it is being replaced
                num += len(json.loads(path.read_text())["records"])
        return num

    def has_ended(self) -> bool:
        """Whether the command has come to an end."""
        return self.driver is None or self.driver.poll() is not None

    def wait_for_rounds(self, num: int, since: float) -> bool:
        """Wait for `num` more rounds; whether they came before the command ended. Fails where it hangs."""
        wanted = self.num_rounds() + num
        while not self.has_ended():
            if self.num_rounds() >= wanted:
                return True
            assert time.monotonic() - since < HANG, f"no round and no end for {HANG} s:\n{self.log.read_text()}"
            time.sleep(0.1)
        return False

    def stop(self) -> None:
        """Let nothing of it go on, however the test ends."""
        self.stop_serving()
        if not self.has_ended():
            os.killpg(self.pid, signal.SIGKILL)  # Ray's part ends with it

    def end(self) -> int:
        """Wait for the end of the command; its exit code."""
        assert self.driver is not None
        code = self.driver.wait(1800)
        self.codes[code] += 1
        return code


def _heed_signals() -> None:
    """Undo what a shell does to the commands it starts in the background, and what nohup does."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def can_pretend_memory() -> bool:
    """Whether a file can take the place of /proc/meminfo: Linux, and its administrator."""
    return MEMINFO.exists() and os.getuid() == 0


def processes_left(grid: Grid) -> list[str]:
    """Processes of the sessions of the grid."""
    return [f"{each.pid} {each.name}" for each in processes() if each.session in grid.sessions and not each.is_dead]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
