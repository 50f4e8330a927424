"""Whether processes share a card by NVIDIA's MPS: a file with a process's number stands in for its daemon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from models.mps import card_sharing, mps_runs


def test_the_multi_process_service_is_noticed_by_its_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not mps_runs()
    assert (card_sharing(1.0), card_sharing(2.0), card_sharing(0.25)) == ("alone", "alone", "turns")
    pid = tmp_path / "nvidia-cuda-mps-control.pid"
    pid.write_text(f"{os.getpid()}\n")
    assert mps_runs()
    assert (card_sharing(1.0), card_sharing(0.25)) == ("alone", "mps")
    pid.write_text("999999999\n")  # a daemon that is gone
    assert not mps_runs()
    pid.write_text("")
    assert not mps_runs()
