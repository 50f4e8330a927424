"""What a user is told about settings that he will hardly want."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from experiments.commands import flags as advice
from experiments.commands.flags import has_bf16, shared_card, slow_arithmetic
from orchestrator.settings.reading import make_trial
from orchestrator.settings.trial import TrialConfig


def trial(precision: str) -> TrialConfig:
    return make_trial(
        dataset="digits", mismatch_ratio=0.2, ood_ratio=0.2, strategy="random", seed=0, recipe={"precision": precision}
    )


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512f\n", False),
        ("flags\t\t: fpu avx2 avx512_bf16\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("Features\t: fp asimd\n", False),
        ("model name : something that does not tell\n", True),
    ],
)
def test_instructions_are_read_from_linux(
    facts: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(facts)
    monkeypatch.setattr(advice, "CPU_FACTS", tmp_path / "cpuinfo")
    assert has_bf16() == expected


def test_elsewhere_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(advice, "CPU_FACTS", tmp_path / "nothing")
    assert slow_arithmetic([trial("bf16")], gpus=0) == []


def test_bf16_on_a_cpu_that_imitates_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice, "has_bf16", lambda: False)
    (line,) = slow_arithmetic([trial("fp32"), trial("bf16")], gpus=0)
    assert "this machine's has no bfloat16 instructions" in line
    assert slow_arithmetic([trial("bf16")], gpus=0.25) == []
    assert slow_arithmetic([trial("fp32")], gpus=0) == []


def test_sharing_a_card_without_the_multi_process_service_says_what_it_costs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    (line,) = shared_card(0.25, address="auto")
    assert line.startswith("--gpus-per-trial 0.25 without NVIDIA's MPS: trials on a card take turns")
    assert [shared_card(gpus, address="auto") for gpus in (0, 1, 2)] == [[], [], []]
    assert shared_card(0.25, address="ray://elsewhere:10001") == []  # its nodes may have it
    (tmp_path / "nvidia-cuda-mps-control.pid").write_text(str(os.getpid()))
    assert shared_card(0.25, address="auto") == []
