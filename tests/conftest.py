"""What all tests share: one thread a process, and a cache that is not the user's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before torch or NumPy is imported: threads that fight for two cores make every test slower.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for the whole session, so that the stand-in CLIPN of the digits is trained once."""
    return tmp_path_factory.mktemp("cache")
