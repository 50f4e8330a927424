"""Names of data sets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from data.registry import open_data_set


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"unknown data set 'digit' \(did you mean 'digits'\?\); known: .*folder:<path>"
    ):
        open_data_set("digit")


def test_folder_needs_a_path() -> None:
    with pytest.raises(ValueError, match="'folder:' names no folder; write folder:<path>"):
        open_data_set("folder:")


def test_registry_imports_nothing_heavy() -> None:
    script = (
        "import sys, data.registry; print({'torch', 'sklearn', 'pandas', 'scipy', 'ray', 'mlflow'} & set(sys.modules))"
    )
    repository = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
