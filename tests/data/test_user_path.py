"""What a user writes as a path: `~`, no home folder, an unknown user id, bytes that are not UTF-8."""

from __future__ import annotations

import argparse
import os
import pwd
from pathlib import Path

import pytest

from data.__main__ import main
from data.files import cache_root, path_argument, user_path
from data.registry import open_data_set

LATIN1 = os.fsdecode(b"\xe9t\xe9")


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.delenv("VLPURE_CACHE", raising=False)
    assert user_path("~/runs") == path_argument("~/runs") == Path("/somewhere/runs")
    assert user_path(Path("a/~b")) == Path("a/~b")
    assert cache_root() == Path("/somewhere/.cache/vlpure")
    monkeypatch.setenv("VLPURE_CACHE", "~/store")
    assert cache_root() == Path("/somewhere/store")


def test_nobodys_home_is_refused() -> None:
    told = "there is no home folder for '~nobody-at-all'; write the path out"
    with pytest.raises(ValueError, match=told):
        user_path("~nobody-at-all/runs")
    with pytest.raises(argparse.ArgumentTypeError, match=told):
        path_argument("~nobody-at-all/runs")
    with pytest.raises(argparse.ArgumentTypeError, match="got an empty text"):
        path_argument(" ")


def test_bytes_that_are_no_utf8_are_refused_and_shown(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the path out/\\xe9t\\xe9 holds bytes that are not UTF-8"):
        user_path(f"out/{LATIN1}")
    with pytest.raises(ValueError, match=r"\\xe9t\\xe9 holds bytes that are not UTF-8"):
        open_data_set(f"folder:{tmp_path / LATIN1}")


def test_a_class_folder_with_such_a_name_is_refused(tmp_path: Path) -> None:
    for name in ("cat", LATIN1):
        for part in ("train", "test"):
            (tmp_path / part / name).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"the name of the class folder '\\xe9t\\xe9' is not UTF-8; rename it"):
        open_data_set(f"folder:{tmp_path}")


def test_a_user_without_name_and_home_is_told_what_to_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("VLPURE_CACHE", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)  # docker run --user 12345
    assert main([]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "this user has no home folder (user id " in told
    assert "set HOME, or set VLPURE_CACHE to a folder" in told
    assert main(["folder:~/images"]) == 2
    assert capsys.readouterr().err.endswith("there is no home folder for '~'; write the path out, or set HOME\n")
