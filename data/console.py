"""Console output of every command: progress of long work, errors in the user's input, and exit codes."""

from __future__ import annotations

import argparse
import difflib
import errno
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from data.files import is_unicode, shown
from data.stopping import INTERRUPTED, steady_output, stoppable

Progress = Callable[[str], None]
"""A function that takes one line of text about work in progress."""


def to_stderr(line: str) -> None:
    """Print a line of progress on the standard error stream."""
    print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as people say them: 8 s, 2 min 5 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class StepReporter:
    """Reports every few seconds how many steps are done and the time left; silent for short work."""

    def __init__(self, what: str, total: int, progress: Progress, *, every_seconds: float = 5.0) -> None:
        """`what` names the work, `total` its size in steps; lines go to `progress`."""
        self._what, self._total, self._progress, self._every = what, total, progress, every_seconds
        self._start = self._last = time.monotonic()

    def done(self, num_done: int) -> None:
        """Report that `num_done` steps are finished in total."""
        now = time.monotonic()
        if now - self._last < self._every or num_done == 0:
            return
        self._last = now
        left = (now - self._start) / num_done * (self._total - num_done)
        self._progress(f"{self._what}: {num_done:,} of {self._total:,}, about {duration(left)} left")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `name` was probably meant to be, whatever its case; None if none is near."""
    by_lower = {each.lower(): each for each in reversed(list(known))}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """The error to raise for a name that is not in `known`: it lists the known ones and suggests the nearest."""
    known = list(known)
    near = nearest(name, known)
    hint = f" (did you mean '{near}'?)" if near else ""
    return ValueError(f"unknown {kind} '{name}'{hint}; known: {', '.join(known)}")


DONE, SOME_FAILED, BAD_INPUT = 0, 1, 2
"""Exit codes of every command, in addition to `data.stopping.INTERRUPTED`."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""Error numbers of a full or failing disk, which is not a mistake in the command: exit code 1, not 2."""


class RunStopped(Exception):
    """The run cannot continue; its records so far are kept. The message gives the reason and what to do."""


class CommandParser(argparse.ArgumentParser):
    """A command line whose mistakes are reported in one line, as all other errors are; flags are not abbreviated."""

    def __init__(self, *, prog: str, description: str, epilog: str | None = None, usage: str | None = None) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, usage=usage, allow_abbrev=False)
        self._before_help: list[Callable[[], None]] = []

    def before_help(self, fill: Callable[[], None]) -> None:
        """Call `fill` only if help is printed, for help texts that take time to build."""
        self._before_help.append(fill)

    def format_help(self) -> str:
        """The text of --help."""
        for fill in self._before_help:
            fill()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Print the mistake in the command line, and exit with `BAD_INPUT`."""
        unknown = message.removeprefix("unrecognized arguments: ").partition(" ")[0].partition("=")[0]
        near = nearest(unknown, self._option_string_actions)
        if unknown != message.partition(" ")[0] and near:
            message += f" (did you mean {near}?)"
        self.exit(
            BAD_INPUT,
            f"{self.prog}: error: {shortened(' '.join(message.split()))}; {self.prog} --help lists the flags\n",
        )


LONGEST_LINE = 600
"""Largest number of characters of an error that are printed: a user's value may be longer than a screen."""


def shortened(text: str) -> str:
    """The text, with its middle removed if it is longer than `LONGEST_LINE`."""
    # The middle, not the end: messages end with what to do.
    half = LONGEST_LINE // 2
    return text if len(text) <= LONGEST_LINE else f"{text[:half]} ... {text[-half:]}"


def _check_words(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> None:
    """Refuse arguments that are not valid UTF-8 (file names from an old ZIP or camera card, for example)."""
    # Now, not when the record is written: records cannot hold such a name, and everything would be computed by then.
    for word in sys.argv[1:] if arguments is None else arguments:
        if not is_unicode(word):
            parser.error(f"'{shown(word)}' holds bytes that are not UTF-8; rename the file or folder, or link to it")


def run_command(
    parser: argparse.ArgumentParser,
    body: Callable[[argparse.Namespace], int],
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse the command line (`arguments`, or the process's own), run `body` and return the exit code.

    A ValueError is a user's mistake: one line on the standard error stream, no traceback (unless --debug, which every
    command has), exit 2. An ArithmeticError or a MemoryError is a computation that failed, RunStopped an external cause
    (a full disk): one line, exit 1.
    """
    steady_output()
    _check_words(parser, arguments)
    args = parser.parse_args(arguments)
    if not args.debug:
        warnings.simplefilter("ignore")  # libraries warn about things that a user of this program cannot change
    try:
        with stoppable("stopped at once"):
            return body(args)
    except ValueError as error:
        if args.debug:
            raise
        print(f"{parser.prog}: error: {shortened(' '.join(str(error).split()))}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        if args.debug or error.filename is None:  # without a file it may be a bug of ours: show the traceback
            raise
        if error.errno in DISK_ERRORS:
            reason = f"{error.filename}: {error.strerror}: make room or repair the disk, then run this command again"
            print(f"{parser.prog}: failed: {reason}; every finished round that was kept is whole", file=sys.stderr)
            return SOME_FAILED
        print(f"{parser.prog}: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return BAD_INPUT
    except (ArithmeticError, MemoryError, RunStopped) as error:
        if args.debug:
            raise
        print(f"{parser.prog}: failed: {error}", file=sys.stderr)
        return SOME_FAILED
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
