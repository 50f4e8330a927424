"""The measurements of make gpu-check on a stand-in for a card: each gives its figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks import gpu_passes, gpu_steps, gpu_trainings
from benchmarks.training import usual_transform
from experiments.commands.rates import GpuRates
from models import graphs
from models.classifier import fit, steps
from models.clipn import encode
from models.contrastive import encoder
from tests.card import Card, card

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the card itself is there")


@pytest.fixture
def on_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Card]:
    """A stand-in for a card, and measurements so small that it takes them."""
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path))
    monkeypatch.setattr(graphs, "COMPILE_FROM", graphs.COMPILE_FROM)  # the measurements set it
    monkeypatch.setattr(graphs._Process, "steps", 0)
    for module in (fit, encode, encoder):
        monkeypatch.setattr(module, "compiled_forward", graphs._plain_forward)
    monkeypatch.setattr(fit, "PROGRESS_EVERY", 5)
    # A CPU without bfloat16 takes seconds per step in it.
    monkeypatch.setattr(steps, "autocast", lambda recipe, device: nullcontext())
    monkeypatch.setattr(gpu_steps, "use_threads", lambda number: None)  # two threads on busy cores take ten times one
    small: dict[str, Any] = {
        "BLOCK": 5, "WIDTH": 2, "SIZES": (8,), "CLIPN_STEPS": 10, "PASS_STEPS": 2, "TRAININGS": 3, "POOLS": {8: 40},
        "PURITY_IMAGES": 900, "FLOPS_A_STEP": {8: 1e9}, "images": images, "matrix_peak": lambda *how: 1e12,
    }  # fmt: skip
    for module in (gpu_steps, gpu_passes, gpu_trainings):
        for name in small.keys() & vars(module).keys():
            monkeypatch.setattr(module, name, small[name])
    with card() as made:
        yield made


def images(num: int, size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (num, 8, 8, 3), dtype=np.uint8)


def test_each_way_of_a_step(on_card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    usual: list[tuple[int, str]] = []

    def usual_fit(
        network: nn.Module, pixels: NDArray[np.uint8], *given: Any, workers: int, device: str, seed: int
    ) -> None:
        usual.append((pixels.shape[1], device))

    monkeypatch.setattr(gpu_steps, "usual_fit", usual_fit)
    found = gpu_steps.steps_part()
    assert [row["way"] for row in found["steps"]] == ["usual", "plain", "recorded", "compiled and recorded"]
    assert all(row["ms"] > 0 for row in found["steps"])
    assert usual == [(8, "cuda")] * 2
    assert on_card.replays == 2 * (25 - graphs.WARM_UP)  # five blocks of five steps, recorded twice
    assert graphs._Process.failure is None


def test_what_else_trains_gives_the_rates_of_the_bill(on_card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    found = gpu_trainings.trainings_part()
    assert set(found) == {
        "clip_steps_a_second", "no_tower_steps_a_second", "csi_ms", "lfosa_ms", "eoal_ms", "head_ms", "purity_seconds",
    }  # fmt: skip
    assert capsys.readouterr().err == ""  # nothing was launched kernel by kernel
    # CLIPN's stages; CSI's 5 passes of 2 steps; 15 steps of each detector and 25 of the head.
    assert on_card.replays == 2 * 7 + (10 - 3) + 2 * (15 - 3) + (25 - 3)
    rows = [{"pixels": 8, "way": "compiled and recorded", "trials": 1, "sharing": "alone", "ms": 1.0}]
    passes = {"device": "-", "steps": rows, "pool_images_a_second": {8: 1.0}}
    assert GpuRates.of_figures(found | passes).head_ms == found["head_ms"]


def test_passes_and_memory(on_card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_passes, "tower_figures", lambda device: {"tower": 1})
    found = gpu_passes.passes_part()
    assert set(found) == {"pool_images_a_second", "pool_first_pass_8", "tower"}
    assert gpu_steps.memory_part() == {"memory_mib_after_2": 0.0, "memory_mib_after_20": 0.0}


def test_steps_beside_others_wait_for_them_once(on_card: Card) -> None:
    begun: list[int] = []
    assert gpu_steps.ms_a_step(8, blocks=2, at_start=lambda: begun.append(1)) > 0
    assert begun == [1]


@pytest.mark.parametrize("size", [32, 64])
def test_the_usual_loop_sees_images_of_their_own_size(size: int) -> None:
    picture = torch.zeros(3, size, size, dtype=torch.uint8)
    for augment in (False, True):
        assert usual_transform(size, augment=augment)(picture).shape == (3, size, size)
