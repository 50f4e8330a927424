"""Signals that stop a command, and output that nobody reads any more or that cannot be encoded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.stopping import stoppable

ROOT = Path(__file__).parents[2]
TALK = """
import sys
import time
from data.stopping import steady_output
steady_output()
for number in range(2000):
    print("a line to nobody", number, flush=number % 2 == 0)
print("still here", file=sys.stderr)
"""


def test_a_hangup_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_stops_what_runs_and_the_old_handler_comes_back(name: str) -> None:
    number = getattr(signal, name)
    outside = signal.getsignal(number)
    before = signal.default_int_handler
    signal.signal(number, before)  # under nohup SIGHUP is ignored, and stays so
    try:
        with pytest.raises(KeyboardInterrupt), stoppable():  # noqa: PT012
            os.kill(os.getpid(), number)
            time.sleep(10)
        assert signal.getsignal(number) == before
    finally:
        signal.signal(number, outside)


def talk(**how: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-c", TALK], cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60, check=False, **how
    )


def test_a_reader_that_went_away_ends_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = talk(stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "still here\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_log_on_a_full_disk_ends_nothing_and_it_is_said_once() -> None:
    with Path("/dev/full").open("w") as full:
        done = talk(stdout=full)
    assert (done.returncode, done.stderr) == (
        0,
        "output is lost from here on: No space left on device\nstill here\n",
    )


def test_letters_that_the_terminal_lacks_are_replaced() -> None:
    source = "from data.stopping import steady_output; steady_output(); print('\\u03c0 \\udcff'); print('end')"
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "\\u03c0 \\xff\nend\n"


def test_a_terminal_obeys_no_name_that_is_printed() -> None:
    source = """
from data.stopping import steady_output, write_controls
import sys
steady_output()
print("\\x1b[2J\\x9b1m caf\\xe9\\t\\u732b\\u202e\\r\\u2028\\x07 \\u0645\\u200c\\u062e")
sys.stderr.write("\\x1b]0;title\\x07")
write_controls(sys.stdout, "\\x1b[J")
"""
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    shown = "\\x1b[2J\\x9b1m caf\xe9\t\u732b\\u202e\\r\\u2028\\x07 \u0645\u200c\u062e\n"
    assert (done.stdout.decode(), done.stderr.decode()) == (shown + "\x1b[J", "\\x1b]0;title\\x07")
