"""Scores of several detectors mixed, by weights learnt on the labels bought so far.

Shapes: L labelled images, S scores.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PRIOR_LABELS = 20.0
"""Labelled images that the prior, which trusts the first score alone, counts as much as."""
STEPS = 25
"""Newton steps; the problem has a handful of unknowns."""


def learn_fusion(scores_LS: Tensor, is_id_L: Tensor) -> Callable[[Tensor], Tensor]:
    """The log odds of ID as a weighted sum of scores, each divided by its spread on the labelled images.

    No image's score may rest on its own label: text scores do not, those of a probe are held out. The weights maximise
    the class-balanced likelihood under a normal prior around 1 for the first score and 0 for the others: with few
    labels it is the first score, with many it is what predicts best. Weights below 0 are set to 0: a score that has to
    be turned round is noise.
    """
    scores_LS = scores_LS.double()
    centre_S, spread_S = scores_LS.mean(dim=0), scores_LS.std(dim=0).clamp(min=1e-9)
    num_scores = scores_LS.shape[1]
    inputs_LE = torch.cat([(scores_LS - centre_S) / spread_S, torch.ones_like(scores_LS[:, :1])], dim=1)
    is_id = is_id_L.double()
    num, num_id = len(is_id), float(is_id.sum())
    weights_L = torch.where(is_id_L, num / (2 * num_id), num / (2 * (num - num_id)))
    prior_E = inputs_LE.new_zeros(num_scores + 1)
    prior_E[0] = 1.0
    # A quarter: the curvature of the likelihood that one label adds at even odds. The bias is free.
    precision_E = torch.full_like(prior_E, PRIOR_LABELS / 4)
    precision_E[-1] = 0.0
    solution_E = prior_E.clone()
    for _ in range(STEPS):
        probs_L = torch.sigmoid(inputs_LE @ solution_E)
        gradient_E = inputs_LE.T @ (weights_L * (probs_L - is_id)) + precision_E * (solution_E - prior_E)
        curvature_L = (weights_L * probs_L * (1 - probs_L)).clamp(min=1e-9)
        hessian_EE = (inputs_LE.T * curvature_L) @ inputs_LE + precision_E.diag()
        solution_E = solution_E - torch.linalg.solve(hessian_EE, gradient_E)
    weight_S = solution_E[:-1].clamp(min=0) / spread_S
    return lambda scores_NS: (scores_NS.double() @ weight_S).float()
