"""Entries of the store: whole or absent, built by one process, repaired when damaged."""

from __future__ import annotations

import json
import os
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


def flip(path: Path, at: int) -> None:
    """Flip a bit as a dying disk does, which changes no time."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("damage", ["flipped", "cut", "removed", "no meta"])
def test_damaged_entry_is_built_again(write_folder: WriteFolder, cache: Path, damage: str) -> None:
    name = f"folder:{write_folder()}"
    fingerprint = open_data_set(name).fingerprint
    (array,) = cache.rglob("train.npy")
    if damage == "flipped":
        flip(array, -7)
    elif damage == "cut":
        array.write_bytes(array.read_bytes()[:-1])
    elif damage == "removed":
        array.unlink()
    else:
        (array.parent / "meta.json").unlink()
    images = open_data_set(name).train.images
    assert isinstance(images, ArrayImages)
    assert PixelHash.of(images.pixels_NHWC) == images.fingerprint
    assert open_data_set(name).fingerprint == fingerprint


@pytest.mark.parametrize("damaged", [True, False])
def test_an_entry_of_an_earlier_version_is_used_if_its_images_have_their_fingerprint(
    damaged: bool, write_folder: WriteFolder, cache: Path
) -> None:
    name = f"folder:{write_folder()}"
    fingerprint = open_data_set(name).fingerprint
    (meta,) = cache.rglob("meta.json")
    content = json.loads(meta.read_text())
    meta.write_text(json.dumps({field: content[field] for field in content if field not in ("checksums", "seal")}))
    earlier = meta.read_bytes()
    if damaged:
        flip(meta.parent / "train.npy", -7)
    lines: list[str] = []
    assert open_data_set(name, progress=lines.append).fingerprint == fingerprint
    assert (meta.read_bytes() != earlier) == damaged
    assert len(lines) == damaged
    images = open_data_set(name, progress=_silent).train.images
    assert isinstance(images, ArrayImages)
    assert PixelHash.of(images.pixels_NHWC) == images.fingerprint


def test_any_flipped_bit_of_the_description_is_noticed(write_folder: WriteFolder, cache: Path) -> None:
    name = f"folder:{write_folder(num_train=3, num_test=2)}"
    mean = open_data_set(name).mean
    (meta,) = cache.rglob("meta.json")
    content = meta.read_bytes()
    at = content.index(b"0.", content.index(b'"mean"')) + 2
    for position in range(at, at + 4):  # digits of a mean, which no checksum of an array covers
        flip(meta, position)
        lines: list[str] = []
        assert open_data_set(name, progress=lines.append).mean == mean
        assert len(lines) == 1
        assert f"the stored file {meta} is damaged (its checksum is not that of its content)" in lines[0]


def test_descriptions_that_changed_places_are_noticed(cache: Path) -> None:
    for number in (1, 2):
        open_entry(number, lambda _, number=number: {"number": number}, what="toy", progress=_silent)
    first, second = cache.rglob("meta.json")
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    lines: list[str] = []
    for number in (1, 2):
        meta = open_entry(number, lambda _, number=number: {"number": number}, what="toy", progress=lines.append)[1]
        assert meta["number"] == number
    assert len(lines) == 2


def test_an_entry_of_a_newer_version_is_left_alone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("data.sealed.VERSION", 9)
        open_entry("key", lambda _: {"number": 1}, what="toy", progress=_silent)
    (meta,) = cache.rglob("meta.json")
    before = meta.read_bytes()
    with pytest.raises(ValueError, match=r"meta\.json: a newer version of this software wrote it .*VLPURE_CACHE"):
        open_entry("key", lambda _: {"number": 2}, what="toy", progress=_silent)
    assert meta.read_bytes() == before


def test_what_a_killed_process_left_in_an_entry_is_removed(cache: Path) -> None:
    open_entry("key", lambda _: {}, what="toy", progress=_silent)
    (meta,) = cache.rglob("meta.json")
    meta.rename(meta.with_name(".meta.json.0123abcd"))
    open_entry("key", lambda _: {}, what="toy", progress=_silent)
    assert [path.name for path in meta.parent.iterdir()] == ["meta.json"]


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
        expected = f"another process is reading the images; waiting for it (process {os.getpid()})\n"
        assert expected in other.stdout.readline()
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
    with pytest.raises(ValueError, match=r"cache: \S+file/images/\w+ cannot be written .*VLPURE_CACHE"):
        open_data_set(f"folder:{write_folder()}")


def test_meta_data_tell_what_was_found(write_folder: WriteFolder, cache: Path) -> None:
    open_data_set(f"folder:{write_folder(num_train=3, num_test=2)}")
    (meta,) = cache.rglob("meta.json")
    content = json.loads(meta.read_text())
    assert content["image_size"] == 8
    assert set(content["num_bytes"]) == {"train.npy", "test.npy"}
