"""What the tests of `data` share: a cache of their own, small image folders, the real images."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

WriteFolder = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache root; no data root is set."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("VLPURE_CACHE", str(folder))
    monkeypatch.delenv("VLPURE_DATA", raising=False)
    return folder


@pytest.fixture
def write_folder(tmp_path: Path) -> WriteFolder:
    """Write an image folder of PNG files and return its path."""

    def write(
        name: str = "shapes",
        *,
        classes: tuple[str, ...] = ("circle", "square"),
        num_train: int = 3,
        num_test: int = 2,
        size: tuple[int, int] = (8, 8),
        seed: int = 0,
    ) -> Path:
        generator = np.random.default_rng(seed)
        root = tmp_path / name
        for part, num_images in (("train", num_train), ("test", num_test)):
            for class_name in classes:
                folder = root / part / class_name
                folder.mkdir(parents=True)
                for number in range(num_images):
                    pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{number}.png")
        return root

    return write


def _emit(value: Any) -> bytes:
    """The opcodes that Python 2's pickle, protocol 2, writes for a value (without its notes for repeated objects)."""
    if isinstance(value, str):
        content = value.encode("latin1")
        return b"U" + bytes([len(content)]) + content if len(content) < 256 else b"T" + _int4(len(content)) + content
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + _int4(value)
    if isinstance(value, list):
        return b"](" + b"".join(map(_emit, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_emit, value)) + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(_emit(key) + _emit(item) for key, item in value.items()) + b"u"
    assert isinstance(value, np.ndarray)
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    code, order = value.dtype.str[1:], value.dtype.str[0]
    dtype = (
        b"cnumpy\ndtype\n" + _emit(code) + b"K\x00K\x01\x87R(K\x03" + _emit(order) + b"NNN" + 2 * _emit(-1) + b"K\x00tb"
    )
    return start + b"(K\x01" + _emit(value.shape) + dtype + b"\x89" + _emit(value.tobytes().decode("latin1")) + b"tb"


def _int4(number: int) -> bytes:
    return number.to_bytes(4, "little", signed=True)


@pytest.fixture(scope="session")
def python2_pickle() -> Callable[[Any], bytes]:
    """Pickle a value as Python 2 did, in which the CIFAR archives were written: texts are byte strings."""
    return lambda value: b"\x80\x02" + _emit(value) + b"."


@pytest.fixture(scope="session")
def real_images() -> Path:
    """Folder of the real images; the test is skipped where it is missing."""
    folder = Path(os.environ.get("VLPURE_TEST_DATA", "~/.cache/openset-data")).expanduser()
    if not folder.is_dir():
        pytest.skip(f"no real images in {folder} (set VLPURE_TEST_DATA to the folder that holds them)")
    return folder
