"""Answer purity requests from stored CLIPN features, in this process or behind Ray actors.

Shapes: A all training images, N unlabelled images, L labelled images, K ID classes, D embedding.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.files import content_hash
from models.clipn.features import VisionLanguage
from models.clipn.source import POSITIONS, TOKENS, ClipnSource
from models.words.candidates import OBJECT_PROMPT, Candidates, are_names, candidate_words
from models.words.lists import NOUN_PROMPT, word_list
from models.words.sums import RUN, RunSums, sum_kept
from strategies.purity.contract import (
    IndexArray,
    PurityRequest,
    PurityScorer,
    PurityScores,
    RequestFigures,
    WordOptions,
)
from strategies.purity.detectors import DETECTORS
from strategies.purity.features import Labelled
from strategies.purity.judge import Sight, judge, judge_with_terms
from strategies.purity.scores import Evidence, Terms, prototypes
from strategies.purity.words import candidate_logits, choose_words, group_logits, neglabel, tanl, zoc

KEPT_CLASS_SETS = 8
"""Sets of classes whose cosines with all images are kept; a grid has one per data set, mismatch ratio and seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Negatives:
    """Scores of all A images against some class names and the words that are their negatives."""

    kept_idx: IndexArray
    """Places of the words in the list. Not their features, which for a few sets of classes would fill a GB."""
    names_A: Tensor
    """Argument of `strategies.purity.words.neglabel`."""
    groups_AG: Tensor


class FeatureBank:
    """The features of one data set's training images on the scorer's device, and their cosines with class texts."""

    def __init__(self, vision_language: VisionLanguage, device: torch.device) -> None:
        self._vision_language = vision_language
        self._device = device
        self.features_AD = torch.from_numpy(np.array(vision_language.image_features_ND)).to(device)
        # Damaged weights give one feature for every image: all scores would tie, without any error.
        if len(self.features_AD) > 1 and bool((self.features_AD == self.features_AD[0]).all()):
            raise ValueError("every image has the same features: the weights of the image tower are damaged")
        self.cosines = lru_cache(maxsize=KEPT_CLASS_SETS)(self._cosines)
        self._against_captions = lru_cache(maxsize=KEPT_CLASS_SETS)(self._compare_with_captions)
        self._negatives = lru_cache(maxsize=KEPT_CLASS_SETS)(self._compare_with_words)

    def _cosines(self, class_names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Cosines (A, K) of all images with the "yes" and the "no" texts of the classes."""
        yes_KD, no_KD = (
            torch.from_numpy(features).to(self._device) for features in self._vision_language.text_features(class_names)
        )
        return self.features_AD @ yes_KD.T, self.features_AD @ no_KD.T

    def evidence(self, request: PurityRequest) -> Evidence:
        """Evidence of all A images for the request, by index; without cosines for a detector that reads no text."""
        if not DETECTORS[request.options.detector].reads_text:
            nothing_A0 = self.features_AD[:, :0]
            return Evidence(yes_NK=nothing_A0, no_NK=nothing_A0)
        yes_AK, no_AK = self.cosines(request.class_names)
        similarity_AK = has_prototype_K = None
        if request.options.visual_similarity:
            similarity_AK, has_prototype_K = self._similarity(
                self.on_device(request.labelled_id_idx),
                self.on_device(request.labelled_id_labels),
                len(request.class_names),
            )
        return Evidence(yes_NK=yes_AK, no_NK=no_AK, similarity_NK=similarity_AK, has_prototype_K=has_prototype_K)

    def sight(self, request: PurityRequest, labelled: Tensor, images: Tensor) -> Sight:
        """Inputs of a detector in addition to cosines, for labelled and other images, by index."""
        num_classes = len(request.class_names)
        ood = torch.full((len(request.labelled_ood_idx),), num_classes, device=self._device)
        return Sight(
            labelled=Labelled(
                features_LD=self.features_AD[labelled],
                classes_L=torch.cat([self.on_device(request.labelled_id_labels), ood]),
                num_classes=num_classes,
            ),
            features_ND=self.features_AD[images],
            **self._against_words(request, labelled, images),
        )

    def _against_words(self, request: PurityRequest, labelled: Tensor, images: Tensor) -> dict[str, Tensor]:
        """Scores of labelled and other images against words, by index; empty for a detector that reads no words."""
        options = request.options
        if "captioner" in DETECTORS[options.detector].needs:
            scores_A = self._against_captions(request.class_names)
            return {"words_L": scores_A[labelled], "words_N": scores_A[images]}
        if "words" not in DETECTORS[options.detector].needs:
            return {}
        negatives = self._negatives(request.class_names, options.words)
        if options.detector == "neglabel":
            scores_A = neglabel(negatives.names_A, negatives.groups_AG)
            return {"words_L": scores_A[labelled], "words_N": scores_A[images]}
        pool = torch.cat([labelled, images])
        known_P = torch.full((len(pool),), -1, device=self._device)
        known_P[: len(labelled)] = 0
        known_P[: len(request.labelled_id_idx)] = 1
        scores_P = tanl(
            self.features_AD[pool],
            self._words(negatives.kept_idx),
            self._vision_language.logit_scale,
            names_A=negatives.names_A[pool],
            groups_AG=negatives.groups_AG[pool],
            known_A=known_P,
            num=options.words.active,
            sure_images=options.tanl.sure_images,
        )
        return {"words_L": scores_P[: len(labelled)], "words_N": scores_P[len(labelled) :]}

    def _compare_with_words(self, class_names: tuple[str, ...], options: WordOptions) -> Negatives:
        """Compare all images with the class names and the words that can be their negatives."""
        names_KD = self._names("class names as nouns", NOUN_PROMPT, class_names)
        known = word_list()
        kept_idx = np.array(known.candidates(class_names, options.leave_out))
        if options.share < 1:
            is_noun = torch.from_numpy(kept_idx < known.num_nouns).to(self._device)
            kept_idx = kept_idx[choose_words(self._words(kept_idx), names_KD, is_noun, options.share).cpu().numpy()]
        scale = self._vision_language.logit_scale
        if options.share == 1 and options.groups == 1:
            groups_AG = self._sum_over(kept_idx)[:, None]
        else:
            groups_AG = group_logits(self.features_AD, self._words(kept_idx), scale, options.groups)
        return Negatives(
            kept_idx=kept_idx,
            names_A=(scale * (self.features_AD @ names_KD.T)).logsumexp(dim=1),
            groups_AG=groups_AG,
        )

    def _names(self, what: str, prompt: str, class_names: tuple[str, ...]) -> Tensor:
        """Features (K, D) of the class names in one sentence."""
        texts = tuple(prompt.replace("{}", name.replace("_", " ")) for name in class_names)
        return torch.from_numpy(np.array(self._vision_language.sentence_features(what, texts))).to(self._device)

    @cached_property
    def _candidates(self) -> tuple[Candidates, Tensor]:
        """The words that the captioner proposes for the images, and the images' logits (A, W) with them."""
        # Only here: it brings open_clip, torchvision and a compiler, 2 CPU s that other trials do without.
        from models.clipn.tokens import byte_pairs

        tokens_AT = self._vision_language.caption_tokens_NT
        assert tokens_AT is not None, "a detector asked for captions, and its trial has no captioner"
        candidates = candidate_words(
            tokens_AT.astype(np.int64).reshape(len(tokens_AT), POSITIONS, TOKENS), byte_pairs()
        )
        texts = tuple(OBJECT_PROMPT.replace("{}", word) for word in candidates.words)
        words_UD = torch.from_numpy(np.array(self._vision_language.sentence_features("candidate words", texts)))
        places_AW = torch.from_numpy(candidates.places_NW).to(self._device)
        logit_scale = self._vision_language.logit_scale
        return candidates, candidate_logits(self.features_AD, words_UD.to(self._device), places_AW, logit_scale)

    def _compare_with_captions(self, class_names: tuple[str, ...]) -> Tensor:
        """Scores (A,) of all images against the words that the captioner proposes for them."""
        candidates, logits_AW = self._candidates
        is_dropped_U = np.append(are_names(candidates.words, class_names), True)  # the last is place -1: no word
        is_candidate_AW = torch.from_numpy(~is_dropped_U[candidates.places_NW]).to(self._device)
        names_KD = self._names("class names as objects", OBJECT_PROMPT, class_names)
        names_A = (self._vision_language.logit_scale * (self.features_AD @ names_KD.T)).logsumexp(dim=1)
        return zoc(names_A, logits_AW, is_candidate_AW)

    def _words(self, idx: IndexArray) -> Tensor:
        """Features (M, D) of the words at these places of the list."""
        words_WD = self._vision_language.sentence_features("negative words", word_list().texts())
        return torch.from_numpy(words_WD[idx]).to(self._device)

    def _sum_over(self, kept_idx: IndexArray) -> Tensor:
        """Log-sums (A,) over nearly all words: from the sums over runs of all words, which are the same for any classes
        and computed once per model and data set."""
        known, scale = word_list(), self._vision_language.logit_scale
        order = np.array(known.in_tree_order())
        sums_AR = self._vision_language.image_rows(
            "sums over negative words",
            content_hash([known.identity, order.tolist(), RUN]),
            lambda: RunSums(self.features_AD, self._words(order), scale),
        )
        is_kept_W = np.isin(order, kept_idx)
        return sum_kept(sums_AR, is_kept_W, self.features_AD, lambda places: self._words(order[places]), scale)

    def on_device(self, idx: IndexArray) -> Tensor:
        """Copy indices or labels to the device of the features."""
        return torch.tensor(idx, device=self._device)  # a copy: those of a view are read-only

    def _similarity(self, labelled_idx: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
        """Products (A, K) of all images with the prototypes of the labelled ones, and which classes have one (K,)."""
        prototypes_KD, has_prototype_K = prototypes(self.features_AD[labelled_idx], labels, num_classes)
        return self.features_AD @ prototypes_KD.T, has_prototype_K


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Inputs of a detector for one request."""

    labelled: Evidence
    """Evidence of the labelled images: first the ID, then the OOD images of the request."""
    is_id_L: Tensor
    images: Evidence
    """Evidence of the unlabelled images, in the request's order."""
    sight: Sight | None
    """Inputs in addition to cosines; None for a detector that uses cosines only."""


def bank_name(data_fingerprint: str, source: ClipnSource) -> str:
    """What a scorer calls the features of a data set by a CLIPN: two arms of a grid may differ in theirs alone."""
    # Without the captioner: features with captions serve detectors that read none, too.
    return f"{data_fingerprint} {source.model_dump_json(exclude={'captioner', 'captioner_model'})}"


class TrialScorer:
    """A trial's PurityScorer: one that serves several trials, asked about this trial's CLIPN."""

    def __init__(self, scorer: PurityScorer, source: ClipnSource) -> None:
        self._scorer, self._source = scorer, source

    @property
    def last_request(self) -> RequestFigures | None:
        """Figures of the last answered request."""
        return self._scorer.last_request

    def score(self, request: PurityRequest) -> PurityScores:
        """The scorer's answer."""
        return self._scorer.score(replace(request, data_fingerprint=bank_name(request.data_fingerprint, self._source)))

    def features(self, data_fingerprint: str, idx: IndexArray) -> NDArray[np.float32]:
        """The scorer's features."""
        return self._scorer.features(bank_name(data_fingerprint, self._source), idx)


class LocalPurityScorer:
    """A PurityScorer in this process. Holds one feature bank for each data set and CLIPN.

    It is asked by `bank_name`, or by the data set's fingerprint if it holds that data set by one CLIPN only.
    """

    def __init__(self, vision_languages: Mapping[str, VisionLanguage], device: torch.device) -> None:
        """Hold the features under these names: `bank_name`, or the data set's fingerprint alone."""
        self._banks = {key: FeatureBank(value, device) for key, value in vision_languages.items()}
        self.last_request: RequestFigures | None = None
        """Figures of the last request that was answered."""

    @torch.inference_mode()
    def score(self, request: PurityRequest) -> PurityScores:
        """Scores of the unlabelled images by the detector of the options (`strategies.purity.judge`).

        Raises ValueError for a data set that it does not hold.
        """
        started = time.perf_counter()
        case = self.case(request)
        scores = judge(case.labelled, case.is_id_L, case.images, request.options, sight=case.sight)
        self.last_request = RequestFigures(seconds=time.perf_counter() - started, tied_scales=scores.num_tied_scales)
        return scores

    @torch.inference_mode()
    def score_with_terms(self, request: PurityRequest) -> tuple[PurityScores, Terms]:
        """Result of `score`, and the factors that ATD multiplies for each image and class, for figures."""
        case = self.case(request)
        return judge_with_terms(case.labelled, case.is_id_L, case.images, request.options)

    @torch.inference_mode()
    def case(self, request: PurityRequest) -> Case:
        """Inputs of the detector for a request. Raises ValueError for a data set that the scorer does not hold."""
        bank = self._bank(request.data_fingerprint)
        evidence = bank.evidence(request)
        labelled = bank.on_device(np.concatenate([request.labelled_id_idx, request.labelled_ood_idx]))
        images = bank.on_device(request.unlabelled_idx)
        detector = DETECTORS[request.options.detector]
        return Case(
            labelled=evidence.of(labelled),
            is_id_L=torch.arange(len(labelled), device=labelled.device) < len(request.labelled_id_idx),
            images=evidence.of(images),
            sight=bank.sight(request, labelled, images) if detector.looks_past_cosines else None,
        )

    def features(self, data_fingerprint: str, idx: IndexArray) -> NDArray[np.float32]:
        """Unit features (n, D) of some training images, in the order of `idx`. Raises ValueError as `case`."""
        bank = self._bank(data_fingerprint)
        return np.asarray(bank.features_AD[bank.on_device(idx)].cpu().numpy())

    def _bank(self, name: str) -> FeatureBank:
        if name in self._banks:
            return self._banks[name]
        fingerprint, _, source = name.partition(" ")
        # A bank of another CLIPN is no answer: its scores would be kept under this trial's fingerprint.
        held = [key for key in self._banks if key.partition(" ")[0] == fingerprint and not (source and " " in key)]
        if len(held) != 1:
            what = "features of several CLIPNs" if held else "no features"
            raise ValueError(f"the scorer holds {what} of data set {name}")
        return self._banks[held[0]]
