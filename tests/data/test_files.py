"""Whole files, locks and hashes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from data.files import (
    cache_root,
    content_hash,
    file_hash,
    file_lock,
    lock_holder,
    write_atomically,
    write_text_atomically,
)

REPOSITORY = Path(__file__).parents[2]


def test_cache_root_is_the_variable_or_below_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "elsewhere"))
    assert cache_root() == tmp_path / "elsewhere"
    assert not cache_root().exists()
    monkeypatch.delenv("VLPURE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "vlpure"
    monkeypatch.setenv("VLPURE_CACHE", "~/here")
    assert cache_root() == tmp_path / "here"


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text_atomically(path, "old \N{EM DASH} text")
    assert path.read_bytes() == "old \N{EM DASH} text".encode()
    assert path.stat().st_mode & 0o777 == 0o644

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_bytes() == "old \N{EM DASH} text".encode()
    assert list(path.parent.iterdir()) == [path]


def test_old_content_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    seen = []

    def write(file: BinaryIO) -> None:
        file.write(b"new")
        file.flush()
        seen.append(path.read_text())

    write_atomically(path, write)
    assert seen == ["old"]
    assert path.read_text() == "new"


def test_lock_keeps_other_processes_out_and_ends_with_the_process(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from data.files import file_lock\n"
        f"with file_lock(Path({str(tmp_path / 'sub' / 'lock')!r})):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(BlockingIOError), file_lock(tmp_path / "sub" / "lock", wait=False):
        pass
    other.kill()
    other.communicate()
    with file_lock(tmp_path / "sub" / "lock", wait=False):
        pass


def test_content_hash_is_of_the_value_not_of_how_it_is_written() -> None:
    assert content_hash({"a": 1, "b": [1.5, None]}) == content_hash({"b": [1.5, None], "a": 1})
    assert content_hash([1, 2]) != content_hash([2, 1])
    assert content_hash("1") != content_hash(1)
    assert content_hash({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_hash(float("nan"))
    with pytest.raises(TypeError):
        content_hash({1, 2})


def test_file_hash_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux shows who holds a lock")
def test_the_holder_of_a_lock_is_seen_without_taking_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    assert lock_holder(path) is None
    with file_lock(path):
        assert lock_holder(path) == os.getpid()
        (tmp_path / "other").touch()
        assert lock_holder(tmp_path / "other") is None
    assert lock_holder(path) is None
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # a reader's lock keeps nobody from asking who writes
        assert lock_holder(path) is None
