"""Weights files with a seal, so that damage is noticed. Importing this needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.sealed import Damaged, check_sealed, write_sealed


def save_weights(path: Path, content: Any, *, name: str) -> None:
    """Write tensors and their containers atomically and with a seal for `name`; torch.load can read the file too."""
    import torch

    write_sealed(path, lambda file: torch.save(content, file), name)


def load_weights(path: Path, *, name: str) -> Any:
    """The content that `save_weights` wrote under that name, on the CPU; files of earlier versions are read too.

    Raises FileNotFoundError, Damaged for a file with other bytes than were written, Newer for a later version's.
    """
    import torch

    check_sealed(path, name)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a file without a seal, damaged bytes make torch.load raise almost anything
        raise Damaged("it is torn or damaged") from error
