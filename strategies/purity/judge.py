"""The purity detectors behind one function: learn on the labelled images what can be learnt, then judge the others.

Shapes: N images, L labelled images, K ID classes.
"""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from strategies.purity.contract import PurityOptions, PurityScores
from strategies.purity.scores import Evidence, Terms, atd, ctw, judged_id, mcm, terms
from strategies.purity.tuning import (
    SCALES,
    Choice,
    PairScores,
    choose_scale,
    choose_scale_and_threshold,
    threshold_from_id,
)


def judge(labelled: Evidence, is_id_L: Tensor, images: Evidence, options: PurityOptions) -> PurityScores:
    """The judgement of `options.detector` on `images`, after learning from the labelled ones.

    "atd" and "ctw" learn the logit scale by `options.criterion`, if `options.self_temperature` is on and both kinds
    of label are there. CTW without similarities has the same decision at every scale, so nothing is learnt and
    `options.fixed_scale` only spreads the scores.

    "mcm" learns scale and threshold together by the same criterion, or the threshold alone at `options.fixed_scale`
    if self-temperature is off. Its OOD score is the threshold, for every image. Without a labelled OOD image the
    scale is `options.fixed_scale` and the threshold keeps 95 % of the labelled ID images (`threshold_from_id`); without
    a labelled ID image every image is ID. MCM never looks at the "no" cosines.
    """
    match options.detector:
        case "atd":
            return _judge_by_pair(atd, labelled, is_id_L, images, options, tune=options.self_temperature)
        case "ctw":
            tune = options.self_temperature and images.similarity_NK is not None
            return _judge_by_pair(ctw, labelled, is_id_L, images, options, tune=tune)
        case "mcm":
            return _judge_by_threshold(labelled, is_id_L, images, options)
        case _:
            assert_never(options.detector)


def judge_with_terms(
    labelled: Evidence, is_id_L: Tensor, images: Evidence, options: PurityOptions
) -> tuple[PurityScores, Terms]:
    """`judge`, and the factors (N, K) that Eq. 4 and 7 multiply at the scale that it judged with."""
    scores = judge(labelled, is_id_L, images, options)
    return scores, terms(images, scores.logit_scale)


def _judge_by_pair(
    scores: PairScores, labelled: Evidence, is_id_L: Tensor, images: Evidence, options: PurityOptions, *, tune: bool
) -> PurityScores:
    """ATD's or CTW's judgement: an ID score against an OOD score."""
    choice = choose_scale(labelled, is_id_L, criterion=options.criterion, scores=scores) if tune else None
    id_N, ood_N = scores(images, choice.scale if choice else options.fixed_scale)
    return _judgement(id_N, ood_N, choice, options, is_tuned=choice is not None)


def _judge_by_threshold(labelled: Evidence, is_id_L: Tensor, images: Evidence, options: PurityOptions) -> PurityScores:
    """MCM's judgement: an ID score against one threshold for all images."""
    choice = choose_scale_and_threshold(
        labelled,
        is_id_L,
        criterion=options.criterion,
        scales=SCALES if options.self_temperature else (options.fixed_scale,),
    )
    scale = choice.scale if choice else options.fixed_scale
    if choice is not None and choice.threshold is not None:
        threshold = choice.threshold
    else:
        threshold = threshold_from_id(mcm(labelled, scale)[is_id_L])
    id_N = mcm(images, scale)
    is_tuned = choice is not None and options.self_temperature
    return _judgement(id_N, torch.full_like(id_N, threshold), choice, options, is_tuned=is_tuned)


def _judgement(
    id_N: Tensor, ood_N: Tensor, choice: Choice | None, options: PurityOptions, *, is_tuned: bool
) -> PurityScores:
    """Scores and decision on the host, and what they rest on."""
    return PurityScores(
        id_scores=id_N.cpu().numpy(),
        ood_scores=ood_N.cpu().numpy(),
        is_id=judged_id(id_N, ood_N).cpu().numpy(),
        logit_scale=choice.scale if choice else options.fixed_scale,
        is_tuned=is_tuned,
        labelled_accuracy=choice.accuracy if choice else None,
    )
