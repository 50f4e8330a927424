"""A command of `experiments` called in this process: a second less of imports than in a process of its own."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

ROOT = Path(__file__).parents[2]


Done = subprocess.CompletedProcess[str]


def run_here(name: str, *words: str, folder: Path = ROOT, cache: Path | None = None) -> Done:
    """Exit code and output of `python experiments/<name>.py <words>`, called from `folder`.

    `cache` in place of $VLPURE_CACHE. Not for tests of what a command imports: what one imports, stays for the next.
    """
    out, err = io.StringIO(), io.StringIO()
    main = importlib.import_module(f"experiments.{name}").main
    with chdir(folder), _called_as([f"{name}.py", *words], cache), redirect_stdout(out), redirect_stderr(err):
        try:
            code = int(main())
        except SystemExit as stop:  # argparse
            code = int(str(stop.code))
    return Done([name, *words], code, out.getvalue(), err.getvalue())


@contextmanager
def _called_as(argv: list[str], cache: Path | None) -> Iterator[None]:
    before, kept = sys.argv, os.environ.get("VLPURE_CACHE")
    sys.argv = argv
    if cache is not None:
        os.environ["VLPURE_CACHE"] = str(cache)
    try:
        yield
    finally:
        sys.argv = before
        if cache is not None:
            os.environ.pop("VLPURE_CACHE")
            if kept is not None:
                os.environ["VLPURE_CACHE"] = kept
