"""The detector `probe`: a logistic regression on image features and bought labels, without any text.

Shapes: N images, L labelled images, K ID classes, C outputs, D embedding, E = D + 1 with the bias.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from strategies.purity.features import Labelled, Learnt, Scorer, fold_of_each, held_out

EXACT_UP_TO = 1000
"""Labelled images up to which the penalty is chosen on all of them, and logistic regressions are solved in float64.
Beyond, the penalty is chosen on so many drawn at random, all solutions are in float32, and those without a fold begin
at that of all images: with 5,000 images of 512 dimensions and 41 classes 2.3 CPU seconds in place of 4.3 (one thread,
AMD EPYC, n = 2; benchmarks/detectors.py)."""


def learn_probe(labelled: Labelled, strengths: Sequence[float], *, folds: int, two_classes: bool) -> Learnt | None:
    """A logistic regression whose strength has the best held-out balanced accuracy (at log odds 0); the first of
    equally good ones. None if there are fewer than two ID or fewer than two OOD images."""
    is_id_L = labelled.is_id_L
    folds_L = fold_of_each(labelled, folds)
    if folds_L is None or bool(is_id_L.all()) or not bool(is_id_L.any()):
        return None

    # Once, for all folds and strengths: axes and turning cost as much as the solutions, and need not be exact.
    variances_D, axes_DD = _principal_axes(labelled.features_LD)
    is_large = len(folds_L) > EXACT_UP_TO
    dtype = torch.float32 if is_large else torch.float64
    labelled = replace(labelled, features_LD=labelled.features_LD.to(dtype) @ axes_DD.to(dtype))

    def fit_with(strength: float, start: Probe | None = None) -> Callable[[Labelled], Probe]:
        return lambda part: _fit_aligned(part, strength, variances_D, two_classes=two_classes, start=start)

    tried, tried_folds = labelled, folds_L
    if is_large:
        some = torch.from_numpy(np.random.default_rng(1).permutation(len(folds_L))[:EXACT_UP_TO])
        fewer = labelled.of(some.to(folds_L.device))
        fewer_folds = fold_of_each(fewer, folds)
        # Of 1,000 all may be of one kind, if that is all but a few of them.
        if fewer_folds is not None and fewer.is_id_L.any() and not fewer.is_id_L.all():
            tried, tried_folds = fewer, fewer_folds
    best, most = strengths[0], -1.0
    for strength in strengths if len(strengths) > 1 else ():
        right = (held_out(tried, tried_folds, fit_with(strength)) > 0) == tried.is_id_L
        accuracy = float(right[tried.is_id_L].double().mean() + right[~tried.is_id_L].double().mean())
        if accuracy > most:
            best, most = strength, accuracy
    fitted = fit_with(best)(labelled)
    axes_DD = axes_DD.float()
    # The start has seen the held-out images. What is left of that where the solver stops: the held-out scores of ID and
    # OOD images moved apart by 0.003 at a spread of 5.2 (C = 100); by the solution of all images itself by 0.52.
    start = fitted if is_large else None
    return Learnt(
        score=lambda features_ND: fitted(features_ND @ axes_DD),
        held_out_L=held_out(labelled, folds_L, fit_with(best, start)),
    )


def fit_probe(labelled: Labelled, strength: float, *, two_classes: bool = False) -> Scorer:
    """The logistic regression that minimises |W|^2 / 2 + strength * weighted cross entropy, the bias free.

    ID and OOD images weigh the same in all (L / (2 L_id) and L / (2 L_ood) each): scikit-learn's LogisticRegression
    with these sample weights and C = strength. It is solved on features that are centred and scaled along their
    principal axes, which changes no solution: CLIP features share a large mean and a few large directions, and as
    they are the same solver took more than 200 evaluations in place of 15 to 45.
    """
    variances_D, axes_DD = _principal_axes(labelled.features_LD)
    dtype = torch.float64 if len(labelled.classes_L) <= EXACT_UP_TO else torch.float32
    aligned = replace(labelled, features_LD=(labelled.features_LD.double() @ axes_DD).to(dtype))
    fitted = _fit_aligned(aligned, strength, variances_D, two_classes=two_classes)
    return lambda features_ND: fitted(features_ND @ axes_DD.float())


def _fit_aligned(
    labelled: Labelled, strength: float, variances_D: Tensor, *, two_classes: bool, start: Probe | None = None
) -> Probe:
    """`fit_probe` of features along principal axes, whose variances are about `variances_D`, in the features' type.

    The solver begins at `start`, or at 0; the objective has one minimum.
    """
    is_id_L = labelled.is_id_L
    classes_L = (~is_id_L).long() if two_classes else labelled.classes_L
    num_outputs = 2 if two_classes else labelled.num_classes + 1
    num, num_id = len(classes_L), int(is_id_L.sum())
    features_LD = labelled.features_LD
    dtype = features_LD.dtype
    weights_L = torch.where(is_id_L, num / (2 * num_id), num / (2 * (num - num_id))).to(dtype)
    mean_D = (weights_L @ features_LD) / num
    # The mean curvature of a softmax is far below its bound of 1/2: 0.02 and 0.1 took the same number of steps.
    curvature = 0.02 * strength * num
    scales_D = (1 + curvature * variances_D).rsqrt().to(dtype)
    bias_scale = curvature**-0.5
    start_CE = features_LD.new_zeros(num_outputs, features_LD.shape[1] + 1)
    if start is not None:
        start_CE[:, :-1] = start.weight_CD / scales_D
        start_CE[:, -1] = (start.bias_C + start.weight_CD @ mean_D.float()) / bias_scale
    solution_CE = _minimise(
        start_CE,
        (features_LD - mean_D) * scales_D,
        functional.one_hot(classes_L, num_outputs).to(dtype) * weights_L[:, None],
        penalty_D=scales_D.square(),
        strength=strength,
        bias_scale=bias_scale,
    )
    weight_CD = solution_CE[:, :-1] * scales_D
    bias_C = solution_CE[:, -1] * bias_scale - weight_CD @ mean_D
    return Probe(weight_CD=weight_CD.float(), bias_C=bias_C.float())


def _principal_axes(features_LD: Tensor) -> tuple[Tensor, Tensor]:
    """Variances (D,) and axes (D, D), columns, of features; float64."""
    centred_LD = features_LD.double() - features_LD.double().mean(dim=0)
    values_D, axes_DD = torch.linalg.eigh(centred_LD.T @ centred_LD / len(centred_LD))
    return values_D.clamp(min=0), axes_DD


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A fitted logistic regression; its last output is OOD."""

    weight_CD: Tensor
    bias_C: Tensor

    def __call__(self, features_ND: Tensor) -> Tensor:
        """Log odds (N,) of ID against OOD: the order of 1 - p(OOD), without the ties where that rounds to 1."""
        logits_NC = features_ND.float() @ self.weight_CD.T + self.bias_C
        return logits_NC[:, :-1].logsumexp(dim=1) - logits_NC[:, -1]


def _minimise(
    start_CE: Tensor, inputs_LD: Tensor, targets_LC: Tensor, *, penalty_D: Tensor, strength: float, bias_scale: float
) -> Tensor:
    """Weights and scaled bias (C, D + 1) that minimise the objective of `fit_probe`, by L-BFGS from `start_CE`.

    `targets_LC` are one-hot rows times the images' weights, `penalty_D` the penalty of each input's weight.
    """
    # Outside inference mode, in which the scorer answers: the solver may not change tensors that were made there.
    with torch.inference_mode(False), torch.no_grad():
        inputs_LD, targets_LC, penalty_D = inputs_LD.clone(), targets_LC.clone(), penalty_D.clone()
        weights_L1 = targets_LC.sum(dim=1, keepdim=True)
        solution_CE = start_CE.clone()
        solver = torch.optim.LBFGS(
            [solution_CE],
            max_iter=150,
            history_size=10,
            # Smaller ones are lost in float32's rounding, and the line search then runs in place.
            tolerance_grad=(5e-4 if inputs_LD.dtype == torch.float64 else 3e-3) * max(1.0, strength**0.5),
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

        def objective() -> Tensor:
            weight_CD, bias_C = solution_CE[:, :-1], solution_CE[:, -1]
            logits_LC = inputs_LD @ weight_CD.T + bias_C * bias_scale
            log_probs_LC = logits_LC.log_softmax(dim=1)
            error_LC = (log_probs_LC.exp() * weights_L1 - targets_LC) * strength
            solution_CE.grad = torch.cat(
                [error_LC.T @ inputs_LD + weight_CD * penalty_D, error_LC.sum(dim=0)[:, None] * bias_scale], dim=1
            )
            return 0.5 * (weight_CD.square() * penalty_D).sum() - strength * (targets_LC * log_probs_LC).sum()

        solver.step(objective)  # type: ignore[no-untyped-call]
        return solution_CE
