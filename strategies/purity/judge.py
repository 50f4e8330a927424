"""The purity detectors behind one function: learn on the labelled images what can be learnt, then judge the others.

Shapes: N images, L labelled images, K ID classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from strategies.purity.contract import PurityOptions
from strategies.purity.logit_scale import SCALES, PairScores, choose_logit_scale
from strategies.purity.scores import ctw_scores, id_and_ood_scores, judged_id, mcm_scores
from strategies.purity.threshold import choose_scale_and_threshold, threshold_from_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a detector sees of N images; cosines and similarities are those of `strategies.purity.scores`."""

    yes_NK: Tensor
    no_NK: Tensor
    similarity_NK: Tensor | None = None
    """None: no visual similarity weights."""
    has_prototype_K: Tensor | None = None
    """Which classes have a labelled image; None: all."""

    def of(self, idx: Tensor) -> Evidence:
        """The same for some of the images."""
        return Evidence(
            yes_NK=self.yes_NK[idx],
            no_NK=self.no_NK[idx],
            similarity_NK=None if self.similarity_NK is None else self.similarity_NK[idx],
            has_prototype_K=self.has_prototype_K,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Scores and decision for N images, and what they rest on; the fields mean what those of `PurityScores` do."""

    id_N: Tensor
    ood_N: Tensor
    is_id_N: Tensor
    logit_scale: float
    is_tuned: bool
    labelled_accuracy: float | None


def judge(labelled: Evidence, is_id_L: Tensor, images: Evidence, options: PurityOptions) -> Judgement:
    """The judgement of `options.detector` on `images`, after learning from the labelled ones.

    "atd" and "ctw" learn the logit scale by `options.criterion`, where `options.self_temperature` is on and both kinds
    of label are there. CTW without similarities has the same decision at every scale, so nothing is learnt and
    `options.fixed_scale` only spreads the scores.

    "mcm" learns scale and threshold together by the same criterion, or the threshold alone at `options.fixed_scale`
    where self-temperature is off. Its OOD score is the threshold, for every image. Without a labelled OOD image the
    scale is `options.fixed_scale` and the threshold keeps 95 % of the labelled ID images (`threshold_from_id`); without
    a labelled ID image every image is ID. MCM never looks at the "no" cosines.
    """
    match options.detector:
        case "atd":
            return _judge_by_pair(id_and_ood_scores, labelled, is_id_L, images, options, tune=options.self_temperature)
        case "ctw":
            tune = options.self_temperature and images.similarity_NK is not None
            return _judge_by_pair(ctw_scores, labelled, is_id_L, images, options, tune=tune)
        case "mcm":
            return _judge_by_threshold(labelled, is_id_L, images, options)
        case _:
            assert_never(options.detector)


def _judge_by_pair(
    scores: PairScores, labelled: Evidence, is_id_L: Tensor, images: Evidence, options: PurityOptions, *, tune: bool
) -> Judgement:
    """ATD's or CTW's judgement: an ID score against an OOD score."""
    choice = None
    if tune:
        choice = choose_logit_scale(
            labelled.yes_NK,
            labelled.no_NK,
            is_id_L,
            similarity_LK=labelled.similarity_NK,
            has_prototype_K=labelled.has_prototype_K,
            criterion=options.criterion,
            scores=scores,
        )
    scale = choice.scale if choice else options.fixed_scale
    id_N, ood_N = scores(
        images.yes_NK,
        images.no_NK,
        scale,
        similarity_NK=images.similarity_NK,
        has_prototype_K=images.has_prototype_K,
    )
    return Judgement(
        id_N=id_N,
        ood_N=ood_N,
        is_id_N=judged_id(id_N, ood_N),
        logit_scale=scale,
        is_tuned=choice is not None,
        labelled_accuracy=choice.accuracy if choice else None,
    )


def _judge_by_threshold(labelled: Evidence, is_id_L: Tensor, images: Evidence, options: PurityOptions) -> Judgement:
    """MCM's judgement: an ID score against one threshold for all images."""

    def scored(evidence: Evidence, scale: float) -> Tensor:
        return mcm_scores(
            evidence.yes_NK,
            scale,
            similarity_NK=evidence.similarity_NK,
            has_prototype_K=evidence.has_prototype_K,
        )

    choice = choose_scale_and_threshold(
        labelled.yes_NK,
        is_id_L,
        similarity_LK=labelled.similarity_NK,
        has_prototype_K=labelled.has_prototype_K,
        criterion=options.criterion,
        scales=SCALES if options.self_temperature else (options.fixed_scale,),
    )
    scale = choice.scale if choice else options.fixed_scale
    threshold = choice.threshold if choice else threshold_from_id(scored(labelled, scale)[is_id_L])
    id_N = scored(images, scale)
    ood_N = torch.full_like(id_N, threshold)
    return Judgement(
        id_N=id_N,
        ood_N=ood_N,
        is_id_N=judged_id(id_N, ood_N),
        logit_scale=scale,
        is_tuned=choice is not None and options.self_temperature,
        labelled_accuracy=choice.accuracy if choice else None,
    )
