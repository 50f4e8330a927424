"""CLIPN's features for purity scoring: image features of one data set, and class features on request.

Both come from the feature store, so weights are loaded only if something is missing there. Importing this needs no
torch.

Shapes: N training images, C classes, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.cache import file_hash_once
from data.console import Progress
from data.files import content_hash
from data.imageset import DataSet
from models.clipn.preprocessing import CLIP_PREPROCESSING, Preprocessing
from models.clipn.prompts import class_phrases, default_templates, read_templates
from models.clipn.recipe import small_clip_config
from models.clipn.source import (
    ClipnSource,
    about_captioner,
    any_config,
    captioner_identity,
    clip_config,
    is_plain_clip,
    pretrained_preprocessing,
    used_templates_hash,
    weights_identity,
)
from models.clipn.stand_in import train_stand_in
from models.feature_store import FeatureKey, RowSource, StoredFeatures, open_features

if TYPE_CHECKING:
    from models.clipn.model import Clipn
    from models.clipn.towers import OpenTowers

TextFeatures = tuple[NDArray[np.float32], NDArray[np.float32]]
"""("yes" (C, D), "no" (C, D)), unit rows."""


class VisionLanguage:
    """CLIPN with the frozen image features of one data set's training images."""

    def __init__(
        self,
        *,
        image_features_ND: NDArray[np.float32],
        logit_scale: float,
        encode_classes: Callable[[tuple[str, ...]], TextFeatures],
        encode_texts: Callable[[str, tuple[str, ...]], NDArray[np.float32]] | None = None,
        keep: Callable[[str, str, Callable[[], RowSource]], NDArray[np.float32]] | None = None,
        caption_tokens_NT: NDArray[np.float32] | None = None,
    ) -> None:
        """Combine the features that `open_vision_language` opened; `encode_classes` encodes distinct class names.

        `encode_texts` encodes whole sentences, which are kept in the store under a name; `keep` keeps there what is
        computed of the images.
        """
        self.image_features_ND = image_features_ND
        """Image features (N, D): unit rows, float32, read-only; row i is training image i."""
        self.caption_tokens_NT = caption_tokens_NT
        """Likeliest tokens of the images' captions (`models.clipn.captioner`); None without a captioner."""
        self.logit_scale = logit_scale
        """Logit scale of the checkpoint: exp of its parameter."""
        self._encode_classes = encode_classes
        self._encode_texts = encode_texts
        self._keep = keep
        self._text_features: dict[tuple[str, ...], TextFeatures] = {}

    def text_features(self, class_names: tuple[str, ...]) -> TextFeatures:
        """Class features ("yes" (C, D), "no" (C, D)), float32, unit rows, in the order of `class_names`.

        Raises ValueError for no names, empty or equal names, and names too long for the tokeniser.
        """
        if class_names not in self._text_features:
            self._text_features[class_names] = self._encode_classes(class_names)
        return self._text_features[class_names]

    def sentence_features(self, what: str, texts: tuple[str, ...]) -> NDArray[np.float32]:
        """Unit features (n, D) of whole sentences by the "yes" tower; computed once and kept as `what`.

        Raises ValueError for sentences that are too long for the tokeniser.
        """
        assert self._encode_texts is not None, "these features were opened without a text tower"
        return self._encode_texts(what, texts)

    def image_rows(self, what: str, content: str, open_source: Callable[[], RowSource]) -> NDArray[np.float32]:
        """Rows of numbers, one per image, that `open_source` computes of the image features.

        They are computed once and kept as `what`, by the identity `content` of all else that decides them.
        """
        if self._keep is None:
            return open_source().compute(0, len(self.image_features_ND))
        return self._keep(what, content, open_source)


def open_vision_language(
    data_set: DataSet, source: ClipnSource, *, device: str = "cpu", progress: Progress | None = None
) -> VisionLanguage:
    """CLIPN over a data set's training images; cached features are opened, missing ones computed and kept.

    Trains the stand-in if the source names no checkpoint, then computes image and class features, each once: other
    processes that need the same ones wait. `device` is where networks compute ("cpu", "cuda"); `progress` gets lines of
    text.

    Raises ValueError for a source that cannot be used, a bad checkpoint, weights that cannot be downloaded, and a cache
    that cannot be written.
    """
    features = FeatureEntries(data_set, source, device, progress or (lambda line: None))
    # First: weights of a captioner that cannot be had are found out before hours of other features.
    captions = None if source.captioner is None else features.of_captions()
    image = features.of_images()
    features.of_classes(data_set.class_names)
    features.release()
    return VisionLanguage(
        image_features_ND=image.rows_ND,
        logit_scale=image.facts["logit_scale"],
        encode_classes=features.of_classes,
        encode_texts=features.of_sentences,
        keep=features.of_image_features,
        caption_tokens_NT=captions,
    )


class VisionLanguageTowers:
    """The networks of a CLIPN, for callers that need other features than `open_vision_language` keeps."""

    def __init__(self, data_set: DataSet, source: ClipnSource, progress: Progress, *, device: str = "cpu") -> None:
        """Load nothing yet; `device` is where `yes_features` are computed. Raises its errors as `clipn_identity`."""
        self._features = FeatureEntries(data_set, source, device, progress)

    @property
    def weights(self) -> str:
        """Identity (64 hex digits) of architecture and weights; a missing stand-in is trained."""
        return self._features.weights

    def yes_features(self, class_names: tuple[str, ...]) -> NDArray[np.float32]:
        """Features (C, D) of the "yes" texts of distinct class names, unit rows, from the store or computed now."""
        return self._features.of_classes(class_names)[0]

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of images that the image tower expects."""
        return self._features.preprocessing

    def load(self) -> Clipn | OpenTowers:
        """The towers, on the CPU."""
        return self._features.load()


class FeatureEntries:
    """The store's entries for one data set and source."""

    def __init__(self, data_set: DataSet, source: ClipnSource, device: str, progress: Progress) -> None:
        """Check the class names; compute nothing yet."""
        self._data_set = data_set
        self._source = source
        self._device = device
        self._progress = progress
        self._loaded: Clipn | OpenTowers | None = None
        self._class_phrases(data_set.class_names)

    def of_images(self) -> StoredFeatures:
        """Image features of the training images, with the checkpoint's logit scale."""
        images = self._data_set.train.images

        def open_source() -> RowSource:
            from models.clipn.encode import ImageRows

            return ImageRows(self._clipn(), images, precision=self._source.precision, preprocessing=self.preprocessing)

        return open_features(self.image_key, len(images), open_source, progress=self._progress)

    def of_classes(self, class_names: tuple[str, ...]) -> TextFeatures:
        """Class features of any distinct names; those of the data set's own classes are computed together."""
        wanted = self._class_phrases(class_names)
        own = self._class_phrases(self._data_set.class_names)
        made = own if set(wanted) <= set(own) else wanted

        def open_source() -> RowSource:
            from models.clipn.encode import ClassRows, YesRows
            from models.clipn.model import Clipn

            templates = (
                default_templates() if self._source.templates is None else read_templates(self._source.templates)
            )
            towers = self._clipn()
            if isinstance(towers, Clipn):
                return ClassRows(towers, made, templates)
            return YesRows(towers, made, templates)

        rows_CE = open_features(
            self._class_key(made), len(made), open_source, shard_rows=8, progress=self._progress
        ).rows_ND
        rows_CE = rows_CE[[made.index(phrase) for phrase in wanted]]
        if not self._is_plain:
            yes_CD = np.ascontiguousarray(rows_CE)
            return yes_CD, yes_CD
        num_dims = rows_CE.shape[1] // 2
        return np.ascontiguousarray(rows_CE[:, :num_dims]), np.ascontiguousarray(rows_CE[:, num_dims:])

    def of_sentences(self, what: str, texts: tuple[str, ...]) -> NDArray[np.float32]:
        """Features of sentences by the "yes" tower, from the store or computed now."""

        def open_source() -> RowSource:
            from models.clipn.encode import SentenceRows

            return SentenceRows(self._clipn(), texts)

        key = FeatureKey(
            kind=what,
            content=content_hash(list(texts)),
            weights=self.weights,
            preprocessing="unit rows" + self._tokeniser,
            precision="float32",
        )
        rows_ND = open_features(key, len(texts), open_source, shard_rows=4096, progress=self._progress).rows_ND
        self.release()
        return rows_ND

    def of_captions(self) -> NDArray[np.float32]:
        """Likeliest tokens (N, P * T) of the training images' captions."""
        images = self._data_set.train.images

        def open_source() -> RowSource:
            from models.clipn.captioner import CaptionTokens, load_captioner

            self._progress(f"loading the captioner {self._source.captioner_model}, {self._source.captioner}")
            captioner = load_captioner(self._source, progress=self._progress).to(self._device)
            return CaptionTokens(captioner, images, self._captioner_preprocessing)

        return open_features(
            self.caption_key, len(images), open_source, shard_rows=256, progress=self._progress
        ).rows_ND

    @property
    def caption_key(self) -> FeatureKey:
        """Key of the captions' tokens in the store."""
        return FeatureKey(
            kind="caption tokens",
            content=self._data_set.train.images.fingerprint,
            weights=captioner_identity(self._source),
            preprocessing=self._captioner_preprocessing.words,
            precision="float32",
        )

    @property
    def _captioner_preprocessing(self) -> Preprocessing:
        assert self._source.captioner is not None
        with about_captioner():
            return pretrained_preprocessing(self._source.captioner_model, self._source.captioner)

    def of_image_features(self, what: str, content: str, open_source: Callable[[], RowSource]) -> NDArray[np.float32]:
        """Rows that a source computes of the image features, from the store or computed now."""
        key = replace(self.image_key, kind=what, content=content_hash([self.image_key.content, content]))
        key = replace(key, preprocessing=key.preprocessing + self._tokeniser)
        return open_features(key, len(self._data_set.train.images), open_source, progress=self._progress).rows_ND

    @property
    def image_key(self) -> FeatureKey:
        """Key of the image features in the store."""
        return FeatureKey(
            kind="image features",
            content=self._data_set.train.images.fingerprint,
            weights=self.weights,
            preprocessing=f"{self.preprocessing.words}; unit rows",
            precision="float32" if self._source.precision == "fp32" else "bfloat16",
        )

    def _class_key(self, phrases: tuple[str, ...]) -> FeatureKey:
        """Key of the features of these class phrases in the store."""
        columns = '"yes" then "no"' if self._is_plain else '"yes"' + self._tokeniser
        return FeatureKey(
            kind="class features",
            content=content_hash({"phrases": list(phrases), "templates": used_templates_hash(self._source)}),
            weights=self.weights,
            preprocessing="unit sum of unit template features; " + columns,
            precision="float32",
        )

    def _class_phrases(self, class_names: tuple[str, ...]) -> tuple[str, ...]:
        """The phrases that the templates are filled with, one per class."""
        return class_phrases(class_names, clean_names=self._source.clean_names, domain=self._source.domain)

    @cached_property
    def _checkpoint(self) -> Path:
        """Path of the checkpoint file; a missing stand-in is trained."""
        return self._source.checkpoint or train_stand_in(self._source, self._data_set, self._progress)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The open_clip config of the checkpoint's architecture."""
        if self._source.pretrained is not None:
            return any_config(self._source.model)
        own = self._source.checkpoint is None
        return small_clip_config(self._data_set.image_size) if own else clip_config(self._source.model)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of images: CLIP's for a CLIPN, for pretrained weights theirs."""
        if self._source.pretrained is None:
            return CLIP_PREPROCESSING
        return pretrained_preprocessing(self._source.model, self._source.pretrained)

    @property
    def _is_plain(self) -> bool:
        """Whether the towers are a CLIPN's, or a plain CLIP's in its form."""
        return self._source.pretrained is None or is_plain_clip(self.config)

    @property
    def _tokeniser(self) -> str:
        """The tokeniser for keys of text features; empty for CLIP's, which was the only one for long."""
        text = self.config["text_cfg"]
        if self._is_plain:
            return ""
        name = text.get("hf_tokenizer_name") or "CLIP's byte pairs"
        return f"; tokens: {name}, {text.get('tokenizer_kwargs') or {}}, {text.get('context_length', 77)} at most"

    @cached_property
    def weights(self) -> str:
        """Identity of architecture and weights: by the file's bytes, or for a plain CLIP as `clipn_identity`."""
        if self._source.pretrained is not None:
            return weights_identity(self._source, self._data_set)
        return content_hash({"checkpoint": file_hash_once(self._checkpoint), "config": self.config})

    def _clipn(self) -> Clipn | OpenTowers:
        """The towers on their device, loaded when they are first needed."""
        if self._loaded is None:
            self._loaded = self.load().to(self._device)
            if self._device == "cpu":
                from models.clipn.mapped import MappedPages

                MappedPages().give_back_after_use(self._loaded)
        return self._loaded

    def load(self) -> Clipn | OpenTowers:
        """The source's towers, on the CPU. Raises ValueError for weights that are not finite, naming the tensors."""
        from models.clipn.weights import check_finite, load_clipn

        if self._source.pretrained is not None:
            from models.clipn.pretrained import load_pretrained

            told = f"clipn.pretrained: {self._source.pretrained}"
            self._progress(f"loading CLIP {self._source.model}, {self._source.pretrained}")
            clipn: Clipn | OpenTowers = load_pretrained(
                self._source.model, self._source.pretrained, progress=self._progress
            )
        else:
            told = f"clipn.checkpoint: {self._checkpoint}"
            self._progress(f"loading CLIPN from {self._checkpoint}")
            clipn = load_clipn(self._checkpoint, self.config)
        check_finite(clipn, told)
        return clipn

    def release(self) -> None:
        """Free the weights; they are loaded again if further features are requested."""
        self._loaded = None
