"""Tokens of texts: CLIP's byte pairs, or the tokeniser that a model's config names.

Shapes: B texts, C classes, T templates, L tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer

from data.files import cache_root
from models.clipn.hub import quiet_hub
from models.clipn.prompts import fill

Tokenize = Callable[[Sequence[str]], torch.Tensor]
"""Token ids (B, L) int64 of texts. Raises ValueError for a text that is too long."""


@functools.cache
def _byte_pairs() -> SimpleTokenizer:
    """CLIP's byte-pair tokeniser; its vocabulary ships with open_clip."""
    return SimpleTokenizer()


def byte_pairs() -> tuple[str, ...]:
    """The text of each of CLIP's tokens, by its id; `</w>` marks the end of a word."""
    decoder = _byte_pairs().decoder
    return tuple(decoder[token] for token in range(len(decoder)))


def tokenize(texts: Sequence[str], context_length: int) -> torch.Tensor:
    """Token ids (B, L) int64 with start and end token, padded with 0 to the longest of these texts.

    Raises ValueError for a text that needs more than `context_length` tokens (open_clip would cut it silently).
    """
    tokenizer = _byte_pairs()
    rows = [[tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id] for text in texts]
    _check_lengths(texts, [len(row) for row in rows], context_length)
    tokens_BL = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.int64)
    for index, row in enumerate(rows):
        tokens_BL[index, : len(row)] = torch.tensor(row)
    return tokens_BL


def tokenize_classes(phrases: Sequence[str], templates: Sequence[str], context_length: int) -> torch.Tensor:
    """Token ids (C, T, L) of each template filled with each class phrase. Raises the errors of `tokenize`."""
    return tokenize(filled(phrases, templates), context_length).view(len(phrases), len(templates), -1)


def filled(phrases: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Each template filled with each phrase: the templates of the first phrase, then those of the next."""
    return [fill(template, phrase) for phrase in phrases for template in templates]


def open_tokenizer(text_cfg: Mapping[str, Any]) -> Tokenize:
    """The tokeniser of a model by its `text_cfg`; rows are padded to the context length.

    Raises ValueError if its files are neither in the cache nor can be downloaded.
    """
    length = int(text_cfg.get("context_length", 77))
    if not text_cfg.get("hf_tokenizer_name"):
        return functools.partial(_padded, length)
    return functools.partial(_other_tokens, _open_other(text_cfg, length), length)


def _padded(context_length: int, texts: Sequence[str]) -> torch.Tensor:
    """Byte pairs padded with 0 to the context length, for text towers that read padding too."""
    tokens_BL = tokenize(texts, context_length)
    return torch.nn.functional.pad(tokens_BL, (0, context_length - tokens_BL.shape[1]))


def _open_other(text_cfg: Mapping[str, Any], context_length: int) -> Any:
    """A tokeniser of the package transformers, wrapped by open_clip. Raises the errors of `open_tokenizer`."""
    from open_clip.tokenizer import HFTokenizer

    name = text_cfg["hf_tokenizer_name"]
    by_hand = cache_root() / "open_clip" / "tokenizers" / name.replace("/", "--")
    try:
        with quiet_hub():
            return HFTokenizer(
                str(by_hand) if by_hand.is_dir() else name,
                context_length=context_length,
                cache_dir=str(cache_root() / "open_clip"),
                tokenizer_mode=text_cfg.get("tokenizer_mode"),
                **(text_cfg.get("tokenizer_kwargs") or {}),
            )
    except Exception as error:  # network and parser libraries raise many kinds; all mean that it cannot be had
        raise ValueError(
            f"clipn.model: the tokeniser {name} is not in the cache and cannot be downloaded ({type(error).__name__}). "
            f"Elsewhere, get tokenizer.json, tokenizer_config.json and special_tokens_map.json of {name} and put them "
            f"into the folder {by_hand}"
        ) from error


def _other_tokens(tokenizer: Any, context_length: int, texts: Sequence[str]) -> torch.Tensor:
    """Tokens (B, L) of a model's own tokeniser, padded as it pads. Raises ValueError for a text that is too long."""
    cleaned = [tokenizer.clean_fn(text) for text in texts]
    # CLIPS sets one token aside for the class, besides those that begin and end a text.
    extra = 3 if tokenizer.tokenizer_mode == "clips" else 0
    lengths = [len(row) + extra for row in tokenizer.tokenizer(cleaned, add_special_tokens=not extra)["input_ids"]]
    _check_lengths(texts, lengths, context_length)
    tokens_BL: torch.Tensor = tokenizer(list(texts))
    return tokens_BL.long()


def _check_lengths(texts: Sequence[str], lengths: Sequence[int], context_length: int) -> None:
    """Raise ValueError for the first text that has more tokens than the model reads."""
    for text, length in zip(texts, lengths, strict=True):
        if length > context_length:
            raise ValueError(
                f"text too long: {_shorten(text)!r} needs {length} tokens and the model reads at most "
                f"{context_length}; shorten the class name or the template"
            )


def _shorten(text: str) -> str:
    """The text, or its beginning if it is long."""
    return text if len(text) <= 60 else text[:57] + "..."
