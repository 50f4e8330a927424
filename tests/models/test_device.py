"""What a process takes of a GPU, and how it computes there; torch's own switches stand in for the GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from models.device import (
    CONTEXT_BYTES,
    clear_memory_errors,
    memory_share,
    pick_device,
    use_arithmetic,
)


@pytest.fixture
def switches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts the process back as it was."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def state() -> tuple[bool, bool, bool, bool, bool]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    deterministic = torch.are_deterministic_algorithms_enabled()
    return deterministic, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32


@pytest.mark.usefixtures("switches")
def test_each_trial_sets_how_a_gpu_computes() -> None:
    gpu = torch.device("cuda")
    use_arithmetic(gpu, deterministic=True)
    assert state() == (True, True, False, False, False)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    use_arithmetic(gpu, deterministic=False)
    assert state() == (False, False, True, True, False)


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_cpu_is_left_as_it_is(deterministic: bool) -> None:
    before = state()
    use_arithmetic(torch.device("cpu"), deterministic=deterministic)
    assert state() == before
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


@pytest.mark.usefixtures("switches")
def test_a_trial_on_a_cpu_after_one_on_a_gpu_is_as_any_other() -> None:
    use_arithmetic(torch.device("cuda"), deterministic=True)
    use_arithmetic(torch.device("cpu"), deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("gpus", "share"), [(2.0, 1.0), (1.0, 1.0), (0.5, 0.5 - 1 / 16), (0.25, 0.25 - 1 / 16), (0.1, 0.05)]
)
def test_a_process_takes_its_part_of_the_memory(gpus: float, share: float) -> None:
    assert memory_share(gpus, 16 * CONTEXT_BYTES) == pytest.approx(share)


def test_the_part_is_set_when_the_device_is_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    card = SimpleNamespace(total_memory=16 * CONTEXT_BYTES)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", told.append)
    assert [pick_device(gpus).type for gpus in (0.5, 1, 0)] == ["cuda", "cuda", "cpu"]
    assert told == [0.5 - 1 / 16, 1.0]


def test_too_little_memory_is_one_line_with_advice() -> None:
    with (
        pytest.raises(MemoryError, match=r"too small in training: .*--gpus-per-trial\), or lower it$"),
        clear_memory_errors("in training", "lower it"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
