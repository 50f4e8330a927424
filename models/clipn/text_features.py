"""Class names to token ids and class features, for both text towers of a CLIPN.

Shapes: C classes, T templates, B batch, L tokens, D embedding.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch.nn import functional

from models.clipn.model import Clipn
from models.clipn.prompts import fill

BATCH_SIZE = 256
"""Texts a forward pass."""


@functools.cache
def _tokenizer() -> SimpleTokenizer:
    """CLIP's byte-pair tokeniser; its vocabulary ships with open_clip."""
    return SimpleTokenizer()


def tokenize(texts: Sequence[str], context_length: int) -> torch.Tensor:
    """Token ids (B, L) int64 with start and end token, padded with 0 to the longest of these texts.

    Raises ValueError for a text that needs more than `context_length` tokens (open_clip would cut it silently).
    """
    tokenizer = _tokenizer()
    rows = [[tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id] for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if len(row) > context_length:
            raise ValueError(
                f"text too long: {_shorten(text)!r} needs {len(row)} tokens and the model reads at most "
                f"{context_length}; shorten the class name or the template"
            )
    tokens_BL = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.int64)
    for index, row in enumerate(rows):
        tokens_BL[index, : len(row)] = torch.tensor(row)
    return tokens_BL


def tokenize_classes(phrases: Sequence[str], templates: Sequence[str], context_length: int) -> torch.Tensor:
    """Token ids (C, T, L) of each template filled with each class phrase. Errors as `tokenize`."""
    texts = [fill(template, phrase) for phrase in phrases for template in templates]
    return tokenize(texts, context_length).view(len(phrases), len(templates), -1)


@torch.inference_mode()
def encode_classes(clipn: Clipn, tokens_CTL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Class features of both text towers, ("yes" (C, D), "no" (C, D)): float32, unit rows.

    Each text's feature is normalised, those of a class's templates are summed, and the sum is normalised.
    """
    tokens_BL = tokens_CTL.flatten(0, 1)
    sums_CD = []
    for encode in (clipn.encode_yes, clipn.encode_no):
        parts = [encode(part_BL.to(clipn.device)).float() for part_BL in torch.split(tokens_BL, BATCH_SIZE)]
        features_CTD = functional.normalize(torch.cat(parts), dim=1).reshape(*tokens_CTL.shape[:2], -1)
        sums_CD.append(functional.normalize(features_CTD.sum(dim=1), dim=1))
    return sums_CD[0], sums_CD[1]


def _shorten(text: str) -> str:
    """The text, or its beginning where it is long."""
    return text if len(text) <= 60 else text[:57] + "..."
