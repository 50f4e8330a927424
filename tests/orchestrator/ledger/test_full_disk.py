"""A disk that fills: what was kept stays whole, the error names the folder and what to do, and the run can go on."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from data.files import write_atomically
from models.feature_store import FeatureKey, open_features
from orchestrator.ledger.classifiers import ClassifierStore, ClassifiersUnwritable
from orchestrator.ledger.ledger import Ledger, LedgerUnwritable
from orchestrator.ledger.records import RoundRecord

ROOT = Path(__file__).parents[3]
MakeRecord = Callable[..., RoundRecord]


def fill(disk: Path) -> Path:
    """Leave no room; the file that takes it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return filler


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_write_without_room_leaves_the_old_file(small_disk: Path) -> None:
    path = small_disk / "file"
    write_atomically(path, lambda file: file.write(b"old") and None)
    fill(small_disk)
    with pytest.raises(OSError, match="No space left") as raised:
        write_atomically(path, lambda file: file.write(b"new" * 9999) and None)
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == b"old"
    assert names(small_disk) == ["file", "filler"]


def test_the_ledger_keeps_its_rounds_and_goes_on_when_there_is_room(small_disk: Path, make_record: MakeRecord) -> None:
    ledger = Ledger(small_disk / "ledger")
    ledger.append("a", {}, make_record(0))
    filler = fill(small_disk)
    with pytest.raises(LedgerUnwritable, match=r"ledger cannot be written \(No space left on device\): free space"):
        ledger.append("a", {}, make_record(1))
    assert ledger.history("a") == [make_record(0)]
    assert not [name for name in names(small_disk) if name.startswith("ledger/.")]
    filler.unlink()
    ledger.append("a", {}, make_record(1))
    assert ledger.history("a") == [make_record(0), make_record(1)]


def test_classifiers_that_do_not_fit_are_told_and_the_last_one_stays(small_disk: Path) -> None:
    store = ClassifierStore(small_disk / "classifiers", "a")
    store.save(0, {"weight": torch.ones(10)})
    with pytest.raises(ClassifiersUnwritable, match=r"classifiers cannot be written \(No space left on device\): free"):
        store.save(1, {"weight": torch.ones(1_000_000)})  # torch makes a RuntimeError of it
    kept = store.load(0)
    assert kept is not None
    assert torch.equal(kept["weight"], torch.ones(10))
    assert names(small_disk) == ["classifiers/a.pt"]


def test_features_that_do_not_fit_are_told(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    class Rows:
        facts: dict[str, float] = {}  # noqa: RUF012

        def compute(self, start: int, stop: int) -> np.ndarray:
            return np.ones((stop - start, 64), dtype=np.float32)

    monkeypatch.setenv("VLPURE_CACHE", str(small_disk / "cache"))
    key = FeatureKey(kind="rows", content="c", weights="w", preprocessing="p", precision="float32")
    with pytest.raises(ValueError, match=r"cannot be written \(No space left on device\); make room there"):
        open_features(key, 1000, Rows, shard_rows=100, progress=lambda line: None)
    assert not [name for name in names(small_disk) if Path(name).name.startswith(".")]
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    assert open_features(key, 1000, Rows, shard_rows=100, progress=lambda line: None).rows_ND.shape == (1000, 64)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_trial_on_a_full_disk_ends_with_a_reason_and_goes_on_with_room(small_disk: Path, tmp_path: Path) -> None:
    def run(output: Path) -> subprocess.CompletedProcess[str]:
        words = ["--strategy", "conf", "--rounds", "3", "--set", "recipe.steps=4", "--set", "recipe.width=64"]
        return subprocess.run(
            [sys.executable, "experiments/trial.py", *words, "-o", str(output)],
            cwd=ROOT, env=os.environ | {"VLPURE_CACHE": str(tmp_path / "cache")}, capture_output=True, text=True,
            timeout=250, check=False,
        )  # fmt: skip

    output = small_disk / "out"
    full = run(output)
    assert full.returncode == 1
    assert full.stderr.startswith("trial.py: failed: ")
    assert full.stderr.count("\n") == 1
    assert str(output) in full.stderr
    assert "No space left on device" in full.stderr
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    again = run(output)
    assert (again.returncode, again.stderr) == (0, "")
    assert run(tmp_path / "undisturbed").returncode == 0
    accuracies = [
        [record["accuracy"] for record in json.loads(path.read_text())["records"]]
        for folder in (output, tmp_path / "undisturbed")
        for path in (folder / "ledger").glob("*.json")
    ]
    assert accuracies[0] == accuracies[1]
    assert len(accuracies[0]) == 3
