"""`python -m data`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data.__main__ import main

WriteFolder = Callable[..., Path]


def test_list_says_what_is_there_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data-root", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        *("digits", "present", "900", "training", "and", "297", "test", "images:", "bundled", "with", "scikit-learn"),
    ]
    for line, name, archive in zip(
        lines[1:4],
        ("cifar10", "cifar100", "tiny-imagenet"),
        ("cifar-10-python.tar.gz", "cifar-100-python.tar.gz", "tiny-imagenet-200.zip"),
        strict=True,
    ):
        assert line.split()[:2] == [name, "missing"]
        assert str(tmp_path) in line
        assert archive in line
    assert "folder:<path>" in lines[4]
    assert str(tmp_path / "cache") in lines[5]


def test_named_data_sets_are_read_and_described(write_folder: WriteFolder, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder(num_train=3, num_test=2)
    assert main([f"folder:{root}", "digits"]) == 0
    out = capsys.readouterr().out
    assert f"folder:{root}: 2 classes, 8x8 pixels" in out
    assert "6 (3 to 3 a class)" in out
    assert "circle, square" in out
    assert "digits: 10 classes, 8x8 pixels" in out


def test_error_is_one_line_and_status_2(write_folder: WriteFolder, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder()
    (root / "train" / "circle" / "0.png").write_bytes(b"")
    assert main([f"folder:{root}"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"python -m data: {root}/train/circle/0.png: this image file is empty (0 bytes); copy it again or remove it "
        "(or --on-bad-image skip)\n"
    )
    with pytest.raises(ValueError, match="this image file is empty"):
        main([f"folder:{root}", "--debug"])
