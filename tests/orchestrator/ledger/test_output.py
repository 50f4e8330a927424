"""An output folder is checked before anything is written to it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from orchestrator.ledger.output import open_output


def test_opening_creates_nothing(tmp_path: Path) -> None:
    folder = open_output(tmp_path / "new" / "deep")
    assert folder.grid_id is None
    assert list(tmp_path.iterdir()) == []


def test_the_grid_keeps_its_identity(tmp_path: Path) -> None:
    with open_output(tmp_path / "out").locked() as first:
        assert first.grid_id
    with open_output(tmp_path / "out").locked() as second:
        assert second.grid_id == first.grid_id


def test_a_second_run_is_kept_out(tmp_path: Path) -> None:
    with (
        open_output(tmp_path / "out").locked(),
        pytest.raises(ValueError, match="another run is writing to"),
        open_output(tmp_path / "out").locked(),
    ):
        pass


def test_a_file_system_without_locks_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with (
        pytest.raises(ValueError, match=r"out is on a file system without locks \(No locks available\)"),
        open_output(tmp_path / "new" / "out").locked(),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vlpure.json").write_text(json.dumps({"format": 99, "grid_id": "x"}))
    with pytest.raises(ValueError, match="made by another version of this software"):
        open_output(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", "null"])
def test_a_damaged_marker_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "vlpure.json").write_text(content)
    with pytest.raises(ValueError, match=r"vlpure\.json is damaged"):
        open_output(tmp_path)


def test_any_flipped_bit_of_the_marker_is_noticed(tmp_path: Path) -> None:
    with open_output(tmp_path).locked() as output:
        pass
    marker = tmp_path / "vlpure.json"
    whole, num_noticed = marker.read_bytes(), 0
    for at in range(len(whole)):
        marker.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            assert open_output(tmp_path) == output  # a blank became another blank
        except ValueError as error:
            assert str(tmp_path) in str(error)  # noqa: PT017
            num_noticed += 1
    assert len(whole) - num_noticed < whole.count(b" ")
    marker.write_text(json.dumps({"format": 1, "grid_id": "of an earlier version"}))
    assert open_output(tmp_path).grid_id == "of an earlier version"


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds other files"):
        open_output(tmp_path)


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file, not a folder"):
        open_output(tmp_path / "file" / "out")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(ValueError, match="cannot be written"):
        open_output(tmp_path / "out")
