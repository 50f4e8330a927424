"""Content with a seal: whole, damaged anywhere, under another name, of a later version, of an earlier one."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from data.files import content_hash
from data.sealed import VERSION, Damaged, Newer, check_sealed, read_sealed_json, seal, unseal, write_sealed

CONTENT: dict[str, Any] = {"accuracy": 0.1, "queried": [3, 1, 2], "words": "a \N{EM DASH} b", "none": None}


def with_seal_of(version: int) -> dict[str, Any]:
    checksum = content_hash({"name": "mine", "version": version, "content": CONTENT})
    return CONTENT | {"seal": {"version": version, "checksum": checksum}}


def flips(content: bytes) -> list[bytes]:
    """The content with one bit flipped, for each byte another bit."""
    return [content[:n] + bytes([content[n] ^ 1 << n % 8]) + content[n + 1 :] for n in range(len(content))]


def test_json_comes_back_as_it_was() -> None:
    sealed = json.loads(json.dumps(seal(CONTENT, "mine")))
    assert unseal(sealed, "mine") == (CONTENT, True)
    assert unseal(CONTENT, "mine") == (CONTENT, False)
    assert sealed == with_seal_of(VERSION)


def test_any_flipped_bit_of_json_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    whole = json.dumps(seal(CONTENT, "mine")).encode()
    for flipped in flips(whole):
        path.write_bytes(flipped)
        try:
            content, _ = read_sealed_json(path, "mine")
        except Damaged:
            continue
        assert content == CONTENT  # a blank became another blank
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(Damaged, match="it is empty" if cut == 0 else "it is torn or damaged"):
            read_sealed_json(path, "mine")


@pytest.mark.parametrize(
    ("sealed", "name", "message"),
    [
        (seal(CONTENT, "mine"), "another's", "its checksum is not that of its content"),
        ([1], "mine", "it holds no JSON object"),
        (CONTENT | {"seal": 3}, "mine", "its seal is damaged"),
        (CONTENT | {"seal": {"version": "2", "checksum": "x"}}, "mine", "its seal is damaged"),
        (CONTENT | {"seam": {"version": 2, "checksum": "x"}}, "mine", "its seal is damaged"),
    ],
)
def test_what_is_wrong_with_json_is_said(sealed: Any, name: str, message: str) -> None:
    with pytest.raises(Damaged, match=message):
        unseal(sealed, name)


def test_a_later_version_is_told_from_damage() -> None:
    with pytest.raises(Newer, match=rf"a newer version of this software wrote it \(version 9, ours is {VERSION}\)"):
        unseal(with_seal_of(9), "mine")
    with pytest.raises(Damaged):
        unseal(with_seal_of(9) | {"accuracy": 0.2}, "mine")


def write_zip(file: BinaryIO) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"content of a")
        archive.writestr("b", b"content of b")


def test_any_flipped_bit_of_a_sealed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_sealed(path, lambda file: file.write(b"abc" * 10) and None, "mine")
    check_sealed(path, "mine")
    whole = path.read_bytes()
    assert whole.startswith(b"abc" * 10 + b"\nvlpure 0002 ")
    for damaged in [*flips(whole), *(whole[:cut] for cut in range(len(whole))), whole + b"\n"]:
        path.write_bytes(damaged)
        with pytest.raises(Damaged):
            check_sealed(path, "mine")
    path.write_bytes(whole)
    with pytest.raises(Damaged, match="its checksum is not that of its content"):
        check_sealed(path, "another's")


def test_a_later_versions_file_is_told_from_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("data.sealed.VERSION", 9)
        write_sealed(tmp_path / "file", lambda file: file.write(b"abc") and None, "mine")
    with pytest.raises(Newer, match=r"\(version 9, ours is 2\)"):
        check_sealed(tmp_path / "file", "mine")


def test_a_zip_file_of_an_earlier_version_is_checked_by_its_own_checksums(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        write_zip(file)
    check_sealed(path, "any")
    whole = path.read_bytes()
    at = whole.index(b"content of b")
    path.write_bytes(whole[:at] + b"Content" + whole[at + 7 :])
    with pytest.raises(Damaged, match="its part b is damaged"):
        check_sealed(path, "any")
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(Damaged):
            check_sealed(path, "any")


def test_a_zip_file_whose_seal_is_damaged_does_not_pass_for_an_earlier_versions(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_sealed(path, lambda file: file.write(_zip_bytes(tmp_path)) and None, "mine")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"vlpure", b"vlpurf"))
    assert zipfile.is_zipfile(path)
    with pytest.raises(Damaged):
        check_sealed(path, "mine")


def _zip_bytes(folder: Path) -> bytes:
    with (folder / "zip").open("wb") as file:
        write_zip(file)
    return (folder / "zip").read_bytes()
