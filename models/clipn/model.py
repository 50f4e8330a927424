"""CLIPN: a CLIP with a second text tower, which encodes that an image does not show a class.

Source: Wang et al., "CLIPN for Zero-Shot OOD Detection: Teaching CLIP to Say No" (2023), its learnable-prompt version.

Shapes: B batch, D embedding, S image size, L tokens, W text width, P "no" prompts.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from open_clip.model import CustomTextCLIP
from open_clip.transformer import TextTransformer
from torch import nn

NUM_PROMPTS = 16
"""Number of learnt "no" prompts of a CLIPN, as in the reference."""


class Clipn(nn.Module):
    """Image tower, text tower ("yes") and "no" text tower over one embedding space, built from open_clip's parts.

    A new one has random weights, a "no" tower equal to the text tower, and "no" prompts of zero: the state in which
    the training of the "no" tower starts.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Build the towers of an open_clip model config (`models.clipn.source.clip_config`).

        Raises ValueError for an architecture whose text tower is not CLIP's.
        """
        super().__init__()
        try:
            clip = CustomTextCLIP(**config)
        except MemoryError:
            raise
        except Exception as error:  # unknown keys and wrong types make open_clip and torch raise almost anything
            reason = str(error).partition("\n")[0]
            raise ValueError(f"clipn.model: open_clip cannot build this architecture: {reason}") from error
        _check_text_tower(clip.text)
        self.visual: nn.Module = clip.visual
        self.text: nn.Module = clip.text
        self.text_no: nn.Module = copy.deepcopy(clip.text)
        self.prompt_no = nn.Parameter(torch.zeros(NUM_PROMPTS, clip.text.context_length, clip.text.width))
        self.logit_scale = nn.Parameter(clip.logit_scale.detach())
        self.context_length: int = clip.text.context_length
        self.image_size: int = config["vision_cfg"]["image_size"]
        self.embed_dim: int = config["embed_dim"]

    @classmethod
    def without_weights(cls, config: Mapping[str, Any]) -> Clipn:
        """The towers without memory for their weights, which `take` then provides. Raises the errors of `Clipn`."""
        # Making a ViT-B/16's 214 M random weights only to overwrite them takes longer than reading the file.
        with torch.device("meta"):
            clipn = cls(config)
        for tower in (clipn.text, clipn.text_no):
            tower.attn_mask = tower.build_causal_mask()  # type: ignore[operator]  # no weight: in no file
        return clipn

    def take(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Use these tensors, one for each name of `state_dict`, as weights: without a copy if they fit unchanged.

        They fit if their type is that of the weights and they begin at a multiple of 64 bytes.
        """
        # 64 bytes, as for torch's own allocations: at other addresses matrix products may round differently.
        own = self.state_dict()
        fitting = {name: tensors[name].to(own[name].dtype) for name in own}
        aligned = {name: tensor if tensor.data_ptr() % 64 == 0 else tensor.clone() for name, tensor in fitting.items()}
        self.load_state_dict(aligned, strict=True, assign=True)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.logit_scale.device

    def encode_image(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        """Image features (B, D), not normalised, of preprocessed images (`models.clipn.encode`)."""
        features_BD: torch.Tensor = self.visual(images_B3SS)
        return features_BD

    def encode_yes(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        """Text features (B, D), not normalised. Token ids may be cut to any length that keeps each end token."""
        return text_features(self.text, tokens_BL)

    def encode_no(self, tokens_BL: torch.Tensor, field_BLW: torch.Tensor | None = None) -> torch.Tensor:
        """ "No" text features (B, D), not normalised, of the same token ids that the text tower gets.

        `field_BLW` is added to the embedding at each position, padding included; None means the mean of the learnt
        prompts, which inference uses.
        """
        field = self.prompt_no.mean(dim=0) if field_BLW is None else field_BLW
        return text_features(self.text_no, tokens_BL, field)

    def copy_text_to_no(self) -> None:
        """Reset the "no" tower to the text tower and its prompts to zero, in place."""
        self.text_no.load_state_dict(self.text.state_dict())
        with torch.no_grad():
            self.prompt_no.zero_()


def text_features(tower: Any, tokens_BL: torch.Tensor, field: torch.Tensor | None = None) -> torch.Tensor:
    """The projected feature (B, D) at each text's end token, by a tower that `reads_like_clip`."""
    # Our own forward, because open_clip's has no place for the field and accepts no text shorter than its context.
    # Cutting the padding changes nothing: the tower is causal and reads the feature from the end token.
    length = tokens_BL.shape[1]
    position = tower.positional_embedding[:length]
    if field is not None:
        position = position + field[..., :length, :]
    states_BLW = tower.transformer(tower.token_embedding(tokens_BL) + position, tower.attn_mask[:length, :length])
    # The end token has the largest id of the vocabulary.
    ends_BW = states_BLW[torch.arange(len(tokens_BL), device=tokens_BL.device), tokens_BL.argmax(dim=1)]
    features_BD: torch.Tensor = tower.ln_final(ends_BW) @ tower.text_projection
    return features_BD


def reads_like_clip(tower: Any) -> bool:
    """Whether `text_features` computes this text tower's features: causal, read at the end token, and projected."""
    return (
        isinstance(tower, TextTransformer)
        and tower.attn_mask is not None
        and tower.cls_emb is None
        and not tower.use_pad_mask
        and tower.pool_type == "argmax"
        and isinstance(tower.text_projection, nn.Parameter)
    )


def _check_text_tower(tower: Any) -> None:
    """Refuse a text tower that `text_features` would compute wrongly."""
    if not reads_like_clip(tower):
        raise ValueError(
            "model: CLIPN needs a text tower like CLIP's (causal, feature of the end token, matrix projection); "
            "this architecture has another one. Use for example ViT-B-16"
        )
