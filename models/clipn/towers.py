"""Image and text tower of any contrastive model of open_clip, for detectors that need no "no" tower.

A CLIPN's own towers are in `models.clipn.model`, which reads text as CLIP does. SigLIP, PE-Core, MobileCLIP, CLIPA,
CoCa, EVA and the others read images and texts in their own way, by open_clip's code.

SigLIP's logit is scale * cosine + bias. The bias is not used: it is the same for all texts, so it cancels in every
ratio of exponentials (mcm, neglabel, tanl) and moves energy's scores and their learnt threshold alike. The scale is the
model's own, as for CLIP. No detector reads its sigmoid per class.

Shapes: B batch, D embedding, S image size, L tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from open_clip.coca_model import CoCa
from open_clip.factory import load_checkpoint
from open_clip.model import CustomTextCLIP
from torch import nn

from models.clipn.model import reads_like_clip, text_features
from models.clipn.tokens import Tokenize, open_tokenizer, tokenize


class OpenTowers(nn.Module):
    """Image tower and text tower of an open_clip model with random weights, until `load` reads a file's."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Build the towers of an open_clip model config (`models.clipn.source.any_config`), and open its tokeniser.

        Raises ValueError for a config that open_clip cannot build, and for a tokeniser whose files are missing.
        """
        super().__init__()
        self._tokenize: Tokenize = open_tokenizer(config["text_cfg"])
        model: Any = build(config)
        self.model: Any = model
        self.context_length = int(config["text_cfg"].get("context_length", 77))
        self.image_size = int(config["vision_cfg"]["image_size"])
        self.embed_dim = int(config["embed_dim"])
        is_coca = "multimodal_cfg" in config
        self.visual: nn.Module = _First(model.visual) if is_coca else model.visual
        # A text without padding costs less, and a causal tower that reads the end token gives the same feature.
        self._text: Any = self.model.text
        self._may_cut = not is_coca and reads_like_clip(self._text)
        if self._may_cut and not config["text_cfg"].get("hf_tokenizer_name"):
            self._tokenize = lambda texts: tokenize(texts, self.context_length)

    @property
    def logit_scale(self) -> torch.Tensor:
        """Logarithm of the logit scale."""
        scale: torch.Tensor = self.model.logit_scale
        return scale

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.logit_scale.device

    def load(self, path: Path) -> None:
        """Take the weights of a file, which open_clip reads as tensors only, in any of the forms that it knows.

        Raises ValueError for a file that is damaged or does not fit.
        """
        try:
            load_checkpoint(self.model, str(path), strict=True, weights_only=True)
        except MemoryError:
            raise
        except Exception as error:  # damaged bytes and wrong names make open_clip and torch raise almost anything
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"clipn.pretrained: {path} is damaged or does not fit the architecture given as model ({reason})"
            ) from error

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Token ids (B, L) by the model's own tokeniser. Raises ValueError for a text that is too long."""
        return self._tokenize(texts)

    def encode_yes(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        """Text features (B, D), not normalised."""
        if self._may_cut:
            return text_features(self._text, tokens_BL)
        features = self._text(tokens_BL)
        features_BD: torch.Tensor = features[0] if isinstance(features, tuple) else features
        return features_BD


class _First(nn.Module):
    """The first output of a tower that gives several: CoCa's pooled feature, without its tokens."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        """Image features (B, D), not normalised."""
        features_BD: torch.Tensor = self.tower(images_B3SS)[0]
        return features_BD


def build(config: Mapping[str, Any]) -> nn.Module:
    """The open_clip model of a config, with random weights, in evaluation mode. Raises ValueError if it cannot be."""
    settings = copy.deepcopy(dict(config))
    settings.pop("custom_text", None)  # says which class to build; a plain CLIP's towers are the same in either
    # All weights come from one file; without these open_clip would download others to be overwritten.
    if "timm_model_name" in settings["vision_cfg"]:
        settings["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in settings["text_cfg"]:
        settings["text_cfg"]["hf_model_pretrained"] = False
    try:
        model: nn.Module = (CoCa if "multimodal_cfg" in settings else CustomTextCLIP)(**settings)
    except MemoryError:
        raise
    except Exception as error:  # unknown keys, wrong types and absent files make it raise almost anything
        reason = str(error).partition("\n")[0]
        raise ValueError(f"clipn.model: open_clip cannot build this architecture: {reason}") from error
    return model.eval()
