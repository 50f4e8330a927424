"""Install exactly the packages of constraints.txt into .venv, and this project: `make setup` and `make dev`.

python experiments/commands/install.py [--extra dev]

It imports the standard library alone, since it runs where nothing is installed yet. What pip (or uv, if it is on PATH)
prints goes to .venv/install.log; people see one line of progress. Packages are installed a few at a time, so that an
interrupted installation goes on where it stopped, whatever pip's cache keeps.
"""

from __future__ import annotations

import argparse
import csv
import errno
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PACKAGES, PROJECT = Path("constraints.txt"), Path("pyproject.toml")
EXTRAS = ("dev", "cluster")
"""Names of pyproject.toml's extras; the packages that each adds are in a file of its own."""
SIZE = "3 GB to download, 7 GB on disk"
"""Measured on Linux; most of it is the CUDA build of PyTorch."""
AT_ONCE = 12
"""Packages per call of pip: a call costs half a CPU second, and one that is interrupted loses what it downloaded."""
NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|os error (28|122)")
CPU_BUILD = "no NVIDIA driver here: a CPU build of PyTorch would take 4 GB less (untested way: docs/installation.md)"
# Run by the interpreter of .venv, whose pip knows what "sys_platform == 'linux'" means there.
APPLIES = """
import sys
from pip._vendor.packaging.requirements import Requirement
for line in sys.stdin:
    marker = Requirement(line).marker
    print(int(marker is None or marker.evaluate()))
"""


class InstallError(Exception):
    """The installation cannot go on; the message is the one line that says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A block of a constraints file."""

    name: str
    """Normalised: lower case, with hyphens."""
    version: str
    requirement: str
    """Name, version and marker."""
    block: str
    """The requirement with its hashes, as pip reads it."""


def read_constraints(file: Path) -> list[Package]:
    """The packages of a constraints file, in its order, whatever their markers."""
    packages = []
    for block in re.split(r"\n(?=[A-Za-z0-9])", file.read_text(encoding="utf-8")):
        requirement = block.partition("\\\n")[0].strip()
        name, _, rest = requirement.partition("==")
        if rest:
            version = rest.partition(";")[0].strip()
            packages.append(Package(name=normal(name), version=version, requirement=requirement, block=block.rstrip()))
    return packages


def normal(name: str) -> str:
    """A package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


class Environment:
    """A virtual environment, and what is installed in it."""

    def __init__(self, folder: Path) -> None:
        """`folder` need not be there yet."""
        self.folder = folder.absolute()
        self.python = self.folder / "bin" / "python"
        self.log = self.folder / "install.log"

    def works(self) -> bool:
        """Whether its interpreter starts and has pip."""
        try:
            return (
                subprocess.run([self.python, "-m", "pip", "--version"], capture_output=True, check=False).returncode
                == 0
            )
        except OSError:
            return False

    def make(self) -> None:
        """Make it anew, with the interpreter that runs this."""
        done = subprocess.run(
            [sys.executable, "-m", "venv", "--clear", self.folder], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip().splitlines() or ["no reason given"]
            raise InstallError(
                f"{sys.executable} makes no virtual environment: {said[0]} (Debian: apt install python3-venv)"
            )

    def installed(self) -> dict[str, tuple[str, int]]:
        """Version and bytes of each package that is installed completely."""
        found = {}
        for record in self.folder.glob("lib/python*/site-packages/*.dist-info/RECORD"):
            name, _, version = record.parent.name.removesuffix(".dist-info").partition("-")
            with record.open(encoding="utf-8", newline="") as lines:
                found[normal(name)] = (version, sum(int(row[2]) for row in csv.reader(lines) if row[2:] and row[2]))
        return found

    def remove_halves(self) -> None:
        """Remove the mark of each package that an interruption left unfinished.

        An installer writes RECORD last. pip takes a folder without it for the whole package, and would install nothing.
        """
        for folder in self.folder.glob("lib/python*/site-packages/*.dist-info"):
            if not (folder / "RECORD").exists():
                shutil.rmtree(folder)

    def present(self, wanted: Iterable[Package]) -> dict[Package, int]:
        """Bytes of each wanted package that is installed completely and in its version."""
        installed = self.installed()
        return {p: installed[p.name][1] for p in wanted if p.name in installed and installed[p.name][0] == p.version}

    def applicable(self, packages: Sequence[Package]) -> list[Package]:
        """The packages whose marker holds for this interpreter and machine."""
        answers = subprocess.run(
            [self.python, "-c", APPLIES],
            input="\n".join(p.requirement for p in packages),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        return [package for package, answer in zip(packages, answers, strict=True) if answer == "1"]


class ProgressLine:
    """One line that counts packages and megabytes: rewritten on a terminal, elsewhere printed at the end."""

    def __init__(self, what: str, total: int) -> None:
        """`total` packages are wanted of `what`, a file's name."""
        self._what, self._total, self._started = what, total, time.monotonic()
        self._is_terminal = sys.stderr.isatty()

    def show(self, sizes: Collection[int], *, last: bool = False) -> None:
        """Print that packages of these sizes in bytes are there."""
        if not (self._is_terminal or last):
            return
        seconds = time.monotonic() - self._started
        line = f"{self._what}: {len(sizes)} of {self._total} packages, {sum(sizes) / 1e6:,.0f} MB, {seconds:.0f} s"
        print(f"\r{line}\x1b[K" if self._is_terminal else line, end="\n" if last else "", file=sys.stderr, flush=True)


class Installer:
    """pip or uv, at work in one environment."""

    def __init__(self, environment: Environment, *, uv: str | None, lock: int) -> None:
        """`uv` is the path of uv, None for pip; `lock` is the descriptor that keeps other installations out."""
        self._environment, self._lock = environment, lock
        python = str(environment.python)
        # --no-deps: a constraints file is complete. --no-compile: what is imported is compiled at that time.
        self._command = (
            [uv, "pip", "install", "--python", python, "--no-deps"]
            if uv
            else [
                python,
                "-m",
                "pip",
                "--disable-pip-version-check",
                "--no-input",
                "install",
                "--no-deps",
                "--no-compile",
            ]
        )
        self._at_once = 10**6 if uv else AT_ONCE  # uv keeps what it downloaded, and downloads several at once

    def packages(self, file: Path) -> None:
        """Install each package of a constraints file that is not there in the wanted version. Raises InstallError."""
        environment = self._environment
        environment.remove_halves()
        wanted = environment.applicable(read_constraints(file))
        progress = ProgressLine(file.name, len(wanted))
        missing = [package for package in wanted if package not in environment.present(wanted)]
        for first in range(0, len(missing), self._at_once):
            part = environment.folder / "wanted.txt"
            part.write_text("\n".join(package.block for package in missing[first : first + self._at_once]) + "\n")
            self._run(
                ["--require-hashes", "-r", str(part)], lambda: progress.show(environment.present(wanted).values())
            )
            part.unlink()
        present = environment.present(wanted)
        if len(present) < len(wanted):  # the installer said it had done it
            absent = next(package for package in wanted if package not in present)
            raise InstallError(f"{absent.requirement} is not there after its installation; {self._where()}")
        if missing:
            progress.show(present.values(), last=True)

    def project(self) -> None:
        """Install the project in the working folder, editable."""
        self._run(["--no-build-isolation", "-e", "."], lambda: None)

    def _run(self, arguments: list[str], tick: Callable[[], None]) -> None:
        with self._environment.log.open("a+", encoding="utf-8", errors="replace") as log:
            start = log.seek(0, os.SEEK_END)
            # The child holds the lock, too: if this process alone is killed, pip goes on, and the next one waits.
            process = subprocess.Popen(
                self._command + arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[self._lock]
            )
            try:
                while True:
                    tick()
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=1)
                        break
            except BaseException:  # Ctrl-C reaches pip as well; anything else must not leave it behind
                process.terminate()
                process.wait()
                raise
            if process.returncode != 0:
                log.seek(start)
                raise InstallError(f"{reason(log.read())}; {self._where()}")

    def _where(self) -> str:
        return f"log: {self._environment.log}; the same command goes on from here"


def reason(said: str) -> str:
    """Why pip or uv failed, in one line, from what it printed."""
    if NO_SPACE.search(said):
        return no_space()
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(ERROR|error):", line)]
    return re.sub(r"^(ERROR|error):\s*", "", (errors or lines or ["no reason given"])[0])


def no_space() -> str:
    """That a disk is full, with what is free where an installer writes."""
    free = {folder: shutil.disk_usage(folder).free / 1e6 for folder in (str(Path.cwd()), tempfile.gettempdir())}
    return (
        f"no space left on a disk ({SIZE}; free now: {', '.join(f'{mb:,.0f} MB at {at}' for at, mb in free.items())})"
    )


@contextmanager
def only_one(file: Path) -> Iterator[int]:
    """Descriptor of a lock, held for the block and by the children that get it: one installation in this folder.

    The lock is on a file that is there anyway. It is opened for writing because NFS locks no file otherwise.
    """
    with file.open("r+b") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another installation into this folder is under way; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(held, fcntl.LOCK_EX)
        yield held.fileno()


def install(environment: Environment, *, extra: str | None, uv: str | None) -> None:
    """Install what is missing. A stamp beside the packages holds the checksum of each file that is done."""
    files = [PACKAGES, PROJECT, *([Path(f"constraints-{extra}.txt")] if extra else [])]
    with only_one(PROJECT) as lock:
        if not environment.works():
            print(
                f"installing into {environment.folder.name}: {SIZE}; log: {environment.log}",
                file=sys.stderr,
                flush=True,
            )
            if sys.platform == "linux" and shutil.which("nvidia-smi") is None:
                print(CPU_BUILD, file=sys.stderr, flush=True)
            environment.make()
        installer = Installer(environment, uv=uv, lock=lock)
        for file in files:
            stamp = environment.folder / f".{file.name}.installed"
            checksum = hashlib.sha256(file.read_bytes()).hexdigest()
            if not stamp.exists() or stamp.read_text() != checksum:
                installer.project() if file == PROJECT else installer.packages(file)
            stamp.write_text(checksum)  # written anew if it is equal, too: make compares times


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in the project's folder, and return its exit code."""
    parser = argparse.ArgumentParser(description="Install the packages of constraints.txt and this project into .venv.")
    parser.add_argument(
        "--extra", choices=EXTRAS, help="and those of constraints-<extra>.txt: tools of tests, of ray up"
    )
    parser.add_argument("--installer", choices=("pip", "uv"), help="default: uv if it is there, else pip")
    args = parser.parse_args(argv)
    uv = shutil.which("uv") if args.installer != "pip" else None
    try:
        if args.installer == "uv" and uv is None:
            raise InstallError("--installer uv: there is no uv on PATH")
        install(Environment(Path(".venv")), extra=args.extra, uv=uv)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {no_space() if error.errno in (errno.ENOSPC, errno.EDQUOT) else error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
