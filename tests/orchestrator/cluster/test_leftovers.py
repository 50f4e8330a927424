"""Sweeping what Ray leaves: a session's processes, the folders of runs that were killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.files import file_lock
from orchestrator.cluster import leftovers
from orchestrator.cluster.leftovers import LOCK, LONGEST_BASE, PREFIX, end_session, find_process, private_folder

FAMILY = """
import os, subprocess, sys, time
child = "import os, time; os.setpgrp(); print('up', flush=True); time.sleep(60)"
worker = subprocess.Popen([sys.executable, "-c", child])
time.sleep(60)
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder with a short name."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as name:
        monkeypatch.setenv("RAY_TMPDIR", name)
        yield Path(name)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes through /proc (Linux)")
def test_a_session_ends_with_its_workers_of_other_groups() -> None:
    leader = subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert leader.stdout is not None
    assert leader.stdout.readline() == "up\n"
    workers = [each.pid for each in leftovers.processes() if each.parent == leader.pid]
    assert len(workers) == 1
    assert os.getpgid(workers[0]) != leader.pid
    end_session(leader.pid)
    assert leader.wait(10) == -9
    leader.stdout.close()
    now = find_process(workers[0])
    assert now is None or now.is_dead
    end_session(leader.pid)  # of nobody


def test_the_folder_is_this_users_own_and_goes_away(temporary: Path) -> None:
    with private_folder() as folder:
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "session" / "logs").mkdir(parents=True)
        (folder / "session" / "logs" / "log").write_text("x")
    assert list(temporary.iterdir()) == []


def test_folders_of_dead_runs_are_swept_and_no_others(temporary: Path) -> None:
    dead, strange = temporary / f"{PREFIX}dead", temporary / "vlpure-other"
    for folder in (dead, strange):
        folder.mkdir()
        (folder / LOCK).touch()
    with private_folder() as running, private_folder():
        assert running.exists()
        assert not dead.exists()
    assert list(temporary.iterdir()) == [strange]


def test_a_long_tmpdir_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm's folders of jobs have 90 letters; the path of a socket holds 107."""
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with private_folder() as folder:
        assert deep not in folder.parents
        sockets = folder / "session_2026-01-01_00-00-00_000000_4194304" / "sockets"
        sockets.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as plasma:
            plasma.bind(str(sockets / "plasma_store"))


def test_where_nothing_is_short_the_advice_names_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/" + "y" * LONGEST_BASE)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 90)))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match="set TMPDIR to a folder with a shorter name"), private_folder():
        pass


def test_a_held_lock_keeps_its_folder(temporary: Path) -> None:
    held = temporary / f"{PREFIX}held"
    held.mkdir()
    with file_lock(held / LOCK):
        leftovers.sweep_folders(temporary)
        assert held.exists()
    leftovers.sweep_folders(temporary)
    assert not held.exists()
