"""The feature store: computed once, whole or absent, continued after a kill, and never trusted blindly."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.feature_store import (
    FeatureKey,
    RowSource,
    StoredFeatures,
    is_present,
    open_features,
    rows_present,
    seconds_a_row,
)

ROOT = Path(__file__).parents[2]
KEY = FeatureKey(kind="test rows", content="c", weights="w", preprocessing="p", precision="float32")
NUM_ROWS, SHARD_ROWS = 10, 4


def quiet(line: str) -> None:
    """Progress that nobody reads."""


class Counting:
    """Row i is (i, i squared); remembers what it was asked, and can die at a row."""

    facts: Mapping[str, float] = {"scale": 12.5}

    def __init__(self, die_at: int | None = None) -> None:
        self.asked: list[tuple[int, int]] = []
        self.die_at = die_at

    def compute(self, start: int, stop: int) -> NDArray[np.float32]:
        if self.die_at is not None and start <= self.die_at < stop:
            raise KeyboardInterrupt
        self.asked.append((start, stop))
        rows = np.arange(start, stop, dtype=np.float32)
        return np.stack([rows, rows**2], axis=1)


EXPECTED = np.stack([np.arange(10.0), np.arange(10.0) ** 2], axis=1).astype(np.float32)


def unwanted() -> RowSource:
    raise AssertionError("nothing had to be computed")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def opened(source: Callable[[], RowSource], lines: list[str] | None = None) -> StoredFeatures:
    progress = quiet if lines is None else lines.append
    return open_features(KEY, NUM_ROWS, source, shard_rows=SHARD_ROWS, progress=progress)


def test_what_is_missing_and_how_long_a_row_takes_is_known() -> None:
    assert (rows_present(KEY, NUM_ROWS), seconds_a_row(KEY)) == (0, None)
    with pytest.raises(KeyboardInterrupt):
        opened(lambda: Counting(die_at=5))
    assert rows_present(KEY, NUM_ROWS) == 4
    opened(lambda: Counting())
    assert rows_present(KEY, NUM_ROWS) == NUM_ROWS
    measured = seconds_a_row(replace(KEY, content="other images"))
    assert measured is not None
    assert 0 < measured < 1
    assert seconds_a_row(replace(KEY, weights="others")) is None


def test_computed_once_and_mapped() -> None:
    source = Counting()
    assert not is_present(KEY)
    stored = opened(lambda: source)
    assert source.asked == [(0, 4), (4, 8), (8, 10)]
    assert is_present(KEY)
    np.testing.assert_array_equal(stored.rows_ND, EXPECTED)
    again = opened(unwanted)
    assert isinstance(again.rows_ND, np.memmap)
    assert again.rows_ND.dtype == np.float32
    assert again.facts == {"scale": 12.5}
    np.testing.assert_array_equal(again.rows_ND, EXPECTED)
    with pytest.raises(ValueError, match="read-only"):
        again.rows_ND[0, 0] = 1
    assert sorted(path.name for path in KEY.folder.iterdir()) == ["features.npy", "lock", "meta.json"]


@pytest.mark.parametrize("field", ["kind", "content", "weights", "preprocessing", "precision"])
def test_every_part_of_the_key_counts(field: str) -> None:
    from dataclasses import replace

    other = replace(KEY, **{field: "another"})
    assert other.folder != KEY.folder
    opened(Counting)
    assert not is_present(other)


def test_a_killed_computation_is_continued_and_gives_the_same(cache: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        opened(lambda: Counting(die_at=8))
    assert not is_present(KEY)
    source = Counting()
    resumed = opened(lambda: source)
    assert source.asked == [(8, 10)]
    np.testing.assert_array_equal(resumed.rows_ND, EXPECTED)
    content = (KEY.folder / "features.npy").read_bytes()
    for path in KEY.folder.iterdir():
        path.unlink()
    opened(Counting)
    assert (KEY.folder / "features.npy").read_bytes() == content


CHILD = """
import os, sys
from pathlib import Path
import numpy as np
from models.feature_store import FeatureKey, open_features

KEY = FeatureKey(kind="test rows", content="c", weights="w", preprocessing="p", precision="float32")

class Source:
    facts = {"scale": 12.5}
    def compute(self, start, stop):
        with open(os.environ["ASKED"], "a") as file:
            file.write(f"{start} ")
        if start == int(os.environ["DIE_AT"]):
            os.kill(os.getpid(), 9)
        import time; time.sleep(0.05)
        rows = np.arange(start, stop, dtype=np.float32)
        return np.stack([rows, rows ** 2], axis=1)

rows = open_features(KEY, 10, Source, shard_rows=4, progress=print).rows_ND
assert rows.shape == (10, 2) and rows[9, 1] == 81
"""


def start_child(asked: Path, *, die_at: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {"ASKED": str(asked), "DIE_AT": str(die_at)}
    return subprocess.Popen([sys.executable, "-c", CHILD], cwd=ROOT, env=environment)


def test_a_sigkill_loses_at_most_a_shard(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    assert start_child(asked, die_at=8).wait() == -9
    source = Counting()
    np.testing.assert_array_equal(opened(lambda: source).rows_ND, EXPECTED)
    assert asked.read_text() == "0 4 8 "
    assert source.asked == [(8, 10)]


def test_one_process_computes_while_others_wait(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    children = [start_child(asked, die_at=-1) for _ in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]
    assert asked.read_text() == "0 4 8 "


def damage_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize("damage", [damage_byte, cut])
def test_a_damaged_file_is_noticed_and_computed_again(damage: Callable[[Path], None]) -> None:
    opened(Counting)
    damage(KEY.folder / "features.npy")
    source, lines = Counting(), list[str]()
    np.testing.assert_array_equal(opened(lambda: source, lines).rows_ND, EXPECTED)
    assert len(source.asked) == 3
    assert len(lines) == 1
    assert "features.npy is damaged; it is computed again" in lines[0]


def test_a_truncated_file_is_not_present() -> None:
    opened(Counting)
    cut(KEY.folder / "features.npy")
    assert not is_present(KEY)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"checksum": "x"}'])
def test_a_damaged_description_is_no_entry(content: str) -> None:
    opened(Counting)
    (KEY.folder / "meta.json").write_text(content)
    assert not is_present(KEY)
    source = Counting()
    opened(lambda: source)
    assert len(source.asked) == 3
    assert json.loads((KEY.folder / "meta.json").read_text())["rows_computed"] == 10


@pytest.mark.parametrize("damage", [damage_byte, cut])
def test_a_damaged_shard_is_computed_again(damage: Callable[[Path], None]) -> None:
    with pytest.raises(KeyboardInterrupt):
        opened(lambda: Counting(die_at=9))
    first, _ = sorted((KEY.folder / "shards").iterdir())
    damage(first)
    source = Counting()
    np.testing.assert_array_equal(opened(lambda: source).rows_ND, EXPECTED)
    assert source.asked == [(0, 4), (8, 10)]


def test_other_shard_sizes_are_not_mixed() -> None:
    with pytest.raises(KeyboardInterrupt):
        opened(lambda: Counting(die_at=9))
    source = Counting()
    rows = open_features(KEY, NUM_ROWS, lambda: source, shard_rows=5, progress=quiet).rows_ND
    np.testing.assert_array_equal(rows, EXPECTED)
    assert source.asked == [(0, 5), (5, 10)]


def test_rows_that_are_not_finite_are_refused() -> None:
    class Broken(Counting):
        def compute(self, start: int, stop: int) -> NDArray[np.float32]:
            rows = super().compute(start, stop)
            if start == 4:
                rows[1, 1] = np.nan
            return rows

    with pytest.raises(ValueError, match="features of rows 4 to 7 are not finite"):
        opened(Broken)
    assert not is_present(KEY)


def test_a_full_disk_is_told_and_leaves_nothing_half_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(
            ValueError, match=r"cannot be written \(No space left on device\); make room .* VLPURE_CACHE"
        ):
            opened(Counting)
    assert list((KEY.folder / "shards").iterdir()) == []
    np.testing.assert_array_equal(opened(Counting).rows_ND, EXPECTED)


def test_a_store_that_cannot_be_written_is_told(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(ValueError, match=r"cache: .* cannot be written"):
        opened(Counting)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_whole_entry_is_read_from_a_read_only_store(cache: Path) -> None:
    opened(Counting)
    for path in (KEY.folder, cache):
        path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        np.testing.assert_array_equal(opened(unwanted).rows_ND, EXPECTED)
    finally:
        for path in (cache, KEY.folder):
            path.chmod(stat.S_IRWXU)


def test_an_error_of_the_source_is_not_blamed_on_the_store() -> None:
    class Failing(Counting):
        def compute(self, start: int, stop: int) -> NDArray[np.float32]:
            raise OSError("the images are gone")

    with pytest.raises(OSError, match=r"^the images are gone$"):
        opened(Failing)
