"""The purity detectors behind one function: learn on the labelled images what can be learnt, then judge the others.

Shapes: N images, L labelled images, K ID classes, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from strategies.purity.contract import PurityOptions, PurityScores
from strategies.purity.features import (
    Labelled,
    Learnt,
    learn_mahalanobis,
    learn_neighbours,
    vote_threshold,
)
from strategies.purity.fusion import learn_fusion
from strategies.purity.probe import learn_probe
from strategies.purity.scores import Evidence, Terms, atd, ctw, energy, judged_id, maxlogit, mcm, terms
from strategies.purity.tuning import (
    SCALES,
    Choice,
    IdScores,
    PairScores,
    choose_scale,
    choose_scale_and_threshold,
    choose_threshold,
    threshold_from_id,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Inputs of the detectors that use more than cosines: features, classes of the labelled images, negative words."""

    labelled: Labelled
    features_ND: Tensor
    """Unit rows of the images to judge."""
    words_L: Tensor | None = None
    """Scores of the labelled images against negative or candidate words, for `neglabel`, `tanl` and `zoc`."""
    words_N: Tensor | None = None
    """Scores of the images to judge."""


def judge(
    labelled: Evidence, is_id_L: Tensor, images: Evidence, options: PurityOptions, *, sight: Sight | None = None
) -> PurityScores:
    """The judgement of `options.detector` on `images`, after learning from the labelled ones.

    "atd" and "ctw" learn the logit scale by `options.criterion`, if `options.self_temperature` is on and both kinds
    of label are there. CTW without similarities has the same decision at every scale, so nothing is learnt and
    `options.fixed_scale` only spreads the scores.

    "mcm" and "energy" learn scale and threshold together by the same criterion, or the threshold alone at
    `options.fixed_scale` if self-temperature is off; "maxlogit" knows no scale. Their OOD score is the threshold, for
    every image. Without a labelled OOD image the scale is `options.fixed_scale` and the threshold keeps 95 % of the
    labelled ID images (`threshold_from_id`); without a labelled ID image every image is ID. None of them looks at the
    "no" cosines.

    The others need `sight`, and learn their threshold in the same way, on scores of images that were held out.
    """
    match options.detector:
        case "atd":
            return _judge_by_pair(atd, labelled, is_id_L, images, options, tune=options.self_temperature)
        case "ctw":
            tune = options.self_temperature and images.similarity_NK is not None
            return _judge_by_pair(ctw, labelled, is_id_L, images, options, tune=tune)
        case "mcm":
            return _judge_by_threshold(mcm, labelled, is_id_L, images, options, tune=options.self_temperature)
        case "energy":
            return _judge_by_threshold(energy, labelled, is_id_L, images, options, tune=options.self_temperature)
        case "maxlogit":
            return _judge_by_threshold(maxlogit, labelled, is_id_L, images, options, tune=False)
        case "neglabel" | "tanl" | "zoc":
            assert sight is not None, options.detector
            assert sight.words_N is not None, options.detector
            return _judge_scores(sight.words_L, is_id_L, sight.words_N, options)
        case "probe" | "knn" | "mahalanobis" | "relative-mahalanobis":
            assert sight is not None, options.detector
            return _judge_learnt(sight, options)
        case "fused":
            assert sight is not None, options.detector
            return _judge_fused(labelled, is_id_L, images, options, sight)
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


def _judge_by_threshold(
    scores: IdScores, labelled: Evidence, is_id_L: Tensor, images: Evidence, options: PurityOptions, *, tune: bool
) -> PurityScores:
    """A judgement by an ID score that depends on the scale, against one threshold for all images."""
    choice = choose_scale_and_threshold(
        labelled,
        is_id_L,
        criterion=options.criterion,
        scales=SCALES if tune else (options.fixed_scale,),
        scores=scores,
    )
    scale = choice.scale if choice else options.fixed_scale
    id_N = scores(images, scale)
    if choice is not None and choice.threshold is not None:
        threshold = choice.threshold
    else:
        lowest = 0.0 if scores is mcm else float(id_N.min()) - 1
        threshold = threshold_from_id(scores(labelled, scale)[is_id_L], lowest=lowest)
    return _judgement(id_N, torch.full_like(id_N, threshold), choice, options, is_tuned=choice is not None and tune)


def _judge_scores(
    labelled_L: Tensor | None, is_id_L: Tensor, id_N: Tensor, options: PurityOptions, *, threshold: float | None = None
) -> PurityScores:
    """A judgement by scores of any size, against `threshold` or one that is learnt on the labelled images' scores.

    Their accuracy is that of the threshold it is judged with. `labelled_L` is None if there are none to learn from.
    """
    choice = None
    if labelled_L is not None:
        choice = choose_threshold(labelled_L, is_id_L, criterion=options.criterion)
    if threshold is None:
        if choice is not None and choice.threshold is not None:
            threshold = choice.threshold
        else:
            known_L = id_N.new_empty(0) if labelled_L is None else labelled_L[is_id_L]
            threshold = threshold_from_id(known_L, lowest=float(id_N.min()) - 1)
    elif choice is not None and labelled_L is not None:
        right_L = (labelled_L > threshold) == is_id_L
        recalls = [float(right_L[kind].double().mean()) for kind in (is_id_L, ~is_id_L)]
        plain = float(right_L.double().mean())
        accuracy = sum(recalls) / 2 if options.criterion == "balanced" else plain
        choice = Choice(scale=1.0, threshold=threshold, accuracy=accuracy)
    return _judgement(id_N, torch.full_like(id_N, threshold), choice, options, is_tuned=False)


def _judge_learnt(sight: Sight, options: PurityOptions) -> PurityScores:
    """The judgement of a detector that learns from features. Without both kinds of label `probe` is `knn`."""
    labelled, detector = sight.labelled, options.detector
    learnt: Learnt | None = None
    if detector == "probe":
        learnt = _learn_probe(labelled, options)
    elif detector == "mahalanobis":
        learnt = learn_mahalanobis(labelled)
    elif detector == "relative-mahalanobis":
        pool_PD = torch.cat([labelled.features_LD, sight.features_ND])
        learnt = learn_mahalanobis(labelled, background_ND=pool_PD)
    threshold = None
    if learnt is None:
        learnt = learn_neighbours(labelled, options.knn.neighbours)
        both = bool(labelled.is_id_L.any() and not labelled.is_id_L.all())
        if detector == "knn" and both and options.knn.threshold == "vote":
            threshold = vote_threshold(len(labelled.classes_L), options.knn.neighbours)
    id_N = learnt.score(sight.features_ND)
    return _judge_scores(learnt.held_out_L, labelled.is_id_L, id_N, options, threshold=threshold)


def _judge_fused(
    labelled: Evidence, is_id_L: Tensor, images: Evidence, options: PurityOptions, sight: Sight
) -> PurityScores:
    """ATD's judgement without visual weights; as labels are bought, mixed with the largest cosine and the probe."""
    by_text = _judge_by_pair(atd, labelled, is_id_L, images, options, tune=options.self_temperature)
    probe = _learn_probe(sight.labelled, options)
    if probe is None or probe.held_out_L is None:
        return by_text
    scale = by_text.logit_scale

    def scores(evidence: Evidence, of_probe: Tensor) -> Tensor:
        return torch.stack([_log_odds(*atd(evidence, scale)), maxlogit(evidence, scale), of_probe], dim=1)

    labelled_LS = scores(labelled, probe.held_out_L)
    fused = learn_fusion(labelled_LS, is_id_L)
    return _judge_scores(fused(labelled_LS), is_id_L, fused(scores(images, probe.score(sight.features_ND))), options)


def _learn_probe(labelled: Labelled, options: PurityOptions) -> Learnt | None:
    probe = options.probe
    return learn_probe(labelled, probe.strengths, folds=probe.folds, two_classes=probe.classes == "two")


def _log_odds(id_N: Tensor, ood_N: Tensor) -> Tensor:
    """Log of the ID score over the OOD score, neither below float32's smallest step at 1."""
    return id_N.clamp(min=1e-7).log() - ood_N.clamp(min=1e-7).log()


def _judgement(
    id_N: Tensor, ood_N: Tensor, choice: Choice | None, options: PurityOptions, *, is_tuned: bool
) -> PurityScores:
    """Scores and decision on the host, with scale, threshold accuracy and ties."""
    has_scale = options.detector in ("atd", "ctw", "mcm", "energy")
    return PurityScores(
        id_scores=id_N.float().cpu().numpy(),
        ood_scores=ood_N.float().cpu().numpy(),
        is_id=judged_id(id_N, ood_N).cpu().numpy(),
        logit_scale=choice.scale if choice and has_scale else options.fixed_scale,
        is_tuned=is_tuned,
        labelled_accuracy=choice.accuracy if choice else None,
        num_tied_scales=choice.num_tied if choice and is_tuned else 0,
    )
