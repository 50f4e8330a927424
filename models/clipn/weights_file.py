"""The outside of a weights file: which of the readable formats it has, as far as that shows without reading it whole.

Importing this needs no torch: plans and dry runs refuse a file of another kind before anything starts.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Literal

from data.files import user_path

WeightsFormat = Literal["safetensors", "torch", "torch before 1.6"]
_LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa8")
"""Bytes of torch.save's first file format that follow two bytes for the version of pickle."""
CHECKPOINT = "clipn.checkpoint"
"""Setting that is named in errors, unless another one gave the file."""


def weights_format(path: Path, *, setting: str = CHECKPOINT) -> WeightsFormat:
    """Format of a weights file, by its first bytes and its directory.

    Raises ValueError, naming `setting` and the file, if it is missing, may not be read, is truncated, is a TorchScript
    archive, or is no weights file.
    """
    path = user_path(path)
    if not path.is_file():
        raise ValueError(f"{setting}: there is no file {path}")
    try:
        with path.open("rb") as file:
            start = file.read(16)
            num_bytes = path.stat().st_size
            if path.suffix == ".safetensors":
                num_header = int.from_bytes(start[:8], "little")
                if not 8 + num_header <= num_bytes or not _is_json(path, num_header):
                    raise ValueError(f"{setting}: {path} cannot be read: it is damaged or not a weights file")
                return "safetensors"
            if start[2:12] == _LEGACY_MAGIC:
                return "torch before 1.6"
            names = _zip_names(path) if start[:2] == b"PK" and zipfile.is_zipfile(file) else None
    except PermissionError as error:
        raise ValueError(f"{setting}: {path} may not be read by this user; change its permissions") from error
    except zipfile.BadZipFile as error:
        raise ValueError(f"{setting}: {path} cannot be read: it is damaged") from error
    if names is None:
        raise ValueError(f"{setting}: {path} is truncated or not a weights file")
    if any("/code/" in name for name in names):
        raise ValueError(
            f"{setting}: {path} is a TorchScript archive, a program with its weights; save its state_dict() with "
            "torch.save instead"
        )
    return "torch"


def _is_json(path: Path, num_header: int) -> bool:
    """Whether the header of a safetensors file is a JSON object."""
    with path.open("rb") as file:
        file.seek(8)
        try:
            return isinstance(json.loads(file.read(num_header)), dict)
        except (ValueError, RecursionError):
            return False


def _zip_names(path: Path) -> list[str]:
    """Names in a zip file. Raises BadZipFile for a damaged directory."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception as error:  # a damaged directory makes zipfile raise almost anything
        raise zipfile.BadZipFile from error
