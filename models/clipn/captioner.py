"""A captioner's most likely tokens for images, by CoCa's decoder: the words that `zoc` compares an image with.

Its settings are `clipn.captioner` and `clipn.captioner_model`; its files are found and checked as those of any other
model of open_clip (`models.clipn.pretrained`).

Shapes: B batch, N images, P positions of a caption, T tokens of a position, V vocabulary, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.coca_model import CoCa

from data.console import Progress
from data.imageset import Images
from models.clipn.encode import network_input, resize_batch
from models.clipn.preprocessing import Preprocessing
from models.clipn.pretrained import load_pretrained
from models.clipn.source import POSITIONS, TOKENS, ClipnSource, about_captioner
from models.clipn.towers import OpenTowers
from models.clipn.weights import check_finite

START, END = 49406, 49407
"""CLIP's tokens before and after a text."""
BATCH = 64
"""Images per pass: the decoder holds the logits of 49,408 tokens for each of their positions."""


def load_captioner(source: ClipnSource, *, progress: Progress) -> OpenTowers:
    """The captioner of a source, on the CPU. Raises ValueError if its weights are missing or do not fit."""
    assert source.captioner is not None
    with about_captioner():
        towers = load_pretrained(source.captioner_model, source.captioner, progress=progress)
        assert isinstance(towers, OpenTowers), "a CoCa is no plain CLIP"
        check_finite(towers, f"clipn.captioner: {source.captioner}")
    return towers


class CaptionTokens:
    """Source of the likeliest tokens of images' captions, (N, P * T): ids, of each position the most likely first.

    A caption is decoded greedily, so the first token of a position is the caption's own. Positions after its end hold
    `END` only.
    """

    def __init__(self, captioner: OpenTowers, images: Images, preprocessing: Preprocessing) -> None:
        """Caption on the device of the weights."""
        assert isinstance(captioner.model, CoCa)
        self._captioner = captioner
        self._images = images
        self._preprocessing = preprocessing

    @property
    def facts(self) -> Mapping[str, float]:
        """Empty: these rows have no further numbers."""
        return {}

    @torch.inference_mode()
    def compute(self, start: int, stop: int) -> NDArray[np.float32]:
        """Tokens of the images `start` to `stop` (excluded), as float32, which holds these ids exactly."""
        parts = []
        for at in range(start, stop, BATCH):
            pixels = self._images.load(np.arange(at, min(at + BATCH, stop)))
            pixels_BSS3 = resize_batch(pixels, self._captioner.image_size, self._preprocessing)
            images_B3SS = network_input(pixels_BSS3, self._captioner.device, self._preprocessing)
            parts.append(likely_tokens(self._captioner.model, images_B3SS).flatten(1).float().cpu().numpy())
        return np.concatenate(parts)


def likely_tokens(coca: CoCa, images_B3SS: torch.Tensor) -> torch.Tensor:
    """The `TOKENS` likeliest tokens at each of the first `POSITIONS` positions of greedy captions, (B, P, T) int64."""
    # Not open_clip's own generate(): it needs the package transformers, and does not give the logits.
    feature_BD, image_tokens = coca.visual(images_B3SS)
    caption_BP = torch.full((len(images_B3SS), 1), START, device=images_B3SS.device)
    likely = []
    for _ in range(POSITIONS):
        logits_BV = coca(None, caption_BP, image_latent=feature_BD, image_embs=image_tokens, output_labels=False)[
            "logits"
        ][:, -1]
        tokens_BT = logits_BV.topk(TOKENS, dim=1).indices
        is_over_B1 = caption_BP[:, -1:] == END
        tokens_BT = torch.where(is_over_B1, END, tokens_BT)
        likely.append(tokens_BT)
        caption_BP = torch.cat([caption_BP, tokens_BT[:, :1]], dim=1)
    return torch.stack(likely, dim=1)
