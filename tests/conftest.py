"""What all tests share: one thread a process, and a cache that is not the user's."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch or NumPy is imported: threads that fight for two cores make every test slower.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--quick`: for the inner loop."""
    parser.addoption("--quick", action="store_true", help="skip every test as soon as it starts a process or trains")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep the garbage collector off what was imported; with --quick, skip whatever starts a process or trains, at the
    moment it does: no marker has to be kept.
    """
    # Half a million objects of torch, Ray and MLflow, which live as long as the tests: each full collection took 0.18 s
    # to find that out, and there are some sixty.
    gc.freeze()
    if not session.config.getoption("--quick"):
        return

    def no_process(*arguments: object, **named: object) -> None:
        pytest.skip("it starts a process")

    def no_training(*arguments: object, **named: object) -> None:
        pytest.skip("it trains")

    import torch

    # A thread that would start a process ends, as it does for any error; its test sees what is missing and is skipped.
    session.config.addinivalue_line("filterwarnings", "ignore::pytest.PytestUnhandledThreadExceptionWarning")
    # Skipped is no Exception, so that code under test does not swallow it.
    subprocess.Popen.__init__ = no_process  # type: ignore[method-assign]
    torch.optim.Optimizer.zero_grad = no_training  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for the whole session, so that the stand-in CLIPN of the digits is trained once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store of MLflow without runs, to be copied: MLflow takes a second to make one."""
    from orchestrator.tracking.sqlite_store import make_store

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    make_store(f"sqlite:///{path}")
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with room for 64 KiB; skipped where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk needs Linux and its administrator")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def pytest_unconfigure() -> None:
    """Thaw what was frozen: libraries complain at the interpreter's end of objects that nobody collected."""
    gc.unfreeze()
