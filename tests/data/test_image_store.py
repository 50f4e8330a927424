"""Entries of the store: whole or absent, built by one process, repaired when damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.files import file_lock
from data.image_store import open_array, open_entry, write_array
from data.imageset import ArrayImages
from data.pixels import PixelHash
from data.registry import open_data_set

WriteFolder = Callable[..., Path]
REPOSITORY = Path(__file__).parents[2]


def _silent(line: str) -> None:
    raise AssertionError(f"nothing to tell, but got: {line}")


def test_array_is_written_in_blocks_and_hashed(tmp_path: Path) -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(5, 2, 2, 3)
    fingerprint = write_array(tmp_path / "a.npy", iter([pixels[:2], pixels[2:]]), (5, 2, 2, 3))
    assert fingerprint == PixelHash.of(pixels)
    assert np.array_equal(open_array(tmp_path / "a.npy"), pixels)


def test_entry_is_built_once_and_keyed_by_its_key(cache: Path) -> None:
    built = []

    def build(folder: Path) -> dict[str, object]:
        built.append(folder)
        return {"number": len(built)}

    assert open_entry({"a": 1}, build, what="toy", progress=_silent)[1]["number"] == 1
    assert open_entry({"a": 1}, build, what="toy", progress=_silent)[1]["number"] == 1
    assert open_entry({"a": 2}, build, what="toy", progress=_silent)[1]["number"] == 2
    assert len(set(built)) == 2
    assert all(cache in folder.parents for folder in built)


def test_interrupted_build_leaves_no_entry(cache: Path) -> None:
    def interrupted(folder: Path) -> dict[str, object]:
        (folder / "half.npy").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_entry("key", interrupted, what="toy", progress=_silent)
    assert not list(cache.rglob("meta.json"))
    assert open_entry("key", lambda _: {"whole": True}, what="toy", progress=_silent)[1]["whole"] is True


@pytest.mark.parametrize("damage", ["cut", "removed", "no meta"])
def test_damaged_entry_is_built_again(write_folder: WriteFolder, cache: Path, damage: str) -> None:
    name = f"folder:{write_folder()}"
    fingerprint = open_data_set(name).fingerprint
    (array,) = cache.rglob("train.npy")
    if damage == "cut":
        array.write_bytes(array.read_bytes()[:-1])
    elif damage == "removed":
        array.unlink()
    else:
        (array.parent / "meta.json").unlink()
    images = open_data_set(name).train.images
    assert isinstance(images, ArrayImages)
    assert PixelHash.of(images.pixels_NHWC) == images.fingerprint
    assert open_data_set(name).fingerprint == fingerprint


def test_waiting_for_another_process_is_told(write_folder: WriteFolder, cache: Path) -> None:
    root = write_folder()
    open_data_set(f"folder:{root}")
    (meta,) = cache.rglob("meta.json")
    meta.unlink()
    script = (
        "from data.registry import open_data_set\n"
        f"print(open_data_set('folder:{root}', progress=lambda line: print(line, flush=True)).image_size)"
    )
    with file_lock(meta.parent.with_suffix(".lock")):
        other = subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert "another process is reading the images; waiting for it" in other.stdout.readline()
        assert other.poll() is None
    assert other.communicate(timeout=60)[0] == "8\n"


def test_entry_that_appears_while_waiting_is_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_entry("key", lambda _: {"number": 1}, what="toy", progress=_silent)
    (meta,) = cache.rglob("meta.json")
    content = meta.read_text()
    meta.unlink()
    lines = []

    def appear(line: str) -> None:
        lines.append(line)
        meta.write_text(content)
        held.close()

    held = (meta.parent.with_suffix(".lock")).open("a")
    import fcntl

    fcntl.flock(held, fcntl.LOCK_EX)
    assert open_entry("key", lambda _: {"number": 2}, what="toy", progress=appear)[1]["number"] == 1
    assert len(lines) == 1


def test_cache_that_cannot_be_written_is_named(
    write_folder: WriteFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"cannot keep decoded images in \S+file/images/\w+ .*VLPURE_CACHE"):
        open_data_set(f"folder:{write_folder()}")


def test_meta_data_tell_what_was_found(write_folder: WriteFolder, cache: Path) -> None:
    open_data_set(f"folder:{write_folder(num_train=3, num_test=2)}")
    (meta,) = cache.rglob("meta.json")
    content = json.loads(meta.read_text())
    assert content["image_size"] == 8
    assert set(content["num_bytes"]) == {"train.npy", "test.npy"}
