"""Freed memory: kept without new page faults, and given back between what lives."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from models.freed_memory import give_back_memory

FAULTS = """
import resource
import numpy as np
from models.freed_memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
def step():
    held = [np.ones(1_000_000) for _ in range(12)]  # 8 MB each, 96 MB together
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*, keep: bool) -> int:
    """Page faults of five steps that allocate and free the same arrays, in a process of their own."""
    code = FAULTS.format(keep=keep)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no such setting")
def test_what_is_freed_is_used_again_without_page_faults() -> None:
    assert page_faults(keep=False) > 5_000
    assert page_faults(keep=True) < 500


def resident_mib() -> int:
    """Anonymous memory of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) // 1024


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library gives nothing back")
def test_freed_memory_between_what_lives_is_given_back() -> None:
    blocks = [bytearray(b"x" * 65_536) for _ in range(3200)]  # 200 MiB, each block below what the C library maps alone
    lives = blocks[::64]
    del blocks
    kept = resident_mib()
    give_back_memory()
    assert kept - resident_mib() > 150
    assert all(block[-1] == ord("x") for block in lives)
