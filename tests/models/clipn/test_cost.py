"""The estimate of operations agrees with what torch counts."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.clipn.cost import operations_an_image, seconds_on_a_core
from models.clipn.model import Clipn
from models.clipn.recipe import small_clip_config, small_resnet_config
from models.clipn.source import clip_config


@pytest.mark.parametrize("config", [small_clip_config(8), small_clip_config(32), small_resnet_config(32)])
def test_operations_are_those_that_torch_counts(config: dict[str, object]) -> None:
    clipn = Clipn(config).eval()
    with FlopCounterMode(display=False) as counter:  # with gradients: without them torch fuses what it counts
        clipn.encode_image(torch.zeros(1, 3, clipn.image_size, clipn.image_size))
    assert operations_an_image(config) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_the_published_tower() -> None:
    """ViT-B/16 at 224 pixels: 17.6 billion products (Dosovitskiy et al. 2021), two operations each."""
    assert operations_an_image(clip_config("ViT-B-16")) == pytest.approx(35.1e9, rel=0.02)


def test_the_estimate_grows_with_the_images() -> None:
    config = small_clip_config(32)
    one, many = (seconds_on_a_core(config, num) for num in (1_000, 100_000))
    assert one > 0
    assert 10 < many / one < 1000  # 100, but for the noise of two probes
