"""The purity step of a trial before its first query, compared with the truth: for Figures 5 and 6.

No trial has to be run: the initial labels and the pool come from its problem, the scores from CLIPN's features.
 Shapes: N unlabelled images, L labelled images, K ID classes, T logit scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.plots.figure5 import ClassTerm, ExampleSheet, PurityExample
from experiments.plots.figure6 import ScaleSweep
from experiments.results.statistics import Condition, condition_of
from orchestrator.problem import OpenSetProblem, pose_problem
from orchestrator.settings.trial import TrialConfig
from orchestrator.trial.compute import cached_data_set
from orchestrator.trial.purity_scorer import Case, LocalPurityScorer
from strategies.purity.contract import PurityRequest, PurityScores
from strategies.purity.scores import Terms
from strategies.purity.tuning import SCALES, balanced_accuracies

KINDS = ((True, True), (False, False), (True, False), (False, True))
"""The kinds of decision, (is ID, judged ID)."""
SHOWN_CLASSES = 3
PLOTTED_SCALES = (*SCALES[:100], *SCALES[109::10])
"""Logit scales of the plotted curves: 0.1, 0.2, ..., 10.0, 11.0, 12.0, ..., 100.0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurityStep:
    """The first purity request of a trial with its answer and the truth."""

    trial: TrialConfig
    problem: OpenSetProblem
    request: PurityRequest
    scores: PurityScores
    terms: Terms
    """The factors of the scores of the unlabelled images."""
    case: Case
    """The evidence that the scorer judged from."""
    is_id_N: NDArray[np.bool_]
    """The truth of the unlabelled images."""

    @property
    def condition(self) -> Condition:
        """The trial's condition."""
        return condition_of(self.trial)


def first_purity_step(trial: TrialConfig, scorer: LocalPurityScorer) -> PurityStep:
    """The purity step of the trial's first query, answered by a scorer that holds the features of its data set.

    Raises ValueError for a detector other than ATD: Figures 5 and 6 show what ATD compares.
    """
    if trial.purity.detector != "atd":
        raise ValueError(
            f"purity.detector = {trial.purity.detector!r}: figures 5 and 6 show p_k and 1 - q_k as the detector atd "
            "compares them; omit --purity"
        )
    data = cached_data_set(trial.dataset, trial.data_root, trial.on_bad_image == "skip")
    problem = pose_problem(trial, data)
    split = problem.split
    labels = split.relabel(data.train.labels)
    request = PurityRequest(
        data_fingerprint=data.fingerprint,
        class_names=problem.class_names,
        labelled_id_idx=split.initial_id_idx,
        labelled_id_labels=labels[split.initial_id_idx],
        labelled_ood_idx=split.initial_ood_idx,
        unlabelled_idx=split.unlabelled_idx,
        options=trial.purity,
    )
    scores, terms = scorer.score_with_terms(request)
    return PurityStep(
        trial=trial,
        problem=problem,
        request=request,
        scores=scores,
        terms=terms,
        case=scorer.case(request),
        is_id_N=labels[split.unlabelled_idx] < problem.num_id_classes,
    )


def example_sheet(step: PurityStep) -> ExampleSheet:
    """Two examples of each kind of decision: the images at one and two thirds of the order by ID minus OOD score."""
    judged_N, margin_N = step.scores.is_id, step.scores.id_scores - step.scores.ood_scores
    counts, shown = {}, []
    for is_id, judged_id in KINDS:
        of_kind = np.flatnonzero((step.is_id_N == is_id) & (judged_N == judged_id))
        counts[is_id, judged_id] = len(of_kind)
        ordered = of_kind[np.argsort(margin_N[of_kind], kind="stable")]
        shown += [int(ordered[place]) for place in typical_places(len(ordered))]
    return ExampleSheet(
        condition=step.condition,
        seed=step.trial.seed,
        logit_scale=step.scores.logit_scale,
        is_tuned=step.scores.is_tuned,
        num_classes=step.problem.num_id_classes,
        counts=counts,
        examples=_examples(step, shown),
    )


def typical_places(count: int) -> list[int]:
    """Positions at one and two thirds of an ordered list of `count`; fewer if it has fewer than two entries."""
    return sorted({count // 3, 2 * count // 3}) if count else []


def _examples(step: PurityStep, positions: Sequence[int]) -> list[PurityExample]:
    """The unlabelled images at these positions with their terms."""
    data, terms = step.problem.data, step.terms
    idx = step.request.unlabelled_idx[positions]
    names, labels, pixels = data.class_names, data.train.labels[idx], data.train.images.load(idx)
    return [
        PurityExample(
            pixels_HW3=pixels[row],
            class_name=names[labels[row]] if labels[row] < len(names) else "of another domain",
            is_id=bool(step.is_id_N[position]),
            judged_id=bool(step.scores.is_id[position]),
            id_score=float(step.scores.id_scores[position]),
            ood_score=float(step.scores.ood_scores[position]),
            terms=_best_terms(
                step.request.class_names,
                terms.probs_NK[position],
                terms.not_q_NK[position],
                None if terms.weights_NK is None else terms.weights_NK[position],
            ),
        )
        for row, position in enumerate(positions)
    ]


def _best_terms(
    names: Sequence[str], probs_K: Tensor, not_q_K: Tensor, weights_K: Tensor | None
) -> tuple[ClassTerm, ...]:
    """The terms of the classes with the largest products; ties go to the first class."""
    terms = [
        ClassTerm(
            name=name,
            prob=float(probs_K[k]),
            not_q=float(not_q_K[k]),
            weight=None if weights_K is None else float(weights_K[k]),
        )
        for k, name in enumerate(names)
    ]
    return tuple(sorted(terms, key=lambda term: -term.product)[:SHOWN_CLASSES])


@torch.inference_mode()
def scale_sweep(step: PurityStep) -> ScaleSweep:
    """The balanced accuracy at every plotted scale, on the labelled images and on the pool, and the tuned scale's."""
    case = step.case
    is_id_N = torch.from_numpy(step.is_id_N).to(case.is_id_L.device)

    def on_labels(scales: tuple[float, ...]) -> NDArray[np.float64]:
        return np.asarray(balanced_accuracies(case.labelled, case.is_id_L, scales).cpu().numpy())

    def on_pool(scales: tuple[float, ...]) -> NDArray[np.float64]:
        return np.asarray(balanced_accuracies(case.images, is_id_N, scales).cpu().numpy())

    tuned = None
    if step.scores.is_tuned:
        scale = step.scores.logit_scale
        tuned = (scale, float(on_labels((scale,))[0]), float(on_pool((scale,))[0]))
    can_tune = bool(case.is_id_L.any() and not case.is_id_L.all())
    return ScaleSweep(
        condition=step.condition,
        seed=step.trial.seed,
        scales_T=np.array(PLOTTED_SCALES),
        labelled_T=on_labels(PLOTTED_SCALES) if can_tune else None,
        pool_T=on_pool(PLOTTED_SCALES),
        tuned=tuned,
        fixed_scale=step.request.options.fixed_scale,
    )
