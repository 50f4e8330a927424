"""Published pickles are read; made-up ones can run nothing."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.sources.restricted_pickle import load_pickle

Python2Pickle = Callable[[Any], bytes]


def test_pickles_of_python_2(tmp_path: Path, python2_pickle: Python2Pickle) -> None:
    pixels = np.arange(600, dtype=np.uint8).reshape(2, 300)
    content = {"data": pixels, "labels": [1, 300, -2], "batch_label": "training batch 1 of 5", "nested": [("a", True)]}
    written = python2_pickle(content)
    # The same bytes read by Python's own unpickler: the fixture writes what it says.
    assert np.array_equal(pickle.loads(written, encoding="latin1")["data"], pixels)
    (tmp_path / "batch").write_bytes(written)
    read = load_pickle(tmp_path / "batch")
    assert read["data"].dtype == np.uint8
    assert np.array_equal(read.pop("data"), pixels)
    assert read == {name: value for name, value in content.items() if name != "data"}


def test_integer_arrays_and_fortran_order(tmp_path: Path, python2_pickle: Python2Pickle) -> None:
    numbers = np.array([[1, -2], [3, 70000]])
    written = python2_pickle({"labels": numbers})
    (tmp_path / "batch").write_bytes(written)
    assert load_pickle(tmp_path / "batch")["labels"].tolist() == numbers.tolist()
    (tmp_path / "batch").write_bytes(written.replace(b"tb\x89", b"tb\x88"))
    assert load_pickle(tmp_path / "batch")["labels"].tolist() == numbers.T.tolist()


class _Runs:
    """Runs a command when it is unpickled by Python's own unpickler."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_a_command_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(pickle.dumps({"data": _Runs(tmp_path / "ran")}))
    with pytest.raises(ValueError, match=r"batch: this is not the published data file \(it names posix\.system"):
        load_pickle(tmp_path / "batch")
    assert not (tmp_path / "ran").exists()
    pickle.loads((tmp_path / "batch").read_bytes())
    assert (tmp_path / "ran").exists(), "the pickle of this test does run a command where it may"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Ran out of input"),
        (b"no pickle", "not the published data file"),
        (pickle.dumps([1, 2]), "it holds no dict"),
        (pickle.dumps({"a": set()}, protocol=2), "it names __builtin__.set"),
        (pickle.dumps({"a": np.array([object()])}), "arrays of type 'O8' are not expected"),
        (pickle.dumps({"a": np.zeros(2, dtype=">i8")}), "byte order '>' are not expected"),
        (b"\x80\x02}(U\x01aP1\n.", "not the published data file"),
        (b"\x80\x02}(U\x01aU\x01bQu.", "refers to 'b' outside the file"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "not callable"),
        (b"\x80\x02cnumpy\ndtype\n)\x81}b.", "not the published data file"),
        (b"\x80\x02ccopyreg\n_reconstructor\n.", "it names copyreg._reconstructor"),
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_pickle(tmp_path / "batch")
    assert str(caught.value).startswith(f"{tmp_path / 'batch'}: ")


def test_every_cut_of_a_pickle_is_refused(tmp_path: Path, python2_pickle: Python2Pickle) -> None:
    written = python2_pickle({"data": np.arange(12, dtype=np.uint8).reshape(2, 6), "labels": [0, 1]})
    for length in range(len(written)):
        (tmp_path / "batch").write_bytes(written[:length])
        with pytest.raises(ValueError, match="not the published data file"):
            load_pickle(tmp_path / "batch")


def test_array_with_too_few_bytes_is_refused(tmp_path: Path, python2_pickle: Python2Pickle) -> None:
    written = python2_pickle({"data": np.arange(12, dtype=np.uint8).reshape(2, 6)})
    assert written.count(b"K\x06t") == 1
    (tmp_path / "batch").write_bytes(written.replace(b"K\x06t", b"K\x07t"))
    with pytest.raises(ValueError, match="cannot reshape"):
        load_pickle(tmp_path / "batch")
