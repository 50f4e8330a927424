"""Seals: a checksum over a file's content and name with the writer's version, to detect damaged or swapped files.

There are two forms. JSON objects hold a `seal` among their fields; other files end with a line that holds it. The seal
covers a name too, so that two sound files that changed places are noticed. Files of versions before seals have none;
they are readable, and checked by what those versions kept.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from data.files import content_hash, write_atomically

VERSION = 2
"""Version of the files that are written now. Version 1 wrote no seals."""
_SEAL = "seal"
_FIELDS = {"version", "checksum"}


class Damaged(ValueError):
    """The content is not what was written, or not under this name. The message says what is wrong, without the file."""


class Newer(ValueError):
    """A later version of this software wrote the content, and only that version can read it."""


def seal(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The JSON-like content with its seal as the last field. Raises the errors of `content_hash`."""
    checksum = content_hash({"name": name, "version": VERSION, "content": content})
    return {**content, _SEAL: {"version": VERSION, "checksum": checksum}}


def unseal(sealed: Any, name: str) -> tuple[dict[str, Any], bool]:
    """The content of a value that `seal` returned for that name, and whether it had a seal (earlier versions: none).

    Raises Damaged for content that is not what was sealed, Newer for that of a later version.
    """
    if not isinstance(sealed, dict):
        raise Damaged("it holds no JSON object")
    content = dict(sealed)
    found = content.pop(_SEAL, None)
    if found is None:
        # Without this, one flipped bit in the word "seal" would turn a damaged file into one of an earlier version.
        if any(isinstance(value, dict) and value.keys() == _FIELDS for value in content.values()):
            raise Damaged("its seal is damaged")
        return content, False
    if not isinstance(found, dict) or found.keys() != _FIELDS or not isinstance(found["version"], int):
        raise Damaged("its seal is damaged")
    if found["checksum"] != content_hash({"name": name, "version": found["version"], "content": content}):
        raise Damaged("its checksum is not that of its content")
    if found["version"] > VERSION:
        raise Newer(f"a newer version of this software wrote it (version {found['version']}, ours is {VERSION})")
    return content, True


def read_sealed_json(path: Path, name: str) -> tuple[dict[str, Any], bool]:
    """The content of a sealed JSON file, and whether it had a seal, as `unseal` returns them.

    Raises the errors of `unseal`, Damaged for a file that is not JSON, OSError for a file that cannot be read.
    """
    try:
        return unseal(json.loads(path.read_bytes()), name)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise Damaged("it is empty" if path.stat().st_size == 0 else "it is torn or damaged") from None


_TRAILER = re.compile(rb"\nvlpure (\d{4}) ([0-9a-f]{64})\n")
_TRAILER_BYTES = len("\nvlpure 0002 \n") + 64


def write_sealed(path: Path, write: Callable[[BinaryIO], None], name: str) -> None:
    """Write a file as `write_atomically` does, with its seal as a last line; `write` must not seek.

    Readers of zip files, which torch's are, search for the end of the archive backwards and ignore the line.
    """

    def write_with_trailer(file: BinaryIO) -> None:
        hashed = _Hashed(file, _trailer_hash(name, VERSION))
        write(cast(BinaryIO, hashed))
        file.write(f"\nvlpure {VERSION:04d} {hashed.hash.hexdigest()}\n".encode())

    write_atomically(path, write_with_trailer)


def check_sealed(path: Path, name: str) -> None:
    """Raise Damaged unless `write_sealed` wrote the file for that name, and Newer if a later version wrote it.

    A file of an earlier version is a zip file without that line; its own checksums (CRC-32) are compared.
    """
    with path.open("rb") as file:
        num_bytes = file.seek(0, io.SEEK_END) - _TRAILER_BYTES
        file.seek(max(0, num_bytes))
        found = _TRAILER.fullmatch(file.read())
        if found is None:
            _check_zip(path)
            return
        digest = _trailer_hash(name, int(found[1]))
        file.seek(0)
        while num_bytes > 0:
            block = file.read(min(1 << 20, num_bytes))
            digest.update(block)
            num_bytes -= len(block)
    if digest.hexdigest() != found[2].decode():
        raise Damaged("its checksum is not that of its content")
    if int(found[1]) > VERSION:
        raise Newer(f"a newer version of this software wrote it (version {int(found[1])}, ours is {VERSION})")


def _check_zip(path: Path) -> None:
    """Raise Damaged unless the file is a zip file to its last byte, without a comment, with whole members."""
    content_end = struct.Struct("<4s16xH")  # the last record of a zip file: its signature, and how long a comment is
    with path.open("rb") as file:
        num_bytes = file.seek(0, io.SEEK_END)
        if num_bytes == 0:
            raise Damaged("it is empty")
        file.seek(max(0, num_bytes - content_end.size))
        end = file.read()
    # Without this, a file whose seal is damaged would pass for one of an earlier version, under any name.
    if len(end) < content_end.size or content_end.unpack(end) != (b"PK\5\6", 0):
        raise Damaged("it is torn or damaged")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # damaged bytes make zipfile raise almost anything
        raise Damaged(f"it is torn or damaged ({error})") from error
    if damaged is not None:
        raise Damaged(f"its part {damaged} is damaged")


class _Hashed:
    """An open file that hashes all bytes written to it."""

    def __init__(self, file: BinaryIO, digest: Any) -> None:
        self._file, self.hash = file, digest

    def write(self, content: Any) -> int:
        """Write and hash bytes. Returns their number."""
        self.hash.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()


def _trailer_hash(name: str, version: int) -> Any:
    return hashlib.sha256(f"{name}\n{version}\n".encode())
