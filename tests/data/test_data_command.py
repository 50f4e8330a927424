"""`python -m data`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data.__main__ import main
from tests.data.published_files import DOMAINS, write_domainnet

WriteFolder = Callable[..., Path]


def test_list_says_what_is_there_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data-root", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        *("digits", "present", "900", "training", "and", "297", "test", "images:", "bundled", "with", "scikit-learn"),
    ]
    archives = {
        "cifar10": "cifar-10-python.tar.gz (170 MB)",
        "cifar100": "cifar-100-python.tar.gz (169 MB)",
        "tiny-imagenet": "tiny-imagenet-200.zip (248 MB)",
        "tiny-imagenet:words": "tiny-imagenet-200.zip (248 MB)",
        **{f"domainnet-{domain}": "18 files (18.5 GB)" for domain in DOMAINS},
    }
    for line, (name, archive) in zip(lines[1:11], archives.items(), strict=True):
        assert line.split()[:2] == [name, "missing"]
        command = f"`python -m data fetch {name.partition(':')[0]} --data-root {tmp_path}` downloads {archive}"
        assert f"; {command}, or takes " in line
    assert lines[11].startswith("folder:<path>")
    assert str(tmp_path / "cache") in lines[12]
    assert len(lines) == 13


def test_list_without_a_folder_says_once_how_to_give_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VLPURE_DATA", raising=False)
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("digits              present ")
    assert lines[1] == "cifar10             unknown   170 MB if it has to be downloaded"
    assert lines[10] == "domainnet-sketch    unknown   18.5 GB if it has to be downloaded"
    assert lines[11].startswith("folder:<path>")
    assert lines[12].startswith("no folder of data sets is given: --data-root DIR or VLPURE_DATA=DIR ")
    assert len(lines) == 14


def test_domains_of_domainnet_are_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_domainnet(tmp_path)
    assert main(["--data-root", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[9].startswith(
        f"domainnet-real      present   72 training and 8 test images: {source} (NOT the published"
    )
    assert main(["domainnet-real", "--data-root", str(tmp_path), "--check-images"]) == 0
    out = capsys.readouterr().out
    assert "domainnet-real: 4 classes, 224x224 pixels" in out
    assert "72 (3 to 3 per class; 60 of other domains)" in out
    damaged = source / "sketch" / "ant" / "sketch_002_000003.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-50])
    assert main(["domainnet-real", "--data-root", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["domainnet-real", "--data-root", str(tmp_path), "--check-images"]) == 2
    assert "sketch_002_000003.jpg: this image file is damaged" in capsys.readouterr().err


def test_interrupted_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("data.__main__.fetch_data_set", interrupt)
    assert main(["fetch", "cifar10"]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("no folder")
    assert main(["fetch", "cifar10", "--data-root", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"python -m data: error: {tmp_path / 'file'}: File exists\n"


def test_named_data_sets_are_read_and_described(write_folder: WriteFolder, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder(num_train=3, num_test=2)
    assert main([f"folder:{root}", "digits"]) == 0
    out = capsys.readouterr().out
    assert f"folder:{root}: 2 classes, 8x8 pixels" in out
    assert "6 (3 to 3 per class)" in out
    assert "circle, square" in out
    assert "digits: 10 classes, 8x8 pixels" in out


def test_error_is_one_line_and_status_2(write_folder: WriteFolder, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder()
    (root / "train" / "circle" / "0.png").write_bytes(b"")
    assert main([f"folder:{root}"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"python -m data: error: {root}/train/circle/0.png: this image file is empty (0 bytes); copy it again or "
        "remove it (or --on-bad-image skip)\n"
    )
    with pytest.raises(ValueError, match="this image file is empty"):
        main([f"folder:{root}", "--debug"])
