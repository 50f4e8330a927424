"""Files of weights that know whether they are whole. Importing this needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.sealed import Damaged, check_sealed, write_sealed


def save_weights(path: Path, content: Any, *, name: str) -> None:
    """Write tensors, and what holds them, atomically and with a seal for `name`; torch.load reads the file too."""
    import torch

    write_sealed(path, lambda file: torch.save(content, file), name)


def load_weights(path: Path, *, name: str) -> Any:
    """What `save_weights` wrote under that name, on the CPU; of an earlier version's file what it holds.

    Raises FileNotFoundError, Damaged for a file with other bytes than were written, Newer for a later version's.
    """
    import torch

    check_sealed(path, name)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a file without a seal, damaged bytes make torch.load raise almost anything
        raise Damaged("it is torn or damaged") from error
