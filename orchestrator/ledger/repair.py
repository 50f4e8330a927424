"""Setting damaged ledger files aside: by hand (`--repair`), and by a run, which nobody may be watching."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from orchestrator.ledger.damaged import Examined, examine
from orchestrator.ledger.ledger import Ledger, TrajectoryState

DAMAGED = "damaged"
"""Folder, in the ledger, for damaged files."""

Tell = Callable[[str], None]


def mending(ledger: Ledger, tell: Tell) -> Ledger:
    """The ledger as a run uses it: a damaged file is set aside when it is met, and `tell` gets a line about it.

    Its whole rounds stay, the others are computed again. A file of a newer version is left alone and refused, as by any
    ledger.
    """
    # A crash that tears a file also starts the command again, with nobody there to call --repair.
    return replace(ledger, mend=partial(_mend, tell=tell))


def _mend(ledger: Ledger, path: Path, *, tell: Tell) -> None:
    examined = examine(path)
    if examined.problem is None or not examined.is_ours:
        return
    kept, aside = set_aside(ledger, path, examined)
    what = f"its {len(kept.records)} whole round(s) are kept" if kept else "no round of it is whole"
    tell(f"{path} was damaged ({examined.problem}): it is now {aside}; {what}, and the others are computed again")


def set_aside(ledger: Ledger, path: Path, examined: Examined) -> tuple[TrajectoryState | None, Path]:
    """Move a damaged file away; its whole rounds, if any, take its place. Returns these, and the file's new path.

    The caller keeps other writers away.
    """
    kept = examined.state if examined.state and examined.state.records else None
    aside = _free_name(ledger.folder / DAMAGED / path.name)
    aside.parent.mkdir(exist_ok=True)
    if kept is None:
        path.rename(aside)
    else:
        shutil.copy2(path, aside)
        ledger.put(kept)
    return kept, aside


def _free_name(path: Path) -> Path:
    """Free name: `path`, or with a number after it if that is taken, so that nothing set aside earlier is lost."""
    candidate, number = path, 1
    while candidate.exists():
        candidate, number = path.with_name(f"{path.name}.{number}"), number + 1
    return candidate
