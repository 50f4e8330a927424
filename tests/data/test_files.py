"""Whole files, locks and hashes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from data.files import (
    cache_root,
    content_hash,
    file_hash,
    file_lock,
    leftovers,
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


HOLDER = (
    "import sys; from pathlib import Path; from data.files import file_lock\n"
    "with file_lock(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()\n"
)


def test_the_holder_of_a_lock_is_seen_until_it_ends(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    assert lock_holder(path) is None
    with file_lock(path):
        assert lock_holder(path) == os.getpid()
        assert lock_holder(tmp_path / "other") is None
    assert lock_holder(path) is None
    assert path.read_bytes() == b""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert lock_holder(path) == other.pid
        other.kill()
        other.wait()
    assert path.read_bytes() == f"{other.pid}\n".encode()  # a killed process leaves its id, and holds nothing
    assert lock_holder(path) is None


def test_whoever_looks_at_a_lock_keeps_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.write_text("1\n")
    with path.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        ending = threading.Timer(0.02, looking.close)
        ending.start()
        with file_lock(path, wait=False):
            assert lock_holder(path) == os.getpid()
        ending.join()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.parametrize("wait", [True, False])
def test_a_file_system_without_locks_is_named_and_left_as_it_was(
    number: int, wait: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / "there").mkdir()
    for folder in ("there", "new/deep"):
        with (
            pytest.raises(ValueError, match=r"is on a file system without locks \(.+\), .* \(NFS: without nolock\)"),
            file_lock(tmp_path / folder / ".lock", wait=wait),
        ):
            pass
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_modes_follow_the_umask(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_text_atomically(tmp_path / "file", "text")
        with file_lock(tmp_path / "lock"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode
    assert (tmp_path / "lock").stat().st_mode & 0o777 == mode


def test_what_a_killed_write_leaves_is_known_by_its_name(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from data.files import write_atomically\n"
        "write_atomically(Path(sys.argv[1]), lambda file: os.kill(os.getpid(), 9))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "meta.json")], cwd=REPOSITORY, check=False)
    assert done.returncode == -9
    (tmp_path / ".lock").touch()
    (left,) = leftovers(tmp_path)
    assert left.name.startswith(".meta.json.")


def test_new_folders_and_renames_are_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("data.files.sync_folder", synced.append)
    write_text_atomically(tmp_path / "a" / "b" / "file", "text")
    assert synced == [tmp_path / "a" / "b", tmp_path / "a", tmp_path]


def test_a_lock_that_cannot_be_released_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with pytest.raises(RuntimeError, match=r"^what happened inside$"), file_lock(tmp_path / "lock"):  # noqa: PT012
        monkeypatch.setattr("fcntl.flock", fail)
        raise RuntimeError("what happened inside")
