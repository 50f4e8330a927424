"""Sharing of a card by processes: NVIDIA's Multi-Process Service, or turns. Importing this needs no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal


def card_sharing(gpus: float) -> Literal["alone", "mps", "turns"]:
    """The way in which a process with that part of a card shares it; processes without NVIDIA's MPS take turns."""
    # In turns four trainings take 7.25 ms per step each, 1.81 ms per step and training; with MPS 5.13 and 1.28
    # (ResNet-18, width 64, batch 64, bf16, 32 pixels, compiled and recorded, H200, n = 600 steps of four processes).
    # Several trainings in threads of one process ended in a segmentation fault there, and would share one memory limit.
    if gpus >= 1:
        return "alone"
    return "mps" if mps_runs() else "turns"


def mps_runs() -> bool:
    """Whether the control daemon of NVIDIA's Multi-Process Service runs on this machine. Needs no GPU and no driver."""
    pid = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")) / "nvidia-cuda-mps-control.pid"
    try:
        os.kill(int(pid.read_text()), 0)
    except PermissionError:  # another user's process: the daemon runs
        return True
    except (OSError, ValueError):
        return False
    return True
