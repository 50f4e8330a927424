"""Answers purity requests from stored CLIPN features, in this process or behind Ray actors.

Shapes: A all training images, N unlabelled images, L labelled images, K ID classes, D embedding.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from models.clipn.features import VisionLanguage
from strategies.purity.contract import IndexArray, PurityRequest, PurityScores, RequestFigures
from strategies.purity.judge import Evidence, judge
from strategies.purity.scores import prototypes

KEPT_CLASS_SETS = 8
"""Sets of classes whose cosines with all images are kept; a grid has one a data set, mismatch ratio and seed."""


class FeatureBank:
    """The features of one data set's training images on the scorer's device, and their cosines with class texts."""

    def __init__(self, vision_language: VisionLanguage, device: torch.device) -> None:
        self._vision_language = vision_language
        self._device = device
        self.features_AD = torch.from_numpy(np.array(vision_language.image_features_ND)).to(device)
        self.cosines = lru_cache(maxsize=KEPT_CLASS_SETS)(self._cosines)

    def _cosines(self, class_names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Cosines (A, K) of all images with the "yes" and the "no" texts of the classes."""
        yes_KD, no_KD = (
            torch.from_numpy(features).to(self._device) for features in self._vision_language.text_features(class_names)
        )
        return self.features_AD @ yes_KD.T, self.features_AD @ no_KD.T

    def evidence(self, request: PurityRequest) -> Evidence:
        """What a detector sees of all A images, by index, when it answers the request."""
        yes_AK, no_AK = self.cosines(request.class_names)
        similarity_AK = has_prototype_K = None
        if request.options.visual_similarity:
            similarity_AK, has_prototype_K = self._similarity(
                self.on_device(request.labelled_id_idx),
                self.on_device(request.labelled_id_labels),
                len(request.class_names),
            )
        return Evidence(yes_NK=yes_AK, no_NK=no_AK, similarity_NK=similarity_AK, has_prototype_K=has_prototype_K)

    def on_device(self, idx: IndexArray) -> Tensor:
        """Indices or labels where the features are."""
        return torch.tensor(idx, device=self._device)  # a copy: those of a view are read-only

    def _similarity(self, labelled_idx: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
        """Products (A, K) of all images with the prototypes of the labelled ones, and who has a prototype (K,)."""
        prototypes_KD, has_prototype_K = prototypes(self.features_AD[labelled_idx], labels, num_classes)
        return self.features_AD @ prototypes_KD.T, has_prototype_K


class LocalPurityScorer:
    """A PurityScorer in this process. Holds one feature bank for each data set, by the data set's fingerprint."""

    def __init__(self, vision_languages: Mapping[str, VisionLanguage], device: torch.device) -> None:
        self._banks = {key: FeatureBank(value, device) for key, value in vision_languages.items()}
        self.last_request: RequestFigures | None = None
        """Of the last request that was answered."""

    @torch.inference_mode()
    def score(self, request: PurityRequest) -> PurityScores:
        """Scores of the unlabelled images by the detector of the options (`strategies.purity.judge`).

        Raises ValueError for a data set that it does not hold.
        """
        started = time.perf_counter()
        bank = self.bank(request.data_fingerprint)
        evidence = bank.evidence(request)
        labelled = bank.on_device(np.concatenate([request.labelled_id_idx, request.labelled_ood_idx]))
        judgement = judge(
            evidence.of(labelled),
            torch.arange(len(labelled), device=labelled.device) < len(request.labelled_id_idx),
            evidence.of(bank.on_device(request.unlabelled_idx)),
            request.options,
        )
        scores = PurityScores(
            id_scores=judgement.id_N.cpu().numpy(),
            ood_scores=judgement.ood_N.cpu().numpy(),
            is_id=judgement.is_id_N.cpu().numpy(),
            logit_scale=judgement.logit_scale,
            is_tuned=judgement.is_tuned,
            labelled_accuracy=judgement.labelled_accuracy,
        )
        self.last_request = RequestFigures(seconds=time.perf_counter() - started)
        return scores

    def bank(self, data_fingerprint: str) -> FeatureBank:
        """The features of a data set. Raises ValueError for one that it does not hold."""
        if data_fingerprint not in self._banks:
            raise ValueError(f"the scorer holds no features of data set {data_fingerprint}")
        return self._banks[data_fingerprint]
